//! The updates: mini-batches of the experience, each one optimizer step, in micro-batches that fit.
//!
//! One mechanism, `descend`, serves the actor, the critic and the warm start: they differ in the loss of a micro-batch.

use super::batch::{MicroBatch, Sequence, micro_batches};
use super::experience::Experience;
use super::learner::Learner;
use crate::algo::aggregate::token_weights;
use crate::algo::kl;
use crate::algo::loss::{Clip, policy_loss, value_loss};
use crate::model::{Critic, Policy};
use crate::recipe::{Aggregation, KlIn, Ppo};
use crate::torch::AdamWStep;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Sequences cut into mini-batches and those into micro-batches, with the weight of each token in its mini-batch's loss.
pub struct Batches<'a> {
    pub sequences: &'a [Sequence],
    pub slots: &'a [Range<usize>],
    /// Sequences an optimizer step.
    pub mini: usize,
    /// Tokens of a micro-batch, padding included.
    pub micro_tokens: usize,
    pub aggregation: Aggregation,
    pub device: Device,
}

impl Batches<'_> {
    /// The sequences of each mini-batch.
    pub fn minis(&self) -> impl Iterator<Item = Range<usize>> {
        let (total, mini) = (self.sequences.len(), self.mini);
        (0..total).step_by(mini).map(move |first| first..(first + mini).min(total))
    }

    /// One optimizer step on the sequences of `mini`: the gradient of the sum over micro-batches of `loss`, which is
    /// told its tokens' weights [n]. Returns the gradient's norm before clipping.
    ///
    /// # Errors
    /// A gradient that is not finite; the weights are then as they were.
    pub fn descend<M>(
        &self,
        learner: &mut Learner<M>,
        mini: Range<usize>,
        (max_norm, hyper): (f64, AdamWStep),
        mut loss: impl FnMut(&M, &MicroBatch, &Tensor) -> Tensor,
    ) -> Result<f64> {
        let first = self.slots[mini.start].start as i64;
        let lengths: Vec<usize> = self.slots[mini.clone()].iter().map(Range::len).collect();
        let weights = Tensor::from_slice(&token_weights(&lengths, self.aggregation)).to_device(self.device);
        for batch in micro_batches(self.sequences, self.slots, mini, self.micro_tokens, self.device) {
            let own = weights.index_select(0, &(&batch.slots - first));
            loss(&learner.model, &batch, &own).backward();
            learner.optimizer.accumulate();
        }
        let norm = learner.optimizer.step(max_norm, hyper)?.double_value(&[]);
        ensure!(norm.is_finite(), "the gradient is not finite (norm {norm})");
        Ok(norm)
    }
}

/// Sums of named scalars over the micro-batches of an update, kept on the device until they are read.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, Tensor>);

impl Tally {
    pub fn add(&mut self, name: &'static str, value: &Tensor) {
        let value = value.detach();
        let sum = self.0.remove(name).map_or_else(|| value.shallow_clone(), |sum| sum + &value);
        self.0.insert(name, sum);
    }

    /// Reads them, once.
    pub fn finish(self) -> Scalars {
        self.0.into_iter().map(|(name, sum)| (name, sum.double_value(&[]))).collect()
    }
}

/// Named figures of one update.
pub type Scalars = BTreeMap<&'static str, f64>;

/// Means of the figures of several updates.
pub fn mean(updates: &[Scalars]) -> Scalars {
    let mut mean = Scalars::new();
    for update in updates {
        for (name, value) in update {
            *mean.entry(name).or_default() += value / updates.len() as f64;
        }
    }
    mean
}

fn hyper(ppo: &Ppo, lr: f64) -> (f64, AdamWStep) {
    (ppo.grad_clip, AdamWStep { lr, betas: ppo.betas, eps: ppo.adam_eps, weight_decay: ppo.weight_decay })
}

fn batches<'a>(ppo: &Ppo, xp: &'a Experience, mini: usize) -> Batches<'a> {
    Batches {
        sequences: &xp.sequences,
        slots: &xp.slots,
        mini,
        micro_tokens: ppo.micro_batch_tokens,
        aggregation: ppo.aggregation,
        device: xp.old.device(),
    }
}

/// All updates of the actor in a step; the figures of each, in order.
pub fn update_actor(
    actor: &mut Learner<Policy>,
    ppo: &Ppo,
    xp: &Experience,
    (lr, temperature, kl_coef): (f64, f64, f64),
) -> Result<Vec<Scalars>> {
    let clip = Clip { low: ppo.clip_low, high: ppo.clip_high, dual: ppo.clip_dual };
    let batches = batches(ppo, xp, ppo.mini_batch);
    let mut updates = Vec::new();
    for mini in (0..ppo.epochs).flat_map(|_| batches.minis()) {
        let mut tally = Tally::default();
        let norm = batches.descend(actor, mini, hyper(ppo, lr), |policy, batch, weights| {
            let pick = |flat: &Tensor| flat.index_select(0, &batch.slots);
            let (new, entropy) = policy.log_probs_and_entropies(&batch.ids, &batch.read, &batch.targets, temperature);
            let surrogate = policy_loss(&new, &pick(&xp.old), &pick(&xp.advantages), weights, clip);
            let entropy = (entropy * weights).sum(Kind::Float);
            tally.add("actor/pg_loss", &surrogate.loss);
            tally.add("actor/pg_clipfrac", &surrogate.clip_fraction);
            tally.add("actor/pg_clipfrac_lower", &surrogate.clip_fraction_lower);
            tally.add("actor/ppo_kl", &surrogate.kl);
            tally.add("actor/entropy", &entropy);
            let mut loss = surrogate.loss - entropy * ppo.entropy_coef;
            if let (KlIn::Loss, Some(reference)) = (ppo.kl_in, &xp.reference) {
                let kl = (kl::estimate(&new, &pick(reference), ppo.kl_estimator) * weights).sum(Kind::Float);
                tally.add("actor/kl_loss", &kl);
                loss += kl * kl_coef;
            }
            loss
        })?;
        let mut scalars = tally.finish();
        scalars.insert("actor/grad_norm", norm);
        updates.push(scalars);
    }
    Ok(updates)
}

/// All updates of the critic in a step; the figures of each, in order.
pub fn update_critic(critic: &mut Learner<Critic>, ppo: &Ppo, xp: &Experience, lr: f64) -> Result<Vec<Scalars>> {
    let batches = batches(ppo, xp, ppo.critic_mini_batch.unwrap_or(ppo.mini_batch));
    let old = xp.values.as_ref().unwrap_or(&xp.returns);
    let mut updates = Vec::new();
    for mini in (0..ppo.epochs).flat_map(|_| batches.minis()) {
        let mut tally = Tally::default();
        let norm = batches.descend(critic, mini, hyper(ppo, lr), |critic, batch, weights| {
            let pick = |flat: &Tensor| flat.index_select(0, &batch.slots);
            let values = critic.values(&batch.ids, &batch.read);
            let value = value_loss(&values, &pick(old), &pick(&xp.returns), weights, ppo.value_clip);
            let loss = value.loss * ppo.value_coef;
            tally.add("critic/vf_loss", &loss);
            tally.add("critic/vf_clipfrac", &value.clip_fraction);
            tally.add("critic/vpred_mean", &(values * weights).sum(Kind::Float));
            loss
        })?;
        let mut scalars = tally.finish();
        scalars.insert("critic/grad_norm", norm);
        updates.push(scalars);
    }
    Ok(updates)
}
