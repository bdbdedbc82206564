//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they expected, and learns.

use super::batch::{Batch, Sequence};
use super::choices::decay;
use super::clock::Clock;
use super::estimates::{Estimates, Gap, estimate};
use super::experience::{Experience, Scored, experience};
use super::hook::Hook;
use super::identities;
use super::not_finite::{explain, numbers};
use super::rollouts::{self, Rollout, Writer, grade, prompts};
use super::trainer::Trainer;
use super::update::{Scalars, StepSettings, Updates, mean};
use crate::algo::{kl, schedule};
use crate::env::Prompt;
use crate::metrics::{Metrics, Record, Stage};
use crate::rng::Purpose;
use crate::rollout::{Response, Sampling};
use crate::task::Split;
use crate::terminal::{self, Progress};
use anyhow::{Context, Error, Result};

/// Trains from the state's step to the recipe's last.
///
/// # Errors
/// `Stopped` on a signal, and an error for a warning of `watch.stop`, after the hooks of the step it came in.
pub fn train(trainer: &mut Trainer, metrics: &mut Metrics, hooks: &mut [Box<dyn Hook>]) -> Result<()> {
    let Trainer { plan, ppo, env, comm, .. } = *trainer;
    let (samples, temperature) = (plan.recipe.rollout.samples_per_prompt, plan.recipe.rollout.temperature);
    let mut progress = Progress::resumed(trainer.state.step as u64, ppo.steps as u64, "step");
    if trainer.state.step == 0 {
        trainer.call(hooks, metrics)?;
    }
    for step in trainer.state.step + 1..=ppo.steps {
        let (mut record, mut clock) = (Record::new(Stage::Ppo, step as u64), Clock::start());

        // The policy writes, the task grades.
        let prompts = prompts(plan, env, step)?;
        let responses = trainer.write(step, &prompts);
        clock.lap("gen");
        let rollouts = grade(env, &prompts, responses)?;
        clock.lap("reward");
        if step == 1 {
            rollouts::warn_when_nothing_answers(&rollouts);
        }

        // What did the models expect?
        let sequences: Vec<&Sequence> = rollouts.iter().map(|rollout| &rollout.sequence).collect();
        let batch = Batch::new(&sequences, trainer.micro_tokens, trainer.models.actor.model.device(), comm);
        let estimates = estimate(&trainer.models, &batch, temperature, &mut clock)?;
        let gap = Gap::between(&rollouts, &estimates.old);

        // How much better than expected was each token?
        let settings = trainer.settings(step);
        let experience = trainer.experience(&rollouts, &batch, estimates);
        clock.lap("adv");

        // Critic and actor learn.
        let updates = Updates { ppo, settings, batch: &batch, experience: &experience };
        let learnt = trainer.learn(step, &updates, &mut clock);
        let [critic, actor] = learnt.map_err(|error| trainer.explain(error, step, &rollouts, &experience))?;
        trainer.micro_tokens = batch.micro_tokens();
        if step == 1 {
            identities::check(plan.kind(), &experience, gap.mean, actor.first())?;
        }

        rollouts::record(&rollouts, samples, &mut record);
        experience.record(ppo, &mut record);
        for (name, value) in mean(&critic).into_iter().chain(mean(&actor)) {
            record.set(name, value);
        }
        settings.record(ppo, &mut record);
        gap.record(&mut record);
        record.set("training/global_step", step as f64);
        record.set("training/epoch", (step * prompts.len()) as f64 / env.task.len(Split::Train) as f64);
        clock.record(&sequences, &mut record);
        if let Some(seconds) = trainer.saving.take() {
            record.set("timing_s/save_checkpoint", seconds);
        }
        let warnings = trainer.state.watchdogs.observe(&plan.recipe.watch, ppo, &mut record);
        metrics.write(&record);
        progress.step(&record);
        warnings.iter().for_each(|warning| terminal::warn(warning));

        // Evaluate, save, judge.
        trainer.state.step = step;
        trainer.call(hooks, metrics)?;
    }
    Ok(())
}

impl Trainer<'_> {
    /// The actor's responses to the prompts of a step.
    fn write(&self, step: usize, prompts: &[Prompt]) -> Vec<Response> {
        let rollout = &self.plan.recipe.rollout;
        let writer = Writer {
            policy: &self.models.actor.model,
            plan: self.plan,
            env: self.env,
            sampling: Sampling {
                temperature: rollout.temperature,
                top_p: rollout.top_p,
                top_k: rollout.top_k as i64,
                greedy: false,
            },
            samples: rollout.samples_per_prompt,
            purpose: Purpose::Rollout,
            step,
        };
        writer.write(prompts)
    }

    /// What differs from step to step: the learning rates on their schedule, and the KL coefficient so far.
    fn settings(&self, step: usize) -> StepSettings {
        let ppo = self.ppo;
        let warmup = (ppo.warmup_ratio * ppo.steps as f64).round() as usize;
        let rate = schedule::factor(decay(ppo.lr_schedule), step - 1, warmup, ppo.steps);
        StepSettings {
            actor_lr: ppo.actor_lr * rate,
            critic_lr: ppo.critic_lr * rate,
            kl_coef: self.state.kl_coefficient,
            temperature: self.plan.recipe.rollout.temperature,
        }
    }

    /// Advantages and returns; adapts the KL coefficient for the next step.
    fn experience(&mut self, rollouts: &[Rollout], batch: &Batch, estimates: Estimates) -> Experience {
        let ppo = self.ppo;
        let scores: Vec<f32> = rollouts.iter().map(|rollout| rollout.grade.reward as f32).collect();
        let scored = Scored {
            scores: &scores,
            lengths: &batch.lengths(0..rollouts.len()),
            group: self.plan.recipe.rollout.samples_per_prompt,
            kl_coef: self.state.kl_coefficient,
        };
        let experience = experience(ppo, &scored, estimates);
        self.state.kl_coefficient =
            kl::adapted(scored.kl_coef, experience.kl, rollouts.len(), ppo.kl_target, ppo.kl_horizon);
        experience
    }

    /// The figures of the critic's updates and of the actor's, which does not learn in the first steps if the critic is
    /// to warm up.
    fn learn(&mut self, step: usize, updates: &Updates, clock: &mut Clock) -> Result<[Vec<Scalars>; 2]> {
        updates.experience.check(&updates.batch.lengths(0..updates.batch.sequences.len()))?;
        let critic_alone = step <= self.ppo.critic_warmup_steps;
        let critic = updates.critic(&mut self.models, critic_alone).context("the critic's update failed")?;
        clock.lap("update_critic");
        if critic_alone {
            return Ok([critic, vec![]]);
        }
        let actor = updates.actor(&mut self.models).context("the actor's update failed")?;
        clock.lap("update_actor");
        Ok([critic, actor])
    }

    /// An error of a step, with the place of everything that is known of its sequences if it is about numbers that are
    /// not finite.
    fn explain(&self, error: Error, step: usize, rollouts: &[Rollout], experience: &Experience) -> Error {
        let per_token = experience.per_token();
        let slots = |at: usize| {
            let start: usize = rollouts[..at].iter().map(|rollout| rollout.sequence.response.len()).sum();
            start..start + rollouts[at].sequence.response.len()
        };
        let known = |at: usize| {
            let mut known = rollouts[at].json();
            known.extend(per_token.iter().map(|(name, all)| (name.to_string(), numbers(&all[slots(at)]))));
            known
        };
        explain(error, format!("step {step}"), &self.folder.not_finite(Stage::Ppo, step), 0..rollouts.len(), known)
    }
}
