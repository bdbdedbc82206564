//! A plan: a recipe that passed every check, what follows from it, and whether it fits a machine's memory.
//!
//! Decided: only a `Plan` can run, and it holds nothing that was not checked.

mod check;
mod cost;
mod disk;
mod fit;
mod memory;
mod models;
mod report;
#[cfg(test)]
mod tests;

pub use cost::{Lengths, Machine, cost_json, cost_report, measured_peak};
pub use disk::{Disk, FAILED, WAITING};
pub use fit::{Devices, Fit, fit, with_relief};
pub use memory::{Part, Phase, estimate, held, on_host, peak, total};
pub use models::{kind_of, use_device};
pub use report::{json, report};

use crate::BadInput;
use crate::model::ModelConfig;
use crate::recipe::{self, Advantage, CriticModel, KlIn, Ppo, Recipe, Sft, Sources};
use crate::task::settings;
use crate::terminal;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Reads a recipe, applies the overrides `KEY=VALUE` of `sets` in order, and checks it. `out` is the run folder
/// (default: `checkpoints/NAME`).
///
/// # Errors
/// `BadInput` for the first error found: one message that shows its line.
pub fn load(path: &Path, sets: &[String], out: Option<&Path>) -> Result<Plan> {
    let (recipe, sources) = recipe::read(path, sets)?;
    sources.notes.iter().for_each(|note| terminal::warn(note));
    Ok(Plan::check(recipe, &sources, out)?)
}

/// What a run does: a recipe that passed every check.
#[derive(Clone, Debug)]
pub struct Plan {
    pub recipe: Recipe,
    /// The recipe as TOML, overrides merged and defaults written out; stored in the run folder.
    pub text: String,
    pub config: ModelConfig,
    /// The folder of `tokenizer.json`.
    pub tokenizer_dir: PathBuf,
    /// The run folder.
    pub out: PathBuf,
}

impl Plan {
    /// Checks a recipe as a whole. `out` is the run folder (default: `checkpoints/NAME`).
    ///
    /// # Errors
    /// The first combination that cannot run, or would waste a run.
    pub fn check(recipe: Recipe, sources: &Sources, out: Option<&Path>) -> Result<Self, BadInput> {
        let (config, tokenizer_dir) = check::check(&recipe, sources)?;
        let out = out.map_or_else(|| Path::new("checkpoints").join(&recipe.name), Path::to_path_buf);
        if out.exists() && !out.is_dir() {
            return Err(BadInput(format!("the run folder {} is a file; choose another with --out DIR", out.display())));
        }
        let text =
            toml::to_string(&recipe).map_err(|e| sources.bad("", format!("it cannot be written as TOML: {e}")))?;
        Ok(Self { recipe, text, config, tokenizer_dir, out })
    }

    /// Sequences per step.
    pub fn sequences_per_step(&self) -> usize {
        self.recipe.rollout.prompts_per_step * self.recipe.rollout.samples_per_prompt
    }

    /// Longest sequence of a rollout, in tokens.
    pub fn max_sequence_tokens(&self) -> usize {
        self.recipe.rollout.max_prompt_tokens + self.recipe.rollout.max_response_tokens
    }

    /// Tokens of a step's rollouts, prompts included, if all have the greatest length.
    pub fn max_tokens_per_step(&self) -> usize {
        self.sequences_per_step() * self.max_sequence_tokens()
    }

    /// Optimizer steps of the actor per PPO step.
    pub fn actor_updates(&self, ppo: &Ppo) -> usize {
        ppo.epochs * self.sequences_per_step() / ppo.mini_batch
    }

    /// Optimizer steps of the critic per PPO step (0 without one; a head on the actor's decoder shares the actor's).
    pub fn critic_updates(&self, ppo: &Ppo) -> usize {
        if ppo.needs_critic() { ppo.epochs * self.sequences_per_step() / ppo.critic_sequences() } else { 0 }
    }

    /// Problems per evaluation.
    pub fn evaluation_problems(&self) -> usize {
        match self.recipe.evaluation.problems {
            0 => settings(&self.recipe.task).sizes()[1],
            count => count,
        }
    }
}

impl Ppo {
    /// Whether advantages are estimated with a critic.
    pub fn needs_critic(&self) -> bool {
        self.advantage == Advantage::Gae
    }

    /// Whether a frozen copy of the starting model is kept.
    pub fn needs_reference(&self) -> bool {
        self.kl_in != KlIn::Off
    }

    /// Whether the critic is a separate model.
    pub fn critic_is_separate(&self) -> bool {
        self.needs_critic() && self.critic == CriticModel::Separate
    }

    /// Sequences per critic update.
    pub fn critic_sequences(&self) -> usize {
        self.critic_mini_batch.unwrap_or(self.mini_batch)
    }
}

impl Sft {
    /// Optimizer steps of the warm start; the last one of an epoch may have fewer rows.
    pub fn steps(&self) -> usize {
        self.train.div_ceil(self.batch) * self.epochs
    }
}
