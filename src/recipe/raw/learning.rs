//! The sections that teach: the warm start and PPO.

use super::defaults;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// Whether the critic is a model of its own or a head on the actor's decoder.
    #[serde(default)]
    pub critic: CriticModel,
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
pub enum CriticModel {
    /// A copy of the starting model with a scalar head.
    #[default]
    Separate,
    /// A scalar head on the actor's decoder: no second model, and a decoder that learns from both losses, the values'
    /// by `value_coef`. The head has `critic_lr` and a gradient norm of its own.
    Shared,
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
