//! Evaluates the actor on held-out problems, and remembers the best step.

use super::samples;
use crate::metrics::{Record, Stage};
use crate::task::Split;
use crate::terminal;
use crate::train::clock::Clock;
use crate::train::evaluate;
use crate::train::hook::{Best, Hook, Moment};
use crate::train::pulse::Phase;
use anyhow::Result;

/// Every `evaluation.every` steps, in each of the recipe's decoding modes.
pub struct Evaluation {
    /// Rollouts that are shown with their rewards.
    pub samples: usize,
}

impl Hook for Evaluation {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        if !moment.is_due(moment.plan.recipe.evaluation.every) {
            moment.state.unevaluated = false;
            return Ok(());
        }
        let evaluations = evaluate(moment)?;
        if let Some(first) = evaluations.first() {
            terminal::print(&samples::table(moment.env.task.as_ref(), first, self.samples, None));
        }
        for e in &evaluations {
            let (step, decoding, accuracy) = (moment.state.step, e.decoding.name(), 100.0 * e.accuracy);
            let classes = e.answers(moment.env.task.as_ref());
            let macro_f1 = classes.map_or("".into(), |classes| format!("macro-F1 {:.3}, ", classes.scores().macro_f1));
            terminal::print(&format!(
                "evaluation at step {step}, {decoding}: accuracy {accuracy:.1} %, {macro_f1}reward {:.3}, {:.1} tokens",
                e.reward, e.response_length
            ));
        }
        Ok(())
    }
}

/// Evaluates and records, in each of the recipe's decoding modes.
pub fn evaluate(moment: &mut Moment) -> Result<Vec<evaluate::Evaluation>> {
    /// Columns of what is recorded: that of two runs shall be the same, wherever they are watched.
    const WIDTH: usize = 100;
    moment.pulse.enter(Phase::Evaluation);
    let (recipe, task) = (&moment.plan.recipe, moment.env.task.as_ref());
    let mut record = Record::new(Stage::Evaluation, moment.state.step as u64);
    let mut clock = Clock::start();
    let mut evaluations = Vec::new();
    for decoding in &recipe.evaluation.decoding {
        let (actor, env, plan) = (&moment.models.actor.model, moment.env, moment.plan);
        let problems = recipe.evaluation.problems;
        evaluations.push(evaluate::evaluate(actor, plan, env, Split::Validation, problems, *decoding, moment.pulse)?);
    }
    clock.lap("testing");
    for evaluation in &evaluations {
        evaluation.record(task, &mut record);
    }
    clock.record_stages(&mut record);
    if let Some(first) = evaluations.first() {
        if moment.state.best.is_none_or(|best| first.accuracy >= best.accuracy) {
            moment.state.best = Some(Best { step: moment.state.step, accuracy: first.accuracy });
        }
        record.text("samples", samples::table(task, first, recipe.hooks.samples, Some(WIDTH)));
    }
    moment.metrics.write(&record);
    moment.state.unevaluated = false;
    Ok(evaluations)
}
