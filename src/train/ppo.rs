//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they think of them, and learns.

use super::batch::Sequence;
use super::evaluate::evaluate;
use super::experience::{Estimates, experience, generate, grade, log_probs, prompts, score};
use super::identities;
use super::learner::Models;
use super::record::{self, Clock};
use super::run::Run;
use super::text::Text;
use super::update::{update_actor, update_critic};
use crate::algo::schedule;
use crate::metrics::console::Progress;
use crate::metrics::{Record, Stage};
use crate::recipe::{Plan, Ppo};
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::Split;
use crate::torch::to_host;
use anyhow::{Context, Result};

/// Trains `models` from the run's step to the recipe's last.
pub fn train(plan: &Plan, ppo: &Ppo, text: &Text, models: &mut Models, run: &mut Run) -> Result<()> {
    let rollout = &plan.recipe.rollout;
    let sampling =
        Sampling { temperature: rollout.temperature, top_p: rollout.top_p, top_k: rollout.top_k as i64, greedy: false };
    let mut progress = Progress::resumed(run.state.step as u64, ppo.steps as u64, "step");
    if run.state.step == 0 {
        evaluations(plan, text, models, run)?;
    }
    for step in run.state.step + 1..=ppo.steps {
        let mut record = Record::new(Stage::Ppo, step as u64);
        let mut clock = Clock::start();

        // The policy writes.
        let prompts = prompts(plan, text, step)?;
        let samples = rollout.samples_per_prompt;
        let responses = clock.time("gen", || {
            let actor = &models.actor.model;
            generate(actor, plan, text, &prompts, samples, sampling.clone(), (Purpose::Rollout, step))
        });
        let rollouts = clock.time("reward", || grade(plan, text, &prompts, responses))?;
        record::rollouts(&mut record, &rollouts, samples, rollout.max_response_tokens);
        if step == 1 {
            record::warn_when_nothing_answers(&rollouts);
        }

        // The models say what they expect.
        let estimates = estimate(models, ppo, &rollouts.sequences, rollout.temperature, &mut clock);
        let gap = identities::probability_gap(&rollouts.log_probs, &to_host(&estimates.old));

        // How much better than expected was each token?
        let kl_coef = models.kl.coefficient;
        let xp = clock
            .time("adv", || experience(ppo, kl_coef, samples, rollouts.sequences.clone(), &rollouts.scores, estimates));
        models.kl.update(xp.kl, xp.sequences.len());

        // Critic and actor learn.
        let rate = schedule::factor(ppo.lr_schedule, step - 1, ppo.lr_warmup_steps, ppo.steps);
        let critic_updates = clock.time("update_critic", || match &mut models.critic {
            Some(critic) => update_critic(critic, ppo, &xp, ppo.critic_lr * rate).context("in the critic's update"),
            None => Ok(vec![]),
        })?;
        let actor_updates = clock.time("update_actor", || match step > ppo.critic_warmup_steps {
            true => update_actor(&mut models.actor, ppo, &xp, (ppo.actor_lr * rate, rollout.temperature, kl_coef))
                .context("in the actor's update"),
            false => Ok(vec![]),
        })?;
        if step == 1 {
            identities::check(models.actor.model.weights.flat().kind(), &xp, gap.0, actor_updates.first())?;
        }
        record::learning(&mut record, ppo, &xp, kl_coef, rate, gap, [&critic_updates, &actor_updates]);
        record.set("training/epoch", (step * rollout.prompts_per_step) as f64 / text.task.len(Split::Train) as f64);
        clock.finish(&mut record, &xp.sequences);
        if let Some(seconds) = run.saving.take() {
            record.set("timing_s/save_checkpoint", seconds);
        }

        run.state.step = step;
        run.metrics.write(&record);
        progress.step(&record);
        run.after_step(plan, ppo, text, models)?;
    }
    Ok(())
}

/// What actor, reference and critic make of the rollouts, before any of them learns.
fn estimate(models: &Models, ppo: &Ppo, sequences: &[Sequence], temperature: f64, clock: &mut Clock) -> Estimates {
    let (actor, micro) = (&models.actor.model, ppo.micro_batch_tokens);
    let old = clock.time("old_log_prob", || log_probs(actor, sequences, micro, temperature));
    let reference = models.reference.as_ref();
    let reference = clock.time("ref", || {
        reference.map(|reference| reference.with(|policy| log_probs(policy, sequences, micro, temperature)))
    });
    let critic = models.critic.as_ref().map(|critic| &critic.model);
    let values = clock.time("values", || {
        critic.map(|critic| score(sequences, micro, actor.device(), |b| critic.values(&b.ids, &b.read)))
    });
    Estimates { old, reference, values }
}

/// Evaluates the actor as the recipe says, shows some rollouts, and remembers the best step.
pub fn evaluations(plan: &Plan, text: &Text, models: &Models, run: &mut Run) -> Result<()> {
    let recipe = &plan.recipe.evaluation;
    let mut record = Record::new(Stage::Evaluation, run.state.step as u64);
    let mut clock = Clock::start();
    let evaluations = clock.time("testing", || {
        let each = recipe
            .decoding
            .iter()
            .map(|decoding| evaluate(&models.actor.model, plan, text, Split::Validation, recipe.problems, *decoding));
        each.collect::<Result<Vec<_>>>()
    })?;
    for evaluation in &evaluations {
        evaluation.describe(text.task.name(), &mut record);
    }
    clock.write(&mut record);
    run.evaluated(plan, &evaluations, record);
    Ok(())
}
