//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they think of them, and learns.

use super::batch::Sequence;
use super::clock::Clock;
use super::experience::{Estimates, Experience, experience, generate, grade, log_probs, prompts, score};
use super::hook::{Hook, Moment, State};
use super::identities;
use super::learner::{Estimator, Learner, Models};
use super::record;
use super::stop::Stop;
use super::update::{Pace, Scalars, update_actor, update_critic};
use crate::Stopped;
use crate::algo::schedule;
use crate::checkpoint::RunFolder;
use crate::env::Environment;
use crate::metrics::{Metrics, Record, Stage};
use crate::plan::Plan;
use crate::recipe::Ppo;
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::Split;
use crate::terminal::Progress;
use crate::torch::to_host;
use anyhow::{Context, Result};
use tch::Tensor;

/// What PPO trains, and what it trains with.
pub struct Trainer<'a> {
    pub plan: &'a Plan,
    pub ppo: &'a Ppo,
    pub env: &'a Environment,
    pub models: Models,
    pub state: State,
    pub folder: &'a RunFolder,
    pub stop: &'a Stop,
    /// Seconds that the newest checkpoint took, until a record has them.
    pub saving: Option<f64>,
}

/// Trains from the state's step to the recipe's last.
///
/// # Errors
/// `Stopped` on a signal, after the hooks of the step it came in.
pub fn train(trainer: &mut Trainer, metrics: &mut Metrics, hooks: &mut [Box<dyn Hook>]) -> Result<()> {
    let (plan, ppo, env) = (trainer.plan, trainer.ppo, trainer.env);
    let rollout = &plan.recipe.rollout;
    let sampling =
        Sampling { temperature: rollout.temperature, top_p: rollout.top_p, top_k: rollout.top_k as i64, greedy: false };
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
        let samples = rollout.samples_per_prompt;
        let actor = &models.actor.model;
        let responses = generate(actor, plan, env, &prompts, samples, sampling.clone(), (Purpose::Rollout, step));
        clock.lap("gen");
        let rollouts = grade(env, &prompts, responses)?;
        clock.lap("reward");
        record::rollouts(&mut record, &rollouts, samples);
        if step == 1 {
            record::warn_when_nothing_answers(&rollouts);
        }

        // The models say what they expect.
        let estimates = estimate(models, ppo, &rollouts.sequences, rollout.temperature, &mut clock);
        let gap = identities::probability_gap(&rollouts.log_probs, &to_host(&estimates.old));

        // How much better than expected was each token?
        let kl_coef = models.kl.coefficient;
        let xp = experience(ppo, kl_coef, samples, rollouts.sequences, &rollouts.scores, estimates);
        models.kl.update(xp.kl, xp.sequences.len());
        clock.lap("adv");

        // Critic and actor learn.
        let rate = schedule::factor(ppo.lr_schedule, step - 1, ppo.lr_warmup_steps, ppo.steps);
        let (actor_lr, critic_lr) = (ppo.actor_lr * rate, ppo.critic_lr * rate);
        let pace = Pace { actor_lr, critic_lr, kl_coef, temperature: rollout.temperature };
        let critic_alone = step <= ppo.critic_warmup_steps;
        let critic_updates = learn_values(models, ppo, &xp, pace, critic_alone).context("of the critic")?;
        clock.lap("update_critic");
        let mut actor_updates = vec![];
        if !critic_alone {
            actor_updates = learn(models, ppo, &xp, pace).context("of the actor")?;
            clock.lap("update_actor");
        }
        if step == 1 {
            identities::check(models.actor.model.weights.flat().kind(), &xp, gap.0, actor_updates.first())?;
        }
        record::learning(&mut record, ppo, &xp, kl_coef, rate, gap, [&critic_updates, &actor_updates]);
        record.set("training/epoch", (step * rollout.prompts_per_step) as f64 / env.task.len(Split::Train) as f64);
        clock.finish(&mut record, &xp.sequences);
        if let Some(seconds) = trainer.saving.take() {
            record.set("timing_s/save_checkpoint", seconds);
        }

        trainer.state.step = step;
        metrics.write(&record);
        progress.step(&record);
        trainer.call(hooks, metrics)?;
    }
    Ok(())
}

impl Trainer<'_> {
    /// Calls the hooks after a step.
    ///
    /// # Errors
    /// Those of a hook; `Stopped` where the run is to end here.
    fn call(&mut self, hooks: &mut [Box<dyn Hook>], metrics: &mut Metrics) -> Result<()> {
        let step = self.state.step;
        let mut moment = Moment {
            step,
            last: step == self.ppo.steps,
            plan: self.plan,
            env: self.env,
            models: &self.models,
            metrics,
            folder: self.folder,
            best: &mut self.state.best,
            saving: &mut self.saving,
            stop: self.stop,
            stopping: false,
        };
        for hook in hooks {
            hook.after_step(&mut moment)?;
        }
        if moment.stopping { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// What actor, reference and critic make of the rollouts, before any of them learns.
fn estimate(models: &Models, ppo: &Ppo, sequences: &[Sequence], temperature: f64, clock: &mut Clock) -> Estimates {
    let (actor, micro) = (&models.actor.model, ppo.micro_batch_tokens);
    let (old, values) = match &models.critic {
        // One pass through the decoder for both.
        Some(Estimator::Head(Learner { model: head, .. })) => {
            let both = score(sequences, micro, actor.device(), |b| {
                let hidden = actor.hidden(&b.ids, &b.read);
                Tensor::stack(&[actor.log_probs(&hidden, &b.targets, temperature), head.values(&hidden)], 1)
            });
            (both.select(1, 0).contiguous(), Some(both.select(1, 1).contiguous()))
        }
        _ => (log_probs(actor, sequences, micro, temperature), None),
    };
    clock.lap("old_log_prob");
    let reference = models.reference.as_ref();
    let reference =
        reference.map(|reference| reference.with(|policy| log_probs(policy, sequences, micro, temperature)));
    clock.lap("ref");
    let values = match &models.critic {
        Some(Estimator::Critic(critic)) => {
            Some(score(sequences, micro, actor.device(), |b| critic.model.values(&b.ids, &b.read)))
        }
        _ => values,
    };
    clock.lap("values");
    Estimates { old, reference, values }
}

/// The updates of a critic that learns apart from the actor; `alone`: the actor does not learn in this step, so a value
/// head that otherwise learns with it does so here.
fn learn_values(models: &mut Models, ppo: &Ppo, xp: &Experience, pace: Pace, alone: bool) -> Result<Vec<Scalars>> {
    let actor = &models.actor.model;
    match &mut models.critic {
        Some(Estimator::Critic(critic)) => update_critic(critic, ppo, xp, pace, |c, b| c.values(&b.ids, &b.read)),
        Some(Estimator::Head(head)) if alone => {
            update_critic(head, ppo, xp, pace, |head, b| head.values(&tch::no_grad(|| actor.hidden(&b.ids, &b.read))))
        }
        _ => Ok(vec![]),
    }
}

/// The updates of the actor, and of the value head that shares its decoder.
fn learn(models: &mut Models, ppo: &Ppo, xp: &Experience, pace: Pace) -> Result<Vec<Scalars>> {
    let head = match &mut models.critic {
        Some(Estimator::Head(head)) => Some(head),
        _ => None,
    };
    update_actor(&mut models.actor, head, ppo, xp, pace)
}
