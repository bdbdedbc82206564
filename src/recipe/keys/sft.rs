//! The warm start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::PathBuf;

/// The warm start: supervised fine-tuning on prompts and responses, with the loss on the responses only. Without this
/// section PPO starts from the model as it is.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// Seed of the rows and their order (default: the run's `seed`). Runs of several seeds then share the warm start.
    pub seed: Option<u64>,
    /// A finished warm start to begin from instead: the `start` folder of another run, or an export of it. `data`
    /// cannot be set then, and no other key of this section matters.
    pub from: Option<PathBuf>,
    pub data: Option<SftData>,
    /// Number of training rows; they are held in memory.
    #[serde_inline_default(500)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub train: usize,
    /// Number of rows for the validation loss (0: it is not computed).
    #[serde_inline_default(100)]
    #[schemars(range(max = 10_000_000))]
    pub validation: usize,
    /// Passes over the rows.
    #[serde_inline_default(5)]
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Rows per optimizer step.
    #[serde_inline_default(64)]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Longest row, prompt and response, in tokens; longer rows are cut off.
    #[serde_inline_default(2048)]
    #[schemars(range(min = 2))]
    pub context: usize,
    /// Peak learning rate, at the end of the warm-up; it then follows a cosine to zero.
    #[serde_inline_default(1e-5)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub lr: f64,
    /// Share of the steps over which the learning rate rises from zero.
    #[serde_inline_default(0.1)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: f64,
    /// Weight decay of AdamW.
    #[serde_inline_default(0.01)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub weight_decay: f64,
    /// Norm to which larger gradients are scaled down (0: no clipping).
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub grad_clip: f64,
    /// Rows stand one after another in a micro-batch instead of being padded to the longest; each attends to itself
    /// alone, so the gradient stays the same. On a CPU, and in bfloat16 on a GPU where
    /// `machine.attention` lets FlashAttention do it, they always do.
    #[serde(default)]
    pub packing: bool,
    /// Least share of the training rows that can be read and in which, cut at `context`, the recipe's reward finds an
    /// answer; below it a run with PPO stops before it starts, since it would learn a layout that cannot be rewarded.
    #[serde_inline_default(0.9)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_answered: f64,
    /// Tokens, including padding, per forward and backward pass; affects memory and speed, never the gradient.
    #[serde_inline_default(16_384)]
    #[schemars(range(min = 1))]
    pub micro_batch_tokens: usize,
}

impl Sft {
    /// The solver's options, if it writes the rows.
    pub fn solver(&self) -> Option<&SolverData> {
        match &self.data {
            Some(SftData::Solver(solver)) => Some(solver),
            _ => None,
        }
    }

    /// The files, if the rows come from any.
    pub fn files(&self) -> Option<&FileData> {
        match &self.data {
            Some(SftData::File(files)) => Some(files),
            _ => None,
        }
    }
}

/// Where the rows of the warm start come from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SftData {
    Solver(SolverData),
    File(FileData),
}

/// Traces written by the task's own solver.
#[serde_inline_default]
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SolverData {
    /// Layout of the traces.
    #[serde(default)]
    pub style: TraceStyle,
    /// Fewest and most tries before the solver gives up.
    #[serde_inline_default([1, 4])]
    pub tries: [usize; 2],
    /// Probability that a try is a solution rather than a random combination.
    #[serde_inline_default(0.2)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub insight: f64,
    /// A monologue gets further tries, all wrong, until it is as long in tokens as the dialogue of the same search.
    #[serde(default)]
    pub match_lengths: bool,
    /// A dialogue's utterances become one `<think>` block, followed by the answer: the paper's rule for Llama.
    #[serde(default)]
    pub merge_utterances: bool,
}

/// Rows from a file: prompts and responses, or traces of tasks (docs/data.md).
#[serde_inline_default]
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileData {
    /// A JSONL or parquet file with `prompt` and `response`, or another layout of docs/data.md.
    pub path: PathBuf,
    /// The same for the validation loss.
    pub validation: Option<PathBuf>,
    /// Template of the prompt of a trace, with the variable `task`: a built-in name or the path of a file.
    #[serde_inline_default("task".to_string())]
    pub template: String,
    /// A dialogue's utterances become one `<think>` block, followed by its conclusion: the paper's rule for Llama.
    #[serde(default)]
    pub merge_utterances: bool,
    /// A trace's conclusion is put in `<answer>` tags, whatever tags it has in the file.
    #[serde(default)]
    pub answer_tags: bool,
    /// The file of the other arm, with the same tasks in the same order: a row whose partner there cannot be read is
    /// left out here too, so that both arms keep the same problems.
    pub partner: Option<PathBuf>,
    /// The same for the validation rows.
    pub partner_validation: Option<PathBuf>,
    /// Each trace is made as long in tokens as its partner: whole utterances or paragraphs are left out, or a
    /// monologue's paragraphs are repeated.
    #[serde(default)]
    pub match_lengths: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceStyle {
    /// One voice: a think block of tries and checks, then the answer.
    #[default]
    Monologue,
    /// Two to four personas who try and check in turn.
    Dialogue,
    /// Sums, each with a verdict on whether it meets the target; no search and no answer. For pretraining.
    Sums,
}
