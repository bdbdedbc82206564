//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they expected, and learns.

use super::batch::{Batch, Sequence};
use super::choices::decay;
use super::clock::Clock;
use super::estimates::{Gap, estimate};
use super::experience::{Paid, experience};
use super::hook::Hook;
use super::identities;
use super::rollouts::{self, Writer, grade, prompts};
use super::trainer::Trainer;
use super::update::{StepSettings, Updates, mean};
use crate::algo::{kl, schedule};
use crate::metrics::{Metrics, Record, Stage};
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::Split;
use crate::terminal::Progress;
use anyhow::{Context, Result};

/// Trains from the state's step to the recipe's last.
///
/// # Errors
/// `Stopped` on a signal, after the hooks of the step it came in.
pub fn train(trainer: &mut Trainer, metrics: &mut Metrics, hooks: &mut [Box<dyn Hook>]) -> Result<()> {
    let Trainer { plan, ppo, env, comm, .. } = *trainer;
    let rollout = &plan.recipe.rollout;
    let (samples, temperature) = (rollout.samples_per_prompt, rollout.temperature);
    let sampling = Sampling { temperature, top_p: rollout.top_p, top_k: rollout.top_k as i64, greedy: false };
    let warmup = (ppo.warmup_ratio * ppo.steps as f64).round() as usize;
    let mut progress = Progress::resumed(trainer.state.step as u64, ppo.steps as u64, "step");
    if trainer.state.step == 0 {
        trainer.call(hooks, metrics)?;
    }
    for step in trainer.state.step + 1..=ppo.steps {
        let mut record = Record::new(Stage::Ppo, step as u64);
        let mut clock = Clock::start();
        let models = &mut trainer.models;

        // The policy writes, the task grades.
        let prompts = prompts(plan, env, step)?;
        let (policy, sampling, purpose) = (&models.actor.model, sampling.clone(), Purpose::Rollout);
        let responses = Writer { policy, plan, env, sampling, samples, purpose, step }.write(&prompts);
        clock.lap("gen");
        let rollouts = grade(env, &prompts, responses)?;
        clock.lap("reward");
        if step == 1 {
            rollouts::warn_when_nothing_answers(&rollouts);
        }

        // What did the models expect?
        let sequences: Vec<&Sequence> = rollouts.iter().map(|rollout| &rollout.sequence).collect();
        let batch = Batch::new(&sequences, ppo.micro_batch_tokens, models.actor.model.device(), comm);
        let estimates = estimate(models, &batch, temperature, &mut clock)?;
        let gap = Gap::between(&rollouts, &estimates.old);

        // How much better than expected was each token?
        let scores: Vec<f32> = rollouts.iter().map(|rollout| rollout.grade.reward as f32).collect();
        let (lengths, kl_coef) = (batch.lengths(0..sequences.len()), trainer.state.kl_coefficient);
        let paid = Paid { scores: &scores, lengths: &lengths, group: samples, kl_coef };
        let experience = experience(ppo, &paid, estimates);
        trainer.state.kl_coefficient =
            kl::adapted(kl_coef, experience.kl, sequences.len(), ppo.kl_target, ppo.kl_horizon);
        clock.lap("adv");

        // Critic and actor learn.
        let rate = schedule::factor(decay(ppo.lr_schedule), step - 1, warmup, ppo.steps);
        let (actor_lr, critic_lr) = (ppo.actor_lr * rate, ppo.critic_lr * rate);
        let settings = StepSettings { actor_lr, critic_lr, kl_coef, temperature };
        let updates = Updates { ppo, settings, batch: &batch, experience: &experience };
        let critic_alone = step <= ppo.critic_warmup_steps;
        let critic_updates = updates.critic(models, critic_alone).context("of the critic")?;
        clock.lap("update_critic");
        let mut actor_updates = vec![];
        if !critic_alone {
            actor_updates = updates.actor(models).context("of the actor")?;
            clock.lap("update_actor");
        }
        if step == 1 {
            let kind = models.actor.model.weights.flat().kind();
            identities::check(kind, &experience, gap.mean, actor_updates.first())?;
        }

        rollouts::record(&rollouts, samples, &mut record);
        experience.record(ppo, &mut record);
        for (name, value) in mean(&critic_updates).into_iter().chain(mean(&actor_updates)) {
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
        metrics.write(&record);
        progress.step(&record);

        // Evaluate, save, judge.
        trainer.state.step = step;
        trainer.call(hooks, metrics)?;
    }
    Ok(())
}
