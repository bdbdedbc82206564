//! The third stage: rewards and estimates become advantages and returns, on the host: one pass over N numbers.

use super::choices::kl_estimator;
use super::estimates::Estimates;
use super::not_finite::NotFinite;
use crate::algo::advantage::{self, explained_variance};
use crate::metrics::Record;
use crate::recipe::{Advantage, KlIn, Ppo};
use crate::torch::{on_device, to_host};
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
        advantages: on_device(&advantages, device),
        returns: on_device(&returns, device),
        kl: kl.iter().map(|k| f64::from(*k)).sum::<f64>() / kl.len().max(1) as f64,
        host: HostSide { rewards: by_sequence, advantages, returns, values },
    }
}

impl Experience {
    /// What there is for each token, [N] each, by name, on the host.
    pub fn per_token(&self) -> Vec<(&'static str, Vec<f32>)> {
        let Estimates { old, reference, .. } = &self.estimates;
        let HostSide { advantages, returns, values, .. } = &self.host;
        let mut all = vec![("old_log_probs", to_host(old))];
        all.extend(reference.iter().map(|reference| ("reference_log_probs", to_host(reference))));
        all.extend(values.iter().map(|values| ("values", values.clone())));
        all.extend([("advantages", advantages.clone()), ("returns", returns.clone())]);
        all
    }

    /// Checks what the updates would learn from; `lengths` of the responses.
    ///
    /// # Errors
    /// Something that is not finite, with the sequences in which it is.
    pub fn check(&self, lengths: &[usize]) -> Result<(), NotFinite> {
        let rewards = (0..).zip(&self.host.rewards).filter(|(_, reward)| !reward.is_finite());
        let rewards: Vec<usize> = rewards.map(|(sequence, _)| sequence).collect();
        // A reward that is not finite reaches advantages and returns, but neither log-probs nor values.
        for (name, values) in self.per_token() {
            if !rewards.is_empty() && name == "advantages" {
                return Err(NotFinite::new("rewards are not finite".into(), rewards));
            }
            let mut rest = values.as_slice();
            let mut found = vec![];
            for (sequence, length) in lengths.iter().enumerate() {
                let (own, after) = rest.split_at(*length);
                found.extend(own.iter().any(|value| !value.is_finite()).then_some(sequence));
                rest = after;
            }
            if !found.is_empty() {
                return Err(NotFinite::new(format!("{} are not finite", name.replace('_', " ")), found));
            }
        }
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::test_device;

    #[test]
    fn what_is_not_finite_is_named_with_its_sequences() {
        let ppo: Ppo = toml::from_str("").unwrap();
        let check = |old: [f32; 4], values: [f32; 4], scores: [f32; 3]| {
            let reference = Some(on_device(&[-1f32; 4], test_device()));
            let estimates = Estimates {
                old: on_device(&old, test_device()),
                reference,
                values: Some(on_device(&values, test_device())),
            };
            let lengths = [1, 2, 1];
            let scored = Scored { scores: &scores, lengths: &lengths, group: 1, kl_coef: 0.1 };
            experience(&ppo, &scored, estimates).check(&lengths).map_err(|error| error.to_string())
        };
        let (sound, nan, inf) = ([-0.5; 4], f32::NAN, f32::INFINITY);
        assert_eq!(check(sound, [0.0; 4], [0.0, 1.0, 0.0]), Ok(()));
        let from = |what: &str| Err(format!("{what}; it comes from sequence 1"));
        assert_eq!(check([-0.5, -inf, -0.5, -0.5], [0.0; 4], [0.0; 3]), from("old log probs are not finite"));
        assert_eq!(check(sound, [0.0, 0.0, nan, 0.0], [0.0; 3]), from("values are not finite"));
        assert_eq!(check(sound, [0.0; 4], [0.0, nan, 0.0]), from("rewards are not finite"));
        assert_eq!(
            check(sound, [nan, 0.0, nan, 0.0], [0.0; 3]),
            Err("values are not finite; it comes from sequences 0 and 1".to_string())
        );
    }
}
