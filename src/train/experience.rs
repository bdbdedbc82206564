//! The third stage: rewards and estimates become advantages and returns, on the host: one pass over N numbers.

use super::choices::kl_estimator;
use super::estimates::Estimates;
use crate::algo::advantage::{self, explained_variance};
use crate::metrics::Record;
use crate::recipe::{Advantage, KlIn, Ppo};
use crate::torch::to_host;
use tch::Tensor;

/// What the updates learn from; flat, [N] float32 each, on the models' device.
pub struct Experience {
    pub estimates: Estimates,
    pub advantages: Tensor,
    pub returns: Tensor,
    /// Mean KL estimate per token, in nats (0 without a reference).
    pub kl: f64,
    /// For `record`.
    host: HostSide,
}

/// The same on the host, and the rewards of each sequence, KL included.
struct HostSide {
    rewards: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
    values: Option<Vec<f32>>,
}

/// How the sequences of a step were rewarded.
pub struct Scored<'a> {
    /// The task's reward of each sequence.
    pub scores: &'a [f32],
    /// Tokens of each response.
    pub lengths: &'a [usize],
    /// Consecutive sequences that answer one prompt.
    pub group: usize,
    pub kl_coef: f64,
}

/// How much better than expected was each token?
pub fn experience(ppo: &Ppo, scored: &Scored, estimates: Estimates) -> Experience {
    let (lengths, group) = (scored.lengths, scored.group);
    let kl = match &estimates.reference {
        Some(reference) => to_host(&kl_estimator(ppo.kl_estimator)(&estimates.old, reference)),
        None => vec![0.0; lengths.iter().sum()],
    };
    let kl_coef = if ppo.kl_in == KlIn::Reward { scored.kl_coef } else { 0.0 };
    let rewards = advantage::token_rewards(scored.scores, &kl, kl_coef, lengths);
    let by_sequence = advantage::sum_by_sequence(&rewards, lengths);
    let values = estimates.values.as_ref().map(to_host);
    let (mut advantages, returns) = match ppo.advantage {
        Advantage::Gae => {
            let values = values.as_ref().expect("GAE has a critic");
            advantage::gae(&rewards, values, lengths, ppo.gamma, ppo.lambda)
        }
        Advantage::Grpo => (advantage::grpo(&by_sequence, group, lengths), rewards),
        Advantage::Rloo => (advantage::rloo(&by_sequence, group, lengths), rewards),
    };
    if ppo.whiten && ppo.advantage == Advantage::Gae {
        advantage::whiten(&mut advantages);
    }
    let device = estimates.old.device();
    Experience {
        estimates,
        advantages: Tensor::from_slice(&advantages).to_device(device),
        returns: Tensor::from_slice(&returns).to_device(device),
        kl: kl.iter().map(|k| f64::from(*k)).sum::<f64>() / kl.len().max(1) as f64,
        host: HostSide { rewards: by_sequence, advantages, returns, values },
    }
}

impl Experience {
    pub fn record(&self, ppo: &Ppo, record: &mut Record) {
        let HostSide { rewards, advantages, returns, values } = &self.host;
        record.summary("critic/rewards", rewards);
        record.summary("critic/advantages", advantages);
        record.summary("critic/returns", returns);
        if let Some(values) = values {
            record.summary("critic/values", values);
            record.set("critic/vf_explained_var", explained_variance(values, returns));
        }
        if ppo.kl_in == KlIn::Reward {
            record.set("actor/reward_kl_penalty", self.kl);
        }
    }
}
