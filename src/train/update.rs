//! The updates: mini-batches of the experience, each one optimizer step, in micro-batches that fit.
//!
//! One mechanism, `descend`, serves the actor, the critic and the warm start: they differ in the loss of a micro-batch.

use super::batch::{MicroBatch, Sequence, micro_batches};
use super::experience::Experience;
use super::learner::Learner;
use crate::algo::aggregate::token_weights;
use crate::algo::kl;
use crate::algo::loss::{Clip, policy_loss, value_loss};
use crate::model::{Policy, ValueHead};
use crate::optim::AdamW;
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

    /// One step of each optimizer on the sequences of `mini`: the gradient of the sum over micro-batches of `loss`, which
    /// is told its tokens' weights [n]. Returns the gradients' norms before clipping.
    ///
    /// # Errors
    /// A gradient that is not finite; its weights are then as they were.
    pub fn descend<const N: usize>(
        &self,
        mut descents: [Descent; N],
        mini: Range<usize>,
        mut loss: impl FnMut(&MicroBatch, &Tensor) -> Tensor,
    ) -> Result<[f64; N]> {
        let first = self.slots[mini.start].start as i64;
        let lengths: Vec<usize> = self.slots[mini.clone()].iter().map(Range::len).collect();
        let weights = Tensor::from_slice(&token_weights(&lengths, self.aggregation)).to_device(self.device);
        for descent in &mut descents {
            descent.optimizer.begin()?;
        }
        for batch in micro_batches(self.sequences, self.slots, mini, self.micro_tokens, self.device) {
            let own = weights.index_select(0, &(&batch.slots - first));
            loss(&batch, &own).backward();
            for descent in &mut descents {
                descent.optimizer.accumulate();
            }
        }
        let mut norms = [0.0; N];
        for (norm, Descent { optimizer, max_norm, hyper }) in norms.iter_mut().zip(descents) {
            *norm = optimizer.step(max_norm, hyper)?.double_value(&[]);
            ensure!(norm.is_finite(), "the gradient is not finite (norm {norm})");
        }
        Ok(norms)
    }
}

/// An optimizer and how it is to step.
pub struct Descent<'a> {
    pub optimizer: &'a mut AdamW,
    /// Largest norm of the gradient (0: any).
    pub max_norm: f64,
    pub hyper: AdamWStep,
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

/// What the updates of a step go by, besides the recipe.
#[derive(Clone, Copy)]
pub struct Pace {
    pub actor_lr: f64,
    pub critic_lr: f64,
    pub kl_coef: f64,
    /// The one the rollouts were sampled at.
    pub temperature: f64,
}

fn descent<'a>(optimizer: &'a mut AdamW, ppo: &Ppo, lr: f64) -> Descent<'a> {
    let hyper = AdamWStep { lr, betas: ppo.betas, eps: ppo.adam_eps, weight_decay: ppo.weight_decay };
    Descent { optimizer, max_norm: ppo.grad_clip, hyper }
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

/// All updates of the actor in a step, and of the value head that reads its hidden states, where there is one; the
/// figures of each, in order.
pub fn update_actor(
    actor: &mut Learner<Policy>,
    mut head: Option<&mut Learner<ValueHead>>,
    ppo: &Ppo,
    xp: &Experience,
    pace: Pace,
) -> Result<Vec<Scalars>> {
    let batches = batches(ppo, xp, ppo.mini_batch);
    let mut updates = Vec::new();
    for mini in (0..ppo.epochs).flat_map(|_| batches.minis()) {
        let mut tally = Tally::default();
        let Learner { model, optimizer } = &mut *actor;
        let own = descent(optimizer, ppo, pace.actor_lr);
        let norms = match &mut head {
            None => {
                let loss = |batch: &MicroBatch, weights: &Tensor| {
                    let hidden = model.hidden(&batch.ids, &batch.read);
                    actor_loss(model, &hidden, batch, weights, (ppo, xp, pace), &mut tally)
                };
                batches.descend([own], mini, loss)?.to_vec()
            }
            Some(Learner { model: head, optimizer }) => {
                let loss = |batch: &MicroBatch, weights: &Tensor| {
                    let hidden = model.hidden(&batch.ids, &batch.read);
                    let policy = actor_loss(model, &hidden, batch, weights, (ppo, xp, pace), &mut tally);
                    policy + critic_loss(&head.values(&hidden), batch, weights, (ppo, xp), &mut tally)
                };
                batches.descend([own, descent(optimizer, ppo, pace.critic_lr)], mini, loss)?.to_vec()
            }
        };
        let mut scalars = tally.finish();
        scalars.extend(["actor/grad_norm", "critic/grad_norm"].into_iter().zip(norms));
        updates.push(scalars);
    }
    Ok(updates)
}

/// All updates of a critic in a step, by the values [n] that `values` reads of a micro-batch; the figures of each, in
/// order.
pub fn update_critic<M>(
    critic: &mut Learner<M>,
    ppo: &Ppo,
    xp: &Experience,
    pace: Pace,
    values: impl Fn(&M, &MicroBatch) -> Tensor,
) -> Result<Vec<Scalars>> {
    let batches = batches(ppo, xp, ppo.critic_sequences());
    let mut updates = Vec::new();
    for mini in (0..ppo.epochs).flat_map(|_| batches.minis()) {
        let mut tally = Tally::default();
        let Learner { model, optimizer } = &mut *critic;
        let [norm] = batches.descend([descent(optimizer, ppo, pace.critic_lr)], mini, |batch, weights| {
            critic_loss(&values(model, batch), batch, weights, (ppo, xp), &mut tally)
        })?;
        let mut scalars = tally.finish();
        scalars.insert("critic/grad_norm", norm);
        updates.push(scalars);
    }
    Ok(updates)
}

fn actor_loss(
    policy: &Policy,
    hidden: &Tensor,
    batch: &MicroBatch,
    weights: &Tensor,
    (ppo, xp, pace): (&Ppo, &Experience, Pace),
    tally: &mut Tally,
) -> Tensor {
    let clip = Clip { low: ppo.clip_low, high: ppo.clip_high, dual: ppo.clip_dual };
    let pick = |flat: &Tensor| flat.index_select(0, &batch.slots);
    let (new, entropy) = policy.log_probs_and_entropies(hidden, &batch.targets, pace.temperature);
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
        loss += kl * pace.kl_coef;
    }
    loss
}

fn critic_loss(
    values: &Tensor,
    batch: &MicroBatch,
    weights: &Tensor,
    (ppo, xp): (&Ppo, &Experience),
    tally: &mut Tally,
) -> Tensor {
    let pick = |flat: &Tensor| flat.index_select(0, &batch.slots);
    let old = xp.values.as_ref().unwrap_or(&xp.returns);
    let value = value_loss(values, &pick(old), &pick(&xp.returns), weights, ppo.value_clip);
    let loss = value.loss * ppo.value_coef;
    tally.add("critic/vf_loss", &loss);
    tally.add("critic/vf_clipfrac", &value.clip_fraction);
    tally.add("critic/vpred_mean", &(values * weights).sum(Kind::Float));
    loss
}
