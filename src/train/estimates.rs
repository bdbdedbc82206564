//! The second stage: what the models estimate for the rollouts before they learn from them.

use super::batch::Batch;
use super::clock::Clock;
use super::learner::{Estimator, Models};
use super::rollouts::Rollout;
use crate::algo::advantage::mean_and_deviation;
use crate::metrics::Record;
use crate::model::Policy;
use crate::torch::to_host;
use anyhow::Result;
use tch::Tensor;

/// Flat, [N] float32 each, on the models' device.
pub struct Estimates {
    /// The actor's log-probs, recomputed: the "old" policy of the update.
    pub old: Tensor,
    /// The reference's log-probs.
    pub reference: Option<Tensor>,
    /// The critic's values before each token.
    pub values: Option<Tensor>,
}

/// Runs actor, reference and critic at the `temperature` of the rollouts.
pub fn estimate(models: &Models, batch: &Batch, temperature: f64, clock: &mut Clock) -> Result<Estimates> {
    let actor = &models.actor.model;
    let (old, mut values) = match &models.critic {
        // One pass through the decoder for both.
        Some(Estimator::Head(head)) => {
            let [old, values] = batch.score(|micro| {
                let hidden = actor.hidden(&micro.tokens);
                [actor.log_probs(&hidden, &micro.targets, temperature), head.model.values(&hidden)]
            })?;
            (old, Some(values))
        }
        _ => (log_probs(actor, batch, temperature)?, None),
    };
    clock.lap("old_log_prob");
    let reference = models.reference.as_ref();
    let reference = reference.map(|reference| reference.with(|policy| log_probs(policy, batch, temperature)));
    let reference = reference.transpose()?;
    clock.lap("ref");
    if let Some(Estimator::Critic(critic)) = &models.critic {
        let [own] = batch.score(|micro| [critic.model.values(&micro.tokens)])?;
        values = Some(own);
    }
    clock.lap("values");
    Ok(Estimates { old, reference, values })
}

/// Log-probs of all response tokens under `policy`, flat [N], in nats.
pub fn log_probs(policy: &Policy, batch: &Batch, temperature: f64) -> Result<Tensor> {
    let [log_probs] =
        batch.score(|micro| [policy.log_probs(&policy.hidden(&micro.tokens), &micro.targets, temperature)])?;
    Ok(log_probs)
}

/// How far apart the sampler's and the scorer's probabilities of the same tokens are: |p - q| over all of them.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub mean: f64,
    pub max: f64,
    pub deviation: f64,
}

impl Gap {
    /// Between the log-probs of the rollouts and those of the actor, `old` [N].
    pub fn between(rollouts: &[Rollout], old: &Tensor) -> Self {
        let sampler = rollouts.iter().flat_map(|rollout| &rollout.log_probs);
        let gaps: Vec<f32> = sampler.zip(to_host(old)).map(|(a, b)| (a.exp() - b.exp()).abs()).collect();
        let (mean, deviation) = mean_and_deviation(&gaps);
        Self { mean, max: gaps.iter().copied().fold(0.0, f32::max).into(), deviation }
    }

    pub fn record(&self, record: &mut Record) {
        for (name, value) in [("mean", self.mean), ("max", self.max), ("std", self.deviation)] {
            record.set(format!("training/rollout_probs_diff_{name}"), value);
        }
    }
}
