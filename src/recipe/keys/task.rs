//! What is to be learnt, and what earns a reward.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::PathBuf;

/// What is to be learnt. `kind` decides which other keys there are.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    Countdown(Countdown),
    #[cfg(test)]
    Larger(Larger),
}

/// Reach a target with given numbers, each used once, by +, -, *, / and parentheses. Problems are generated, or read
/// where files are named.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Countdown {
    /// Seed of generated problems: apart from the run's seed, so that runs of other seeds meet the same problems.
    #[serde(default)]
    pub seed: u64,
    /// Problems to train on (the first rows of a file that holds more).
    #[serde_inline_default(327_680)]
    #[schemars(range(min = 1))]
    pub train: usize,
    /// Problems of the evaluations during a run.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// Problems that no run sees before `ppo-train eval`.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub test: usize,
    /// JSONL or parquet with `target` and `nums`; all three splits come from files, or none.
    pub train_file: Option<PathBuf>,
    /// The same for the validation split.
    pub validation_file: Option<PathBuf>,
    /// The same for the test split.
    pub test_file: Option<PathBuf>,
    /// How many numbers a generated problem has, from 2 to 6; each count equally often.
    #[serde_inline_default(vec![3, 4])]
    pub numbers: Vec<usize>,
    /// Generated numbers are drawn from 1..=max_number.
    #[serde_inline_default(99)]
    #[schemars(range(min = 1))]
    pub max_number: i64,
    /// Lowest and highest target of a generated problem.
    #[serde_inline_default([10, 100])]
    pub targets: [i64; 2],
    /// Whether `(1+2)*3 = 9` in an answer counts as its left side when the rest equals the target.
    #[serde_inline_default(true)]
    pub allow_equals: bool,
}

/// What a response earns: accuracy * [answer right] + format * [layout right].
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// Reward of a right answer.
    #[serde_inline_default(0.9)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub accuracy: f64,
    /// Reward of the right layout.
    #[serde_inline_default(0.1)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub format: f64,
    /// Which layout is right, and where the answer is looked for.
    #[serde(default)]
    pub rules: Rules,
    /// Whether the persona layout (`<thinkN>`, `<group_solution>`) earns the format reward too.
    #[serde(default)]
    pub dialogue_format: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// One closed think block, then one closed answer block; the last answer counts.
    #[default]
    Strict,
    /// TinyZero's scorer: the last line alone, no think block, any answer tag earns the format reward.
    Tinyzero,
}

/// A toy: write the larger of two numbers (tests/toy).
#[cfg(test)]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Larger {
    /// Problems of each split.
    #[schemars(range(min = 1))]
    pub problems: usize,
}
