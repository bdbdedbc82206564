//! The last stage: mini-batches of the experience, one optimizer step each, in micro-batches that fit.
//!
//! One mechanism, `descend`, serves actor, critic and warm start: they differ in the loss of a micro-batch.

use super::batch::{Batch, MicroBatch};
use super::choices::{kl_estimator, token_weights};
use super::experience::Experience;
use super::learner::{Estimator, Learner, Models};
use super::not_finite::{NotFinite, culprit};
use crate::algo::loss::{Clip, policy_loss, value_loss};
use crate::dist::{Comm, Elsewhere, lowest, said_by_first};
use crate::metrics::Record;
use crate::model::{Policy, ValueHead};
use crate::optim::AdamW;
use crate::recipe::{KlIn, Ppo};
use crate::torch::{AdamWStep, catching, make_room, on_device, to_host, trim};
use anyhow::Result;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// An optimizer and the step it takes.
pub struct OptimizerStep<'a> {
    pub optimizer: &'a mut AdamW,
    /// Largest norm of the gradient (0: any).
    pub max_norm: f64,
    pub hyper: AdamWStep,
}

/// One step of each optimizer on the sequences `mini` of a batch: along the gradient of the sum over micro-batches of
/// `loss`, which gets the weight of each of their tokens, [n], and adds its figures to `sums`. Returns the norms of the
/// gradients before clipping.
///
/// # Errors
/// `NotFinite`: a loss or a gradient, for which the weights stay unchanged; or the new weights. Memory that runs out
/// for single sequences, and `Stopped` if the batch is told so between its micro-batches; the weights stay unchanged.
/// `Elsewhere` if it is another rank that knows where a gradient comes from.
pub fn descend(
    batch: &Batch,
    mini: Range<usize>,
    token_weights: fn(&[usize]) -> Vec<f32>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    mut loss: impl FnMut(&MicroBatch, &Tensor, &mut Sums) -> Tensor,
) -> Result<Vec<f64>> {
    let first = batch.first_slot(mini.start) as i64;
    let weights = on_device(&token_weights(&batch.lengths(mini.clone())), batch.device);
    let mut loss =
        |micro: &MicroBatch, sums: &mut Sums| loss(micro, &weights.index_select(0, &(&micro.slots - first)), sums);
    gather(batch, &mini, steps, sums, &mut loss)?;
    // Zero, or not finite if the loss is not.
    let mut total = sums.loss.shallow_clone();
    batch.comm.sum(&mut total)?;
    let guard = total * 0.0;
    let mut norms = Vec::with_capacity(steps.len());
    for at in 0..steps.len() {
        let OptimizerStep { optimizer, max_norm, hyper } = &mut steps[at];
        let figures = to_host(&Tensor::stack(&optimizer.step(batch.comm, *max_norm, *hyper, &guard)?, 0));
        let [norm, sum] = [figures[0], figures[1]].map(f64::from);
        if !norm.is_finite() {
            let broken = sums.broken();
            let mut optimizers: Vec<&mut AdamW> = steps.iter_mut().map(|step| &mut *step.optimizer).collect();
            let found = culprit(batch, mini, &mut optimizers, (norm, &broken), |micro| loss(micro, sums))?;
            let speaker = lowest(batch.comm, !found.sequences.is_empty())?.unwrap_or(0);
            return Err(if speaker == batch.comm.rank() { found.into() } else { Elsewhere.into() });
        }
        if !sum.is_finite() {
            let found = NotFinite::weights(&optimizer.broken_weights(), hyper.lr, norm);
            return Err(said_by_first(batch.comm, found.into()));
        }
        norms.push(norm);
    }
    Ok(norms)
}

/// Gathers the gradients of a mini-batch in the optimizers, micro-batch by micro-batch. If memory runs out, they are
/// computed anew in smaller ones: the losses weigh every token in advance, so that the sum stays the same but for
/// rounding.
///
/// # Errors
/// Memory that runs out for single sequences; `Stopped`, after which the optimizers hold no gradient.
fn gather(
    batch: &Batch,
    mini: &Range<usize>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    loss: &mut impl FnMut(&MicroBatch, &mut Sums) -> Tensor,
) -> Result<()> {
    make_room();
    for step in &mut *steps {
        step.optimizer.begin()?;
    }
    let mut backward = |steps: &mut [OptimizerStep], sums: &mut Sums| {
        for micro in batch.micro_batches(mini.clone()) {
            if !batch.goes_on() {
                break;
            }
            let loss = loss(&micro, sums);
            sums.loss = &sums.loss + loss.detach();
            loss.backward();
            for step in &mut *steps {
                step.optimizer.accumulate();
            }
            trim();
        }
        Ok(())
    };
    while let Err(error) = catching(|| backward(steps, sums)) {
        batch.shrink(mini.clone(), error)?;
        sums.clear();
        for step in &mut *steps {
            step.optimizer.forget();
        }
    }
    if let Err(stopped) = batch.check() {
        steps.iter_mut().try_for_each(|step| step.optimizer.abandon())?;
        return Err(stopped);
    }
    Ok(())
}

/// Named figures of one update.
pub type Scalars = BTreeMap<Cow<'static, str>, f64>;

/// Sums of named scalars over the micro-batches of an update, on the device until they are read.
pub struct Sums {
    named: BTreeMap<&'static str, Tensor>,
    /// The loss as a whole.
    loss: Tensor,
}

impl Sums {
    /// Zeros. All ranks name the same, also one whose share of a mini-batch is empty.
    pub fn of(names: &[&'static str], device: Device) -> Self {
        let zero = || Tensor::zeros([0i64; 0], (Kind::Float, device));
        Self { named: names.iter().map(|name| (*name, zero())).collect(), loss: zero() }
    }

    /// Zeros again.
    fn clear(&mut self) {
        self.named.values_mut().chain([&mut self.loss]).for_each(|sum| *sum = sum.zeros_like());
    }

    /// # Panics
    /// On a name that `of` was not given: a mistake of ours.
    pub fn add(&mut self, name: &str, value: &Tensor) {
        let sum = self.named.get_mut(name).unwrap_or_else(|| panic!("no sum {name}"));
        *sum = &*sum + value.detach();
    }

    /// The names of those that are not finite.
    fn broken(&self) -> Vec<&'static str> {
        let broken = |sum: &Tensor| !sum.double_value(&[]).is_finite();
        self.named.iter().filter(|(_, sum)| broken(sum)).map(|(name, _)| *name).collect()
    }

    /// Adds up the ranks and reads all sums at once.
    pub fn read(self, comm: &dyn Comm) -> Result<Scalars> {
        let mut values = Tensor::stack(&self.named.values().collect::<Vec<_>>(), 0);
        comm.sum(&mut values)?;
        Ok(self.named.into_keys().map(Cow::from).zip(to_host(&values).into_iter().map(f64::from)).collect())
    }
}

/// What the losses of actor and critic add up.
const ACTOR: [&str; 5] =
    ["actor/entropy", "actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/pg_loss", "actor/ppo_kl"];
const CRITIC: [&str; 3] = ["critic/vf_clipfrac", "critic/vf_loss", "critic/vpred_mean"];

/// Means of the figures of several updates.
pub fn mean(updates: &[Scalars]) -> Scalars {
    let mut mean = Scalars::new();
    for update in updates {
        for (name, value) in update {
            *mean.entry(name.clone()).or_default() += value / updates.len() as f64;
        }
    }
    mean
}

/// What may differ from step to step.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    pub actor_lr: f64,
    pub critic_lr: f64,
    pub kl_coef: f64,
    /// The one the rollouts were sampled at.
    pub temperature: f64,
}

impl StepSettings {
    pub fn record(&self, ppo: &Ppo, record: &mut Record) {
        if ppo.needs_critic() {
            record.set("critic/lr", self.critic_lr);
        }
        record.set("actor/lr", self.actor_lr);
        match ppo.kl_in {
            KlIn::Reward => record.set("actor/reward_kl_penalty_coeff", self.kl_coef),
            KlIn::Loss => record.set("actor/kl_coef", self.kl_coef),
            KlIn::Off => {}
        }
    }
}

/// All updates of a step.
pub struct Updates<'a> {
    pub ppo: &'a Ppo,
    pub settings: StepSettings,
    pub batch: &'a Batch<'a>,
    pub experience: &'a Experience,
}

impl Updates<'_> {
    /// The updates of a critic that learns separately from the actor, after those that are `done`; adds their figures,
    /// in order. `alone`: the actor does not learn in this step, so a value head that otherwise learns with it learns
    /// here.
    ///
    /// # Errors
    /// Those of `descend`, for one mini-batch; the figures of those before it are in `done`.
    pub fn critic(&self, models: &mut Models, alone: bool, done: &mut Vec<Scalars>) -> Result<()> {
        let actor = &models.actor.model;
        match &mut models.critic {
            Some(Estimator::Critic(critic)) => {
                let Learner { model, optimizer } = &mut **critic;
                self.learn_values(optimizer, done, |micro| model.values(&micro.tokens))
            }
            Some(Estimator::Head(head)) if alone => {
                let Learner { model, optimizer } = &mut **head;
                self.learn_values(optimizer, done, |micro| model.values(&tch::no_grad(|| actor.hidden(&micro.tokens))))
            }
            _ => Ok(()),
        }
    }

    fn learn_values(
        &self,
        optimizer: &mut AdamW,
        done: &mut Vec<Scalars>,
        values: impl Fn(&MicroBatch) -> Tensor,
    ) -> Result<()> {
        for mini in self.minis(self.ppo.critic_sequences()).skip(done.len()) {
            let mut sums = Sums::of(&CRITIC, self.batch.device);
            let mut steps = [self.step(optimizer, self.settings.critic_lr)];
            let norms = self.descend(mini, &mut steps, &mut sums, |micro, weights, sums| {
                self.value_loss(&values(micro), micro, weights, sums)
            })?;
            done.push(self.figures(sums, &["critic/grad_norm"], norms)?);
        }
        Ok(())
    }

    /// The updates of the actor, and of the value head on its hidden states if there is one, after those that are
    /// `done`; adds their figures, in order.
    ///
    /// # Errors
    /// As `critic`.
    pub fn actor(&self, models: &mut Models, done: &mut Vec<Scalars>) -> Result<()> {
        let Learner { model: policy, optimizer } = &mut models.actor;
        let mut head = match &mut models.critic {
            Some(Estimator::Head(head)) => Some(&mut **head),
            _ => None,
        };
        let mut names = ACTOR.to_vec();
        names.extend((self.ppo.kl_in == KlIn::Loss).then_some("actor/kl_loss"));
        names.extend(head.iter().flat_map(|_| CRITIC));
        for mini in self.minis(self.ppo.mini_batch).skip(done.len()) {
            let mut sums = Sums::of(&names, self.batch.device);
            let mut steps = vec![self.step(optimizer, self.settings.actor_lr)];
            let mut values: Option<&ValueHead> = None;
            if let Some(Learner { model, optimizer }) = &mut head {
                values = Some(model);
                steps.push(self.step(optimizer, self.settings.critic_lr));
            }
            let norms = self.descend(mini, &mut steps, &mut sums, |micro, weights, sums| {
                let hidden = policy.hidden(&micro.tokens);
                let loss = self.policy_loss(policy, &hidden, micro, weights, sums);
                match values {
                    None => loss,
                    Some(head) => loss + self.value_loss(&head.values(&hidden), micro, weights, sums),
                }
            })?;
            done.push(self.figures(sums, &["actor/grad_norm", "critic/grad_norm"], norms)?);
        }
        Ok(())
    }

    /// The mini-batches of all epochs.
    fn minis(&self, size: usize) -> impl Iterator<Item = Range<usize>> {
        let minis = self.batch.minis(size);
        (0..self.ppo.epochs).flat_map(move |_| minis.clone())
    }

    fn step<'a>(&self, optimizer: &'a mut AdamW, lr: f64) -> OptimizerStep<'a> {
        let Ppo { betas, adam_eps: eps, weight_decay, grad_clip, .. } = *self.ppo;
        OptimizerStep { optimizer, max_norm: grad_clip, hyper: AdamWStep { lr, betas, eps, weight_decay } }
    }

    fn descend(
        &self,
        mini: Range<usize>,
        steps: &mut [OptimizerStep],
        sums: &mut Sums,
        loss: impl FnMut(&MicroBatch, &Tensor, &mut Sums) -> Tensor,
    ) -> Result<Vec<f64>> {
        descend(self.batch, mini, token_weights(self.ppo.aggregation), steps, sums, loss)
    }

    fn figures(&self, sums: Sums, norm_names: &[&'static str], norms: Vec<f64>) -> Result<Scalars> {
        let mut figures = sums.read(self.batch.comm)?;
        figures.extend(norm_names.iter().copied().map(Cow::from).zip(norms));
        Ok(figures)
    }

    /// The actor's loss over a micro-batch of n response tokens: the clipped surrogate, minus the entropy bonus, plus
    /// the KL to the reference if it is part of the loss.
    fn policy_loss(
        &self,
        policy: &Policy,
        hidden: &Tensor,
        micro: &MicroBatch,
        weights: &Tensor,
        sums: &mut Sums,
    ) -> Tensor {
        let (ppo, estimates) = (self.ppo, &self.experience.estimates);
        let own = |flat: &Tensor| flat.index_select(0, &micro.slots);
        let (new, entropy) = policy.log_probs_and_entropies(hidden, &micro.targets, self.settings.temperature);
        let clip = Clip { low: ppo.clip_low, high: ppo.clip_high, dual: ppo.clip_dual };
        let surrogate = policy_loss(&new, &own(&estimates.old), &own(&self.experience.advantages), weights, clip);
        let entropy = (entropy * weights).sum(Kind::Float);
        sums.add("actor/pg_loss", &surrogate.loss);
        sums.add("actor/pg_clipfrac", &surrogate.clip_fraction);
        sums.add("actor/pg_clipfrac_lower", &surrogate.clip_fraction_lower);
        sums.add("actor/ppo_kl", &surrogate.kl);
        sums.add("actor/entropy", &entropy);
        let mut loss = surrogate.loss - entropy * ppo.entropy_coef;
        if let (KlIn::Loss, Some(reference)) = (ppo.kl_in, &estimates.reference) {
            let kl = kl_estimator(ppo.kl_estimator)(&new, &own(reference));
            let kl = (kl * weights).sum(Kind::Float);
            sums.add("actor/kl_loss", &kl);
            loss += kl * self.settings.kl_coef;
        }
        loss
    }

    /// The critic's loss over a micro-batch, for the `values` [n] before its response tokens.
    fn value_loss(&self, values: &Tensor, micro: &MicroBatch, weights: &Tensor, sums: &mut Sums) -> Tensor {
        let own = |flat: &Tensor| flat.index_select(0, &micro.slots);
        let old = self.experience.estimates.values.as_ref().expect("a critic that learns has estimated values");
        let value = value_loss(values, &own(old), &own(&self.experience.returns), weights, self.ppo.value_clip);
        let loss = value.loss * self.ppo.value_coef;
        sums.add("critic/vf_loss", &loss);
        sums.add("critic/vf_clipfrac", &value.clip_fraction);
        sums.add("critic/vpred_mean", &(values * weights).sum(Kind::Float));
        loss
    }
}
