//! Watchdogs: when a run is warned about, and when it ends because of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;

/// Thresholds of warnings about what a run learns, each under its own name. A warning is said once when it begins and
/// once when it ends, and recorded at every step as `watch/NAME`, 0 or 1; docs/durability.md has the causes.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Warnings that end the run, by their names, after a checkpoint is written.
    #[serde(default)]
    pub stop: Vec<Warning>,
    /// Steps in a row beyond a threshold before its warning begins, and within it before it ends.
    #[serde_inline_default(5)]
    #[schemars(range(min = 1))]
    pub patience: usize,
    /// Steps in a row in which all responses earned the same reward, such as none, before the warning (0: off).
    #[serde_inline_default(10)]
    pub reward_constant: usize,
    /// Entropy of the actor below this share of what it first was (0: off).
    #[serde_inline_default(0.1)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub entropy_collapsed: f64,
    /// Entropy, in nats per token, below which it has collapsed whatever it first was (0: none).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub entropy_floor: f64,
    /// Share of responses that are cut off at the greatest length, above it (0: off).
    #[serde_inline_default(0.9)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub responses_cut: f64,
    /// KL to the reference, in nats per token, above it (0: off).
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub kl_high: f64,
    /// KL of the updates of one step, in nats per token, above it (0: off).
    #[serde_inline_default(0.2)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub update_too_far: f64,
    /// Share of the returns' variance that the critic explains, below it once its warm-up is over (0: off); a critic
    /// that always says the mean explains 0.
    #[serde_inline_default(-1.0)]
    #[schemars(range(min = -1e6, max = 0.0))]
    pub critic_misleads: f64,
    /// Mean length of the responses above this multiple of what it first was (0: off).
    #[serde_inline_default(4.0)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub length_runs_away: f64,
}

/// What a run is warned about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    RewardConstant,
    EntropyCollapsed,
    ResponsesCut,
    KlHigh,
    UpdateTooFar,
    CriticMisleads,
    LengthRunsAway,
}

impl Warning {
    pub const ALL: [Self; 7] = [
        Self::RewardConstant,
        Self::EntropyCollapsed,
        Self::ResponsesCut,
        Self::KlHigh,
        Self::UpdateTooFar,
        Self::CriticMisleads,
        Self::LengthRunsAway,
    ];

    /// Its name, which is also that of its threshold in `[watch]`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RewardConstant => "reward_constant",
            Self::EntropyCollapsed => "entropy_collapsed",
            Self::ResponsesCut => "responses_cut",
            Self::KlHigh => "kl_high",
            Self::UpdateTooFar => "update_too_far",
            Self::CriticMisleads => "critic_misleads",
            Self::LengthRunsAway => "length_runs_away",
        }
    }
}

impl Watch {
    /// Whether the recipe wants to be warned.
    pub fn has(&self, warning: Warning) -> bool {
        match warning {
            Warning::RewardConstant => self.reward_constant > 0,
            Warning::EntropyCollapsed => self.entropy_collapsed > 0.0 || self.entropy_floor > 0.0,
            Warning::ResponsesCut => self.responses_cut > 0.0,
            Warning::KlHigh => self.kl_high > 0.0,
            Warning::UpdateTooFar => self.update_too_far > 0.0,
            Warning::CriticMisleads => self.critic_misleads < 0.0,
            Warning::LengthRunsAway => self.length_runs_away > 0.0,
        }
    }

    /// Steps in a row after which a warning begins.
    pub fn patience(&self, warning: Warning) -> usize {
        if warning == Warning::RewardConstant { self.reward_constant } else { self.patience }
    }
}
