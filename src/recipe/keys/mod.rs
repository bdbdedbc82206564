//! The keys of a recipe. Each is declared once, here, with its type, its default, its bounds and a sentence about it;
//! the checks, the schema for editors and docs/recipe.md are derived from these declarations.
//!
//! Nothing else is checked here; `Plan::check` turns a `Recipe` into a `Plan`, and only plans run. Defaults are the
//! paper's (arXiv:2601.10825, supplementary tables 6 and 8) or, if it gives none, verl's. An integer without its own
//! bound is at most `MOST`.

mod hooks;
mod ppo;
mod run;
mod sft;
mod task;
mod warnings;

pub use hooks::*;
pub use ppo::*;
pub use run::*;
pub use sft::*;
pub use task::*;
pub use warnings::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::PathBuf;

/// The largest count a recipe may have, so that no product of a few overflows.
pub const MOST: u64 = 1_000_000_000;

/// One experiment. Paths are relative to the working directory of the program.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Another recipe, by its path relative to this one; it provides every key that this one does not set.
    // Never present in a merged recipe.
    #[serde(skip_serializing)]
    pub extends: Option<PathBuf>,
    /// Name of the run folder in `checkpoints/`.
    pub name: String,
    /// Seed of every random choice in the run.
    #[serde(default)]
    pub seed: u64,
    pub model: Model,
    pub task: Task,
    #[serde(default)]
    pub prompt: Prompt,
    #[serde(default)]
    pub reward: Reward,
    pub sft: Option<Sft>,
    pub ppo: Option<Ppo>,
    #[serde(default)]
    pub rollout: Rollout,
    #[serde(default)]
    pub evaluation: Evaluation,
    #[serde(default)]
    pub checkpoints: Checkpoints,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub watch: Watch,
    #[serde(default)]
    pub logging: Logging,
    #[serde(default)]
    pub machine: Machine,
    #[serde(default)]
    pub memory: Memory,
}

impl Recipe {
    /// The warm start that the run itself trains, if it does.
    pub fn own_warm_start(&self) -> Option<&Sft> {
        self.sft.as_ref().filter(|sft| sft.from.is_none())
    }

    /// The machine as hooks use it: on a device of their own, if they have one.
    pub fn hooks_machine(&self) -> Machine {
        let device = self.hooks.device.as_ref().unwrap_or(&self.machine.device).clone();
        Machine { device, ..self.machine.clone() }
    }

    /// Seed of the warm start's rows and their order.
    pub fn warm_start_seed(&self) -> u64 {
        self.sft.as_ref().and_then(|sft| sft.seed).unwrap_or(self.seed)
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.
    pub path: PathBuf,
    /// Start from random weights: only `config.json` and the tokenizer are read from `path`.
    #[serde(default)]
    pub random_weights: bool,
    /// Another folder to read `tokenizer.json` from (default: `path`).
    pub tokenizer: Option<PathBuf>,
}

/// How a problem becomes the model's input.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// A built-in template (`base`, `base_think`, `chat`, `compact`) or the path of a minijinja file.
    #[serde_inline_default("base".into())]
    pub template: String,
}

macro_rules! empty_table_is_default {
    ($($section:ident),*) => {$(
        impl Default for $section {
            /// An absent section means the same as an empty one.
            fn default() -> Self {
                toml::from_str("").expect("every key of the section has a default")
            }
        }
    )*};
}
empty_table_is_default!(Prompt, Reward, Rollout, Evaluation, Checkpoints, Hooks, Watch, Logging, Machine, Memory);
