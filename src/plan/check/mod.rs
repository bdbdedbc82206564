//! What a recipe must satisfy as a whole, section by section, each failure with the key it is about.
//!
//! Decided: what cannot run is refused here, and so is what would run a night to no purpose (a coefficient that no
//! gradient follows, an actor that never learns). What only changes quality is the user's to choose.

mod bounds;
mod setting;
mod training;

use crate::model::ModelConfig;
use crate::recipe::{Recipe, Sources};
use bounds::{Checked, count};
use std::path::PathBuf;

/// Checks everything; returns the model's shape and the folder of its tokenizer.
pub fn check(recipe: &Recipe, at: &Sources) -> Checked<(ModelConfig, PathBuf)> {
    setting::name(&recipe.name, at)?;
    at.ensure(
        recipe.sft.is_some() || recipe.ppo.is_some(),
        "",
        "this recipe trains nothing\nadd a section [ppo], [sft], or both",
    )?;
    let (config, tokenizer) = setting::model(recipe, at)?;
    setting::task(&recipe.task, at)?;
    setting::prompt(&recipe.prompt, at)?;
    setting::reward(&recipe.reward, at)?;
    setting::device(&recipe.device, at)?;
    setting::evaluation(&recipe.evaluation, &recipe.task, at)?;
    count(at, "checkpoints.every", recipe.checkpoints.every, 0)?;
    count(at, "checkpoints.keep_last", recipe.checkpoints.keep_last, 1)?;
    count(at, "hooks.samples", recipe.hooks.samples, 0)?;
    if let Some(sft) = &recipe.sft {
        training::warm_start(sft, &config, at)?;
    }
    training::rollout(&recipe.rollout, &config, at)?;
    for key in ["task.targets", "sft.tries", "ppo.betas"] {
        // serde takes the first two of a longer list.
        at.ensure(at.items(key) <= 2, key, format_args!("`{key}` has {} entries, expected two", at.items(key)))?;
    }
    if let Some(ppo) = &recipe.ppo {
        training::context(&recipe.rollout, &config, at)?;
        let logging = &recipe.logging;
        let seen = logging.tensorboard || logging.jsonl;
        at.ensure(seen, "logging.jsonl", "nothing would record the run: `tensorboard` and `jsonl` are both false")?;
        training::ppo_numbers(ppo, at)?;
        training::batches(ppo, &recipe.rollout, &recipe.task, at)?;
        training::kl(ppo, at)?;
    }
    Ok((config, tokenizer))
}
