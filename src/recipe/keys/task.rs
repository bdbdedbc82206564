//! The task to learn, and what earns a reward.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::PathBuf;

/// The task to learn. `kind` decides which other keys there are.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    Countdown(Countdown),
    Politifact(Politifact),
    #[cfg(test)]
    Larger(Larger),
}

/// Reach a target from given numbers, each used once, with +, -, *, / and parentheses. Problems are generated, or read
/// from files if files are named.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Countdown {
    /// Seed of generated problems; separate from the run's, so that runs with different seeds see the same problems.
    #[serde(default)]
    pub seed: u64,
    /// Number of training problems (the first rows of the file, if it has more).
    #[serde_inline_default(327_680)]
    #[schemars(range(min = 1))]
    pub train: usize,
    /// Number of problems for evaluations during a run.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// Number of problems that only `ppo-train eval` uses.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub test: usize,
    /// A JSONL or parquet file with `target` and `nums`; either all three splits come from files or none do.
    pub train_file: Option<PathBuf>,
    /// The same for the validation split.
    pub validation_file: Option<PathBuf>,
    /// The same for the test split.
    pub test_file: Option<PathBuf>,
    /// How many numbers a generated problem has, from 2 to 6; each count is equally likely.
    #[serde_inline_default(vec![3, 4])]
    pub numbers: Vec<usize>,
    /// Generated numbers are drawn from 1..=max_number.
    #[serde_inline_default(99)]
    #[schemars(range(min = 1))]
    pub max_number: i64,
    /// Lowest and highest target of a generated problem.
    #[serde_inline_default([10, 100])]
    pub targets: [i64; 2],
    /// Whether an answer may be an equation such as `(1+2)*3 = 9`: its left side is judged, and the rest must equal the
    /// target.
    #[serde_inline_default(true)]
    pub allow_equals: bool,
}

/// Say whether a claim was found to be true, half-true or false by PolitiFact's fact-checkers. Claims are read from
/// files in the layouts of LIAR (.tsv), LIAR2 (.csv, .parquet) or rows for verl (.parquet, .jsonl, .json):
/// docs/data.md.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Politifact {
    /// Number of training claims: the first rows of the file.
    #[serde_inline_default(16_384)]
    #[schemars(range(min = 1))]
    pub train: usize,
    /// Number of claims for evaluations during a run: the first rows of validation_file, or without one the last rows
    /// of train_file.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// Number of claims that only `ppo-train eval` uses: the first rows of the file.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub test: usize,
    /// The file of the training claims.
    pub train_file: PathBuf,
    /// The file of the validation claims (default: the end of train_file).
    pub validation_file: Option<PathBuf>,
    /// The file of the test claims.
    pub test_file: PathBuf,
    /// What the numbers 0 to 5 mean where a file has numbers for ratings. The default is LIAR2's order; the Hub's copy
    /// of LIAR has false, half-true, mostly-true, true, barely-true, pants-fire.
    #[serde_inline_default(
        ["pants-on-fire", "false", "mostly-false", "half-true", "mostly-true", "true"].map(String::from).to_vec()
    )]
    pub label_order: Vec<String>,
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
    /// Which layout is required, and where the answer is looked for.
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
    /// TinyZero's scorer: only the last line counts, without a think block; any answer tag earns the format reward.
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
