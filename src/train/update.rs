//! The last stage: mini-batches of the experience, one optimizer step each.

use super::batch::{Batch, MicroBatch};
use super::choices::{kl_estimator, token_weights};
use super::descent::{OptimizerStep, Scalars, Sums, descend};
use super::experience::Experience;
use super::learner::{Estimator, Learner, Models};
use crate::algo::loss::{Clip, policy_loss, value_loss};
use crate::metrics::Record;
use crate::model::{Policy, ValueHead};
use crate::optim::AdamW;
use crate::recipe::{KlIn, Ppo};
use crate::torch::AdamWStep;
use anyhow::Result;
use std::borrow::Cow;
use std::ops::Range;
use tch::{Kind, Tensor};

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
