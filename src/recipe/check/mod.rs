//! What a recipe must satisfy as a whole, section by section, each failure with the key it is about.
//!
//! Decided: what cannot run is refused here, and so is what would run a night to no purpose (a coefficient that no
//! gradient follows, an actor that never learns). What only changes quality is the user's to choose.

mod setting;
mod training;

use super::raw::Recipe;
use super::source::Sources;
use crate::BadInput;
use crate::model::config::ModelConfig;
use std::path::PathBuf;

type Checked<T = ()> = Result<T, BadInput>;

/// No count of a recipe is larger, so that no product of a few overflows.
const MOST: usize = 1_000_000_000;

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

fn count(at: &Sources, key: &str, value: usize, least: usize) -> Checked {
    let good = (least..=MOST).contains(&value);
    at.ensure(good, key, format_args!("`{key}` is {value}, expected a whole number from {least} to {MOST}"))
}

/// `low..=high`; not a number is none of them.
fn within(at: &Sources, key: &str, value: f64, low: f64, high: f64) -> Checked {
    at.ensure(
        (low..=high).contains(&value),
        key,
        format_args!("`{key}` is {value}, expected a number from {low} to {high}"),
    )
}

/// Above zero, at most `high`.
fn above_zero(at: &Sources, key: &str, value: f64, high: f64) -> Checked {
    let good = value > 0.0 && value <= high;
    at.ensure(good, key, format_args!("`{key}` is {value}, expected a number above 0, at most {high}"))
}
