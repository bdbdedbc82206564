//! PPO (arXiv:1707.06347) for language models: the loop.
//!
//! Episodes are responses, actions are tokens, and the reward comes at the last one. Each step writes responses to
//! fresh prompts, grades them, asks the models what they think of them, and learns.

use super::batch::Sequence;
use super::evaluate::evaluate;
use super::experience::{Estimates, Experience, experience, generate, grade, log_probs, prompts, score};
use super::identities;
use super::learner::{Estimator, Learner, Models};
use super::record::{self, Clock};
use super::run::Run;
use super::text::Text;
use super::update::{Pace, Scalars, update_actor, update_critic};
use crate::algo::schedule;
use crate::metrics::console::Progress;
use crate::metrics::{Record, Stage};
use crate::recipe::{Plan, Ppo};
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::Split;
use crate::torch::to_host;
use anyhow::{Context, Result};
use tch::Tensor;

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
        let (actor_lr, critic_lr) = (ppo.actor_lr * rate, ppo.critic_lr * rate);
        let pace = Pace { actor_lr, critic_lr, kl_coef, temperature: rollout.temperature };
        let critic_alone = step <= ppo.critic_warmup_steps;
        let critic_updates = clock
            .time("update_critic", || learn_values(models, ppo, &xp, pace, critic_alone))
            .context("of the critic")?;
        let actor_updates = match critic_alone {
            true => vec![],
            false => clock.time("update_actor", || learn(models, ppo, &xp, pace)).context("of the actor")?,
        };
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
    let (old, values) = clock.time("old_log_prob", || match &models.critic {
        // One pass through the decoder for both.
        Some(Estimator::Head(Learner { model: head, .. })) => {
            let both = score(sequences, micro, actor.device(), |b| {
                let hidden = actor.hidden(&b.ids, &b.read);
                Tensor::stack(&[actor.log_probs(&hidden, &b.targets, temperature), head.values(&hidden)], 1)
            });
            (both.select(1, 0).contiguous(), Some(both.select(1, 1).contiguous()))
        }
        _ => (log_probs(actor, sequences, micro, temperature), None),
    });
    let reference = models.reference.as_ref();
    let reference = clock.time("ref", || {
        reference.map(|reference| reference.with(|policy| log_probs(policy, sequences, micro, temperature)))
    });
    let values = clock.time("values", || match &models.critic {
        Some(Estimator::Critic(critic)) => {
            Some(score(sequences, micro, actor.device(), |b| critic.model.values(&b.ids, &b.read)))
        }
        _ => values,
    });
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
