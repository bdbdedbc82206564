//! PPO.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;

/// Reinforcement learning with PPO. Without this section the run ends after the warm start.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ppo {
    /// Number of PPO steps; each has rollouts and updates.
    #[serde_inline_default(250)]
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// How advantages are estimated.
    #[serde(default)]
    pub advantage: Advantage,
    /// Whether the critic is a separate model or a head on the actor's decoder.
    #[serde(default)]
    pub critic: CriticModel,
    /// Discount per token.
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// Decay of GAE's temporal differences, per token.
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// Whether GAE's advantages are normalised to mean 0 and variance 1 over the response tokens of the step.
    #[serde_inline_default(true)]
    pub whiten: bool,
    /// Passes over the rollouts of a step.
    #[serde_inline_default(1)]
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Sequences per update of the actor.
    #[serde_inline_default(256)]
    #[schemars(range(min = 1))]
    pub mini_batch: usize,
    /// Sequences per update of the critic (default: `mini_batch`).
    #[schemars(range(min = 1))]
    pub critic_mini_batch: Option<usize>,
    /// Tokens, including padding, per forward and backward pass; affects memory and speed, never the gradient.
    #[serde_inline_default(16_384)]
    #[schemars(range(min = 1))]
    pub micro_batch_tokens: usize,
    /// The sequences of a micro-batch stand one after another instead of being padded to the longest, and a prompt is
    /// read once for all responses to it; the gradient stays the same. On a CPU, and in bfloat16 on a GPU
    /// where `machine.attention` lets FlashAttention do it, they always do.
    #[serde(default)]
    pub packing: bool,
    /// Peak learning rate of the actor.
    #[serde_inline_default(1e-6)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub actor_lr: f64,
    /// Peak learning rate of the critic.
    #[serde_inline_default(1e-5)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub critic_lr: f64,
    /// How both learning rates decay after the warm-up.
    #[serde(default)]
    pub lr_schedule: Schedule,
    /// Share of the steps over which both learning rates rise from zero.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: f64,
    /// Number of first steps in which only the critic learns.
    #[serde(default)]
    pub critic_warmup_steps: usize,
    /// Weight decay of AdamW.
    #[serde_inline_default(0.01)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub weight_decay: f64,
    /// Decay rates of AdamW's moments, each at least 0 and below 1.
    #[serde_inline_default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// Added to the square root of AdamW's second moment.
    #[serde_inline_default(1e-8)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub adam_eps: f64,
    /// Norm to which larger gradients are scaled down (0: no clipping).
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub grad_clip: f64,
    /// How far the probability ratio may fall: to 1 - clip_low.
    #[serde_inline_default(0.2)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub clip_low: f64,
    /// How far the probability ratio may rise: to 1 + clip_high.
    #[serde_inline_default(0.2)]
    #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0.0))]
    pub clip_high: f64,
    /// Dual clip: bounds the loss of a negative advantage at this multiple of its size (above 1; 0: off).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub clip_dual: f64,
    /// How far a value may move from its old estimate (0: no limit).
    #[serde_inline_default(0.5)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub value_clip: f64,
    /// Coefficient of the critic's loss.
    #[serde_inline_default(0.5)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub value_coef: f64,
    /// Coefficient of the entropy bonus in the actor's loss.
    #[serde_inline_default(0.001)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub entropy_coef: f64,
    /// Coefficient of the KL to the reference, the model that PPO starts from.
    #[serde_inline_default(0.001)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub kl_coef: f64,
    /// Where the KL penalty is applied.
    #[serde(default)]
    pub kl_in: KlIn,
    /// How the KL is estimated from a sample.
    #[serde(default)]
    pub kl_estimator: KlEstimator,
    /// Target KL of an adaptive coefficient, in nats per token (0: the coefficient is fixed).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub kl_target: f64,
    /// Number of sequences over which the adaptive coefficient adjusts.
    #[serde_inline_default(10_000.0)]
    #[schemars(range(max = 1e12), extend("exclusiveMinimum" = 0.0))]
    pub kl_horizon: f64,
    /// How token losses are combined into one number.
    #[serde(default)]
    pub aggregation: Aggregation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Advantage {
    /// Generalised advantage estimation with a critic (arXiv:1506.02438).
    #[default]
    Gae,
    /// Reward minus the mean of the prompt's samples, divided by their deviation (arXiv:2402.03300). No critic.
    Grpo,
    /// Reward minus the mean of the prompt's other samples (arXiv:2402.14740). No critic.
    Rloo,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CriticModel {
    /// A copy of the starting model with a scalar head.
    #[default]
    Separate,
    /// A scalar head on the actor's decoder: no second model, and the decoder learns from both losses, the critic's
    /// times `value_coef`. The head has its own learning rate, `critic_lr`, and its own gradient norm.
    Shared,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// Linearly to zero.
    Linear,
    /// Along half a cosine to zero.
    Cosine,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlIn {
    /// Subtracted from each token's reward.
    #[default]
    Reward,
    /// Added to the actor's loss.
    Loss,
    /// No reference model.
    Off,
}

/// Estimators of KL(actor || reference) from one sample, with r = reference / actor (Schulman, "Approximating KL
/// divergence", 2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// -log r: unbiased, with high variance.
    #[default]
    K1,
    /// (log r)^2 / 2: biased, with low variance.
    K2,
    /// r - 1 - log r: unbiased, with low variance.
    K3,
}

/// How token losses are combined into one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Mean over the response tokens of the mini-batch.
    #[default]
    TokenMean,
    /// Mean over sequences of each sequence's mean over its tokens.
    SequenceMean,
}
