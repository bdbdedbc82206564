//! The recipe as it stands in the file: one TOML table a section, every key with its unit and default.
//!
//! Nothing here is checked beyond types and spelling; `Plan::check` turns a `Recipe` into a `Plan`, and only plans run.
//! Defaults are the paper's (arXiv:2601.10825, supplementary tables 6 and 8) and, where it is silent, verl's.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One experiment. Paths are relative to the working directory the program is started in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
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

/// Supervised fine-tuning on prompt and response pairs, the loss on the response alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// JSONL with `prompt` and `response`, or `solver`: traces that our own solver writes.
    pub data: String,
    /// JSONL of the validation loss (`data = "solver"` writes its own).
    pub validation_data: Option<PathBuf>,
    /// Layout of the solver's traces.
    #[serde(default)]
    pub style: TraceStyle,
    /// Fewest and most tries of a solver's trace before it gives up.
    #[serde(default = "defaults::tries")]
    pub tries: [usize; 2],
    /// How often a try of a solver's trace is a solution by insight, not a random one.
    #[serde(default = "defaults::insight")]
    pub insight: f64,
    /// Rows trained on and validated on.
    #[serde(default = "defaults::sft_train")]
    pub train: usize,
    #[serde(default = "defaults::sft_validation")]
    pub validation: usize,
    #[serde(default = "defaults::sft_epochs")]
    pub epochs: usize,
    /// Rows an optimizer step.
    #[serde(default = "defaults::sft_batch")]
    pub batch: usize,
    /// Longest row, prompt and response, in tokens; longer rows are cut.
    #[serde(default = "defaults::sft_context")]
    pub context: usize,
    /// Learning rate at the end of the warm-up; a cosine to zero follows.
    #[serde(default = "defaults::sft_lr")]
    pub lr: f64,
    /// Share of the steps that warms up.
    #[serde(default = "defaults::sft_warmup")]
    pub warmup: f64,
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    #[serde(default = "defaults::grad_clip")]
    pub grad_clip: f64,
    /// Tokens (with padding) of one forward and backward pass.
    #[serde(default = "defaults::micro_tokens")]
    pub micro_batch_tokens: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceStyle {
    /// One voice: a think block of tries and checks, then the answer.
    #[default]
    Monologue,
    /// Two to four personas who try and check in turn.
    Dialogue,
    /// Sums, each with the verdict whether it meets the target; no search and no answer. To pretrain on.
    Sums,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ppo {
    #[serde(default = "defaults::steps")]
    pub steps: usize,
    #[serde(default)]
    pub advantage: Advantage,
    #[serde(default = "defaults::one")]
    pub gamma: f64,
    #[serde(default = "defaults::one")]
    pub lambda: f64,
    /// Whether advantages get mean 0 and variance 1 over the response tokens of the step.
    #[serde(default = "defaults::yes")]
    pub whiten: bool,
    /// Passes over a step's rollouts.
    #[serde(default = "defaults::one_count")]
    pub epochs: usize,
    /// Sequences an actor update.
    #[serde(default = "defaults::mini_batch")]
    pub mini_batch: usize,
    /// Sequences a critic update (default: `mini_batch`).
    pub critic_mini_batch: Option<usize>,
    /// Tokens (with padding) of one forward and backward pass; changes memory and speed, never the gradient.
    #[serde(default = "defaults::micro_tokens")]
    pub micro_batch_tokens: usize,
    #[serde(default = "defaults::actor_lr")]
    pub actor_lr: f64,
    #[serde(default = "defaults::critic_lr")]
    pub critic_lr: f64,
    #[serde(default)]
    pub lr_schedule: Schedule,
    /// Steps over which both learning rates rise from zero.
    #[serde(default)]
    pub lr_warmup_steps: usize,
    /// First steps in which the critic alone learns.
    #[serde(default)]
    pub critic_warmup_steps: usize,
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    #[serde(default = "defaults::betas")]
    pub betas: [f64; 2],
    #[serde(default = "defaults::adam_eps")]
    pub adam_eps: f64,
    #[serde(default = "defaults::grad_clip")]
    pub grad_clip: f64,
    /// How far the probability ratio may move: 1 - clip_low ..= 1 + clip_high.
    #[serde(default = "defaults::clip")]
    pub clip_low: f64,
    #[serde(default = "defaults::clip")]
    pub clip_high: f64,
    /// Dual clip: the loss of a negative advantage is at most this many times its size (over 1; 0: off).
    #[serde(default)]
    pub clip_dual: f64,
    /// How far a value may move from its old estimate (0: off).
    #[serde(default = "defaults::value_clip")]
    pub value_clip: f64,
    #[serde(default = "defaults::value_coef")]
    pub value_coef: f64,
    #[serde(default = "defaults::entropy_coef")]
    pub entropy_coef: f64,
    #[serde(default = "defaults::kl_coef")]
    pub kl_coef: f64,
    /// Where the distance to the reference is paid.
    #[serde(default)]
    pub kl_in: KlIn,
    #[serde(default)]
    pub kl_estimator: KlEstimator,
    /// Adaptive coefficient: the KL it steers to, in nats a token (0: the coefficient is fixed).
    #[serde(default)]
    pub kl_target: f64,
    /// Steps over which the adaptive coefficient reacts.
    #[serde(default = "defaults::kl_horizon")]
    pub kl_horizon: f64,
    #[serde(default)]
    pub aggregation: Aggregation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// Generalised advantage estimation with a critic (arXiv:1506.02438).
    #[default]
    Gae,
    /// Reward less the mean of the prompt's samples, over their deviation (arXiv:2402.03300). No critic.
    Grpo,
    /// Reward less the mean of the prompt's other samples (arXiv:2402.14740). No critic.
    Rloo,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    #[default]
    Constant,
    Linear,
    Cosine,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KlIn {
    /// Taken off each token's reward.
    #[default]
    Reward,
    /// Added to the actor's loss.
    Loss,
    /// No reference model.
    Off,
}

/// Estimators of KL(actor || reference) from one sample (Schulman, "Approximating KL divergence", 2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    #[default]
    K1,
    K2,
    K3,
}

/// How token losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Mean over the response tokens of the mini-batch.
    #[default]
    TokenMean,
    /// Mean over sequences of the mean over each one's tokens.
    SequenceMean,
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
    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Sampled => "sampled",
        }
    }

    /// What the names of a task's validation metrics begin with.
    pub fn metrics(self, task: &str) -> String {
        match self {
            Self::Greedy => format!("val/{task}"),
            Self::Sampled => format!("val/{task}_sampled"),
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

mod defaults {
    use super::Decoding;

    macro_rules! values {
        ($($name:ident: $type:ty = $value:expr;)*) => {$(pub fn $name() -> $type { $value })*};
    }
    values! {
        yes: bool = true;
        one: f64 = 1.0;
        one_count: usize = 1;
        train: usize = 327_680;
        validation: usize = 1024;
        numbers: Vec<usize> = vec![3, 4];
        max_number: i64 = 99;
        targets: [i64; 2] = [10, 100];
        template: String = "base".into();
        accuracy: f64 = 0.9;
        format: f64 = 0.1;
        tries: [usize; 2] = [1, 4];
        insight: f64 = 0.2;
        sft_train: usize = 500;
        sft_validation: usize = 100;
        sft_epochs: usize = 5;
        sft_batch: usize = 64;
        sft_context: usize = 2048;
        sft_lr: f64 = 1e-5;
        sft_warmup: f64 = 0.1;
        micro_tokens: usize = 16_384;
        steps: usize = 250;
        mini_batch: usize = 256;
        actor_lr: f64 = 1e-6;
        critic_lr: f64 = 1e-5;
        weight_decay: f64 = 0.01;
        betas: [f64; 2] = [0.9, 0.999];
        adam_eps: f64 = 1e-8;
        grad_clip: f64 = 1.0;
        clip: f64 = 0.2;
        value_clip: f64 = 0.5;
        value_coef: f64 = 0.5;
        entropy_coef: f64 = 0.001;
        kl_coef: f64 = 0.001;
        kl_horizon: f64 = 10_000.0;
        prompts: usize = 128;
        samples: usize = 4;
        prompt_tokens: usize = 1024;
        every_ten: usize = 10;
        every_fifty: usize = 50;
        keep_last: usize = 2;
        show_samples: usize = 4;
        greedy: Vec<Decoding> = vec![Decoding::Greedy];
        auto: String = "auto".into();
    }
}
