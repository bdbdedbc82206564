//! What a recipe must satisfy as a whole, section by section; each failure names its key. The bounds of single keys are
//! declared in `recipe::keys`.
//!
//! Decided: what cannot run is refused here, and so is what would waste a night (a coefficient that no gradient
//! follows, an actor that never learns). What only affects quality is the user's choice.

mod hooks;
mod setting;
mod training;

use crate::BadInput;
use crate::model::ModelConfig;
use crate::recipe::{Recipe, Sources};
use crate::task::settings;
use std::path::PathBuf;

/// Checks everything; returns the model's shape and the folder of its tokenizer.
pub fn check(recipe: &Recipe, at: &Sources) -> Result<(ModelConfig, PathBuf), BadInput> {
    setting::name(&recipe.name, at)?;
    at.ensure(
        recipe.sft.is_some() || recipe.ppo.is_some(),
        "",
        "this recipe trains nothing\nadd a section [ppo], [sft], or both",
    )?;
    let (config, tokenizer) = setting::model(recipe, at)?;
    settings(&recipe.task).check(at)?;
    setting::prompt(&recipe.prompt, at)?;
    setting::reward(&recipe.reward, at)?;
    setting::machine(&recipe.machine, at)?;
    setting::evaluation(&recipe.evaluation, &recipe.task, at)?;
    if let Some(sft) = &recipe.sft {
        at.ensure(
            sft.solver().is_none() || settings(&recipe.task).has_solver(),
            "sft.data.kind",
            "this task has no solver to write traces\nset sft.data.kind = \"file\"",
        )?;
        training::warm_start(sft, &config, at)?;
    }
    training::rollout(&recipe.rollout, &config, at)?;
    hooks::check(recipe, &config, at)?;
    if let Some(ppo) = &recipe.ppo {
        training::context(&recipe.rollout, &config, at)?;
        let logging = &recipe.logging;
        let seen = logging.tensorboard || logging.jsonl;
        at.ensure(seen, "logging.jsonl", "nothing would record the run: `tensorboard` and `jsonl` are both false")?;
        training::ppo_numbers(ppo, at)?;
        training::batches(ppo, &recipe.rollout, &recipe.task, at)?;
        training::kl(ppo, at)?;
        training::watch(&recipe.watch, ppo, at)?;
    }
    Ok((config, tokenizer))
}
