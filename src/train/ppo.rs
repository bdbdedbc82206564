//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they expected, and learns.

use super::batch::{Batch, Sequence, in_rows};
use super::choices::decay;
use super::clock::Clock;
use super::estimates::{Estimates, Gap, estimate};
use super::experience::{Experience, Scored, experience};
use super::hook::Hook;
use super::identities;
use super::interrupted::{Interrupted, Learnt, SoFar};
use super::not_finite::{explain, numbers};
use super::operations::Counted;
use super::pulse::Phase;
use super::rollouts::{self, Rollout, Writer, grade, prompts};
use super::trainer::{Halted, Trainer};
use super::update::{StepSettings, Updates, mean};
use crate::Stopped;
use crate::algo::{kl, schedule};
use crate::dist::said_by_first;
use crate::env::Prompt;
use crate::metrics::{Metrics, Record, Stage};
use crate::rng::Purpose;
use crate::rollout::{Response, Sampling};
use crate::task::Split;
use crate::terminal::{self, Progress};
use anyhow::{Error, Result};

/// Trains from the state's step to the recipe's last.
///
/// # Errors
/// `Stopped` on a signal, and `Halted` because of a warning, once the hooks have saved what there is.
pub fn train(trainer: &mut Trainer, metrics: &mut Metrics, hooks: &mut [Box<dyn Hook>]) -> Result<()> {
    let trained = steps(trainer, metrics, hooks);
    if let Err(error) = &trained
        && (error.is::<Stopped>() || error.is::<Halted>())
    {
        trainer.leave(hooks, metrics)?;
    }
    trained
}

fn steps(trainer: &mut Trainer, metrics: &mut Metrics, hooks: &mut [Box<dyn Hook>]) -> Result<()> {
    let Trainer { plan, ppo, env, comm, pulse, .. } = *trainer;
    let (samples, temperature) = (plan.recipe.rollout.samples_per_prompt, plan.recipe.rollout.temperature);
    let mut progress = Progress::resumed(trainer.state.step as u64, ppo.steps as u64, "step");
    pulse.count(Stage::Ppo, trainer.state.step, ppo.steps);
    trainer.show_warnings();
    if trainer.state.unevaluated {
        trainer.call(hooks, metrics)?;
    }
    let packed = in_rows(ppo.packing, &trainer.models.actor.model.decoder, comm)?;
    for step in trainer.state.step + 1..=ppo.steps {
        pulse.check()?;
        let mut record = Record::new(Stage::Ppo, step as u64);
        let (written, estimated, SoFar { mut learnt, clock }) = match trainer.interrupted.take() {
            Some(Interrupted { responses, estimates, so_far }) => (Some(responses), Some(estimates), so_far),
            None => Default::default(),
        };
        let mut clock = clock.on(trainer.models.actor.model.device());

        // The policy writes, the task grades.
        pulse.enter(Phase::Rollout);
        let prompts = prompts(plan, env, step)?;
        let responses = written.map_or_else(|| trainer.write(step, &prompts), Ok)?;
        clock.lap("gen");
        pulse.enter(Phase::Scoring);
        let rollouts = grade(env, &prompts, responses)?;
        clock.lap("reward");
        if step == 1 {
            rollouts::warn_when_nothing_answers(&rollouts);
        }

        // What did the models expect?
        let sequences: Vec<&Sequence> = rollouts.iter().map(|rollout| &rollout.sequence).collect();
        let batch = Batch::new(&sequences, trainer.micro_tokens, trainer.models.actor.model.device(), comm);
        let batch = batch.packed(packed).under(pulse);
        let estimate = || estimate(&trainer.models, &batch, temperature, &mut clock);
        let estimates = estimated.map_or_else(estimate, Ok)?;
        let gap = Gap::between(&rollouts, &estimates.old);

        // How much better than expected was each token?
        let settings = trainer.settings(step);
        let experience = trainer.experience(&rollouts, &batch, estimates);
        clock.lap("adv");

        // Critic and actor learn.
        pulse.enter(Phase::Update);
        let updates = Updates { ppo, settings, batch: &batch, experience: &experience };
        if let Err(error) = trainer.learn(step, &updates, &mut learnt, &mut clock) {
            if error.is::<Stopped>() && learnt.has_begun() {
                let so_far = SoFar { learnt, clock };
                trainer.interrupted = Some(Interrupted::new(rollouts, experience.estimates, so_far));
                return Err(error);
            }
            return Err(trainer.explain(error, step, &rollouts, &experience));
        }
        let Learnt { critic, actor } = learnt;
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
        clock.record(&batch, &mut record);
        let lengths = batch.lengths(0..rollouts.len());
        let counted =
            Counted::of(&plan.config, prompts.iter().map(|prompt| prompt.ids.len()).zip(lengths.chunks(samples)));
        counted.record(ppo, &clock, trainer.peak(), &mut record);
        if let Some(tokens) = &mut trainer.state.tokens {
            tokens.add(&counted);
            tokens.record(&mut record);
        }
        if let Some(seconds) = trainer.saving.take() {
            record.set("timing_s/save_checkpoint", seconds);
        }
        let warnings = trainer.state.watchdogs.observe(&plan.recipe.watch, ppo, &mut record);
        metrics.write(&record);
        progress.step(&record);
        warnings.iter().for_each(|warning| terminal::warn(warning));

        // Evaluate, save, judge.
        trainer.finish(step, &experience, rollouts.len());
        trainer.call(hooks, metrics)?;
    }
    Ok(())
}

impl Trainer<'_> {
    /// Operations per second of all processes' devices; measured by all of them at the same time, as they work. None if
    /// that fails, which is no reason to end the run and is said once.
    fn peak(&mut self) -> Option<f64> {
        let (plan, comm) = (self.plan, self.comm);
        *self.peak.get_or_insert_with(|| match plan.peak_rate() {
            Ok(rate) => Some(rate * comm.size() as f64),
            Err(error) => {
                terminal::warn(&format!(
                    "warning: the metrics have no MFU, since the device's peak could not be measured: {error:#}; \
                     machine.peak_tflops says what it is"
                ));
                None
            }
        })
    }

    /// The actor's responses to the prompts of a step.
    fn write(&self, step: usize, prompts: &[Prompt]) -> Result<Vec<Response>> {
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
            pulse: self.pulse,
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

    /// Advantages and returns.
    fn experience(&self, rollouts: &[Rollout], batch: &Batch, estimates: Estimates) -> Experience {
        let ppo = self.ppo;
        let scores: Vec<f32> = rollouts.iter().map(|rollout| rollout.grade.reward as f32).collect();
        let scored = Scored {
            scores: &scores,
            lengths: &batch.lengths(0..rollouts.len()),
            group: self.plan.recipe.rollout.samples_per_prompt,
            kl_coef: self.state.kl_coefficient,
        };
        experience(ppo, &scored, estimates)
    }

    /// Says which warnings of the steps before are on.
    fn show_warnings(&self) {
        let on: Vec<_> = self.state.watchdogs.on().collect();
        for (warning, since) in &on {
            terminal::warn(&format!("warning: {} is on since step {since}", warning.name()));
        }
        self.pulse.warn(on.iter().map(|(warning, _)| warning.name().to_string()).collect());
    }

    /// Takes note that a step is done: adapts the KL coefficient for the next one.
    fn finish(&mut self, step: usize, experience: &Experience, sequences: usize) {
        let Self { ppo, state, pulse, .. } = self;
        (state.step, state.unevaluated) = (step, true);
        state.kl_coefficient =
            kl::adapted(state.kl_coefficient, experience.kl, sequences, ppo.kl_target, ppo.kl_horizon);
        pulse.count(Stage::Ppo, step, ppo.steps);
        pulse.warn(state.watchdogs.on().map(|(warning, _)| warning.name().to_string()).collect());
    }

    /// The critic's updates and the actor's, which does not learn in the first steps if the critic is to warm up, after
    /// those that were `learnt` before; adds their figures.
    fn learn(&mut self, step: usize, updates: &Updates, learnt: &mut Learnt, clock: &mut Clock) -> Result<()> {
        let failed = |error: Error, who| match error.is::<Stopped>() {
            true => error,
            false => error.context(format!("the {who}'s update failed")),
        };
        let lengths = updates.batch.lengths(0..updates.batch.sequences.len());
        updates.experience.check(&lengths).map_err(|error| said_by_first(self.comm, error.into()))?;
        let critic_alone = step <= self.ppo.critic_warmup_steps;
        let critic = updates.critic(&mut self.models, critic_alone, &mut learnt.critic);
        clock.lap("update_critic");
        critic.map_err(|error| failed(error, "critic"))?;
        if critic_alone {
            return Ok(());
        }
        let actor = updates.actor(&mut self.models, &mut learnt.actor);
        clock.lap("update_actor");
        actor.map_err(|error| failed(error, "actor"))
    }

    /// `Stopped` as it is; any other error of a step with its number and, if it is about numbers that are not finite,
    /// the place of everything that is known of its sequences.
    fn explain(&self, error: Error, step: usize, rollouts: &[Rollout], experience: &Experience) -> Error {
        if error.is::<Stopped>() {
            return error;
        }
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
