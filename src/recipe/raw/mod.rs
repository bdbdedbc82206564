//! The recipe as it stands in the file: one TOML table a section, every key with its unit and default.
//!
//! Nothing here is checked beyond types and spelling; `Plan::check` turns a `Recipe` into a `Plan`, and only plans run.
//! Defaults are the paper's (arXiv:2601.10825, supplementary tables 6 and 8) and, where it is silent, verl's.

mod defaults;
mod learning;

pub use learning::*;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One experiment. Paths are relative to the working directory the program is started in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Another recipe's file, beside this one: what this one does not say is read there. Never left in a whole recipe.
    #[serde(skip_serializing)]
    pub extends: Option<PathBuf>,
    /// Name of the run folder below `checkpoints/`.
    pub name: String,
    /// Seed of every random choice of the run.
    #[serde(default)]
    pub seed: u64,
    pub model: Model,
    pub task: Task,
    #[serde(default)]
    pub prompt: Prompt,
    #[serde(default)]
    pub reward: Reward,
    /// The warm start; absent: PPO starts from the model as it is.
    pub sft: Option<Sft>,
    /// Absent: the run ends after the warm start.
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
    pub logging: Logging,
    #[serde(default)]
    pub device: Device,
    #[serde(default)]
    pub memory: Memory,
}

/// Where the weights come from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.
    pub path: PathBuf,
    /// Start from random weights: only `config.json` and the tokenizer are read from `path`.
    #[serde(default)]
    pub random_weights: bool,
    /// A folder with another `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
}

/// What is to be learnt. Problems are generated, or read where a file is named.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub kind: TaskKind,
    /// Seed of generated problems: apart from the run's seed, so that runs of other seeds meet the same problems.
    #[serde(default)]
    pub seed: u64,
    /// Problem counts of the three splits (the first rows of a file, when it holds more).
    #[serde(default = "defaults::train")]
    pub train: usize,
    #[serde(default = "defaults::validation")]
    pub validation: usize,
    #[serde(default = "defaults::validation")]
    pub test: usize,
    /// JSONL or parquet with `target` and `nums`; all three splits come from files, or none.
    pub train_file: Option<PathBuf>,
    pub validation_file: Option<PathBuf>,
    pub test_file: Option<PathBuf>,
    /// How many numbers a generated problem has, each count equally often.
    #[serde(default = "defaults::numbers")]
    pub numbers: Vec<usize>,
    /// Generated numbers are drawn from 1..=max_number.
    #[serde(default = "defaults::max_number")]
    pub max_number: i64,
    /// Lowest and highest target of a generated problem.
    #[serde(default = "defaults::targets")]
    pub targets: [i64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Countdown,
}

/// How a problem becomes the model's input.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// A built-in template (`base`, `base_think`, `chat`, `compact`) or the path of a minijinja file.
    #[serde(default = "defaults::template")]
    pub template: String,
}

/// reward = accuracy * [answer right] + format * [layout right]
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    #[serde(default = "defaults::accuracy")]
    pub accuracy: f64,
    #[serde(default = "defaults::format")]
    pub format: f64,
    #[serde(default)]
    pub rules: Rules,
    /// Whether `(1+2)*3 = 9` in an answer counts as its left side when the rest equals the target.
    #[serde(default = "defaults::yes")]
    pub allow_equals: bool,
    /// Whether the persona layout (`<thinkN>`, `<group_solution>`) earns the format reward too.
    #[serde(default)]
    pub dialogue_format: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// One closed think block, then one closed answer block; the last answer counts.
    #[default]
    Strict,
    /// TinyZero's scorer: the last line alone, no think block, any answer tag earns the format reward.
    Tinyzero,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    #[serde(default = "defaults::prompts")]
    pub prompts_per_step: usize,
    #[serde(default = "defaults::samples")]
    pub samples_per_prompt: usize,
    #[serde(default = "defaults::prompt_tokens")]
    pub max_prompt_tokens: usize,
    #[serde(default = "defaults::prompt_tokens")]
    pub max_response_tokens: usize,
    #[serde(default = "defaults::one")]
    pub temperature: f64,
    #[serde(default = "defaults::one")]
    pub top_p: f64,
    /// The k most probable tokens (0: all).
    #[serde(default)]
    pub top_k: usize,
    /// Tokens, besides the model's end-of-sequence tokens, that end a response; each one entry of the vocabulary.
    #[serde(default)]
    pub stop_tokens: Vec<String>,
    /// Sequences decoded at a time (0: all of the step).
    #[serde(default)]
    pub batch: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between two evaluations (0: before the first and after the last step only).
    #[serde(default = "defaults::every_ten")]
    pub every: usize,
    /// Problems of the validation split an evaluation takes (0: all).
    #[serde(default)]
    pub problems: usize,
    /// Evaluate greedily, by sampling at temperature 1, or both.
    #[serde(default = "defaults::greedy")]
    pub decoding: Vec<Decoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    Greedy,
    Sampled,
}

impl Decoding {
    pub const ALL: [Self; 2] = [Self::Greedy, Self::Sampled];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Sampled => "sampled",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Steps between two checkpoints (0: the last step only).
    #[serde(default = "defaults::every_fifty")]
    pub every: usize,
    /// How many of the newest are kept.
    #[serde(default = "defaults::keep_last")]
    pub keep_last: usize,
    /// Whether the one with the best validation accuracy is kept besides.
    #[serde(default = "defaults::yes")]
    pub keep_best: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Rollouts shown with their rewards at each evaluation (0: none).
    #[serde(default = "defaults::show_samples")]
    pub samples: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    #[serde(default = "defaults::yes")]
    pub tensorboard: bool,
    #[serde(default = "defaults::yes")]
    pub jsonl: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU where there is one.
    #[serde(default = "defaults::auto")]
    pub device: String,
    #[serde(default)]
    pub precision: Precision,
    /// CPU threads of one operation (0: one for each core).
    #[serde(default)]
    pub threads: usize,
}

/// What is given for room on the device: time, never a result.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Updates keep only the input of each layer and compute the layer once more on the way back.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// The reference rests on the host and comes to the device for its part of a step.
    #[serde(default)]
    pub offload_reference: bool,
    /// Moments and float32 master weights stay on the host, and the optimizer's steps are done there.
    #[serde(default)]
    pub offload_optimizer: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Weights and activations in float32.
    Float32,
    /// Weights and activations in bfloat16; master weights, optimizer, log-probs and losses in float32.
    #[default]
    Bfloat16,
}

macro_rules! empty_table_is_default {
    ($($section:ident),*) => {$(
        impl Default for $section {
            /// What an absent section means: the same as an empty one.
            fn default() -> Self {
                toml::from_str("").expect("every key of the section has a default")
            }
        }
    )*};
}
empty_table_is_default!(Prompt, Reward, Rollout, Evaluation, Checkpoints, Hooks, Logging, Device);
