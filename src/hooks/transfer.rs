//! Whether the skill transfers: the policy answers problems of another task, in the prompt that it was trained with.
//! Each answer is a line of `answers.jsonl` in the job's folder.

use super::outcome::Outcome;
use super::schedule::Job;
use crate::env::Environment;
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Transfer;
use crate::stats::{Bootstrap, Figure, Grid, RESAMPLES};
use crate::task::{Split, in_words};
use crate::train::evaluate::{Evaluation, evaluate};
use crate::train::pulse::Pulse;
use crate::train::rollouts::Rollout;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

/// The file of answers.
pub const ANSWERS: &str = "answers.jsonl";

/// Evaluates the policy on the other task's test split, and writes its answers into `folder`.
///
/// # Errors
/// Bad input: the other task's files or prompts cannot be used.
pub fn evaluate_on(
    plan: &Plan,
    settings: &Transfer,
    (policy, pulse): (&Policy, &Pulse),
    (job, folder): (&Job, &Path),
) -> Result<Outcome> {
    let mut plan = plan.clone();
    let recipe = &mut plan.recipe;
    recipe.task = settings.task.clone();
    recipe.rollout.max_prompt_tokens = settings.max_prompt_tokens.unwrap_or(recipe.rollout.max_prompt_tokens);
    recipe.rollout.max_response_tokens = settings.max_response_tokens.unwrap_or(recipe.rollout.max_response_tokens);
    let env = Environment::of(&plan)?;
    let evaluation = evaluate(policy, &plan, &env, Split::Test, settings.problems, settings.decoding, pulse)?;
    let answers: Vec<String> = rows(&env, &evaluation).iter().map(Value::to_string).collect();
    std::fs::write(folder.join(ANSWERS), answers.join("\n") + "\n")?;
    let mut figures = figures(&evaluation);
    let mut notes = vec![];
    if let Some(answers) = evaluation.answers(env.task.as_ref()) {
        let summary = answers.summary(&Bootstrap::new(RESAMPLES, evaluation.prompts.len()));
        for (name, value) in evaluation.class_figures(env.task.as_ref()) {
            let interval = summary.macro_f1_interval.filter(|_| name == "macro_f1");
            figures.push(Figure { interval, ..Figure::plain(name, value) });
        }
        let constant = summary.baselines.iter().map(|baseline| {
            let which = if baseline.majority_of_train { ", the commonest in training" } else { "" };
            format!("`{}`{which}: {:.1} %", baseline.class, 100.0 * baseline.accuracy)
        });
        notes.push(format!("accuracy of constant answers: {}", constant.collect::<Vec<_>>().join("; ")));
    }
    let (accuracy, count) = (100.0 * evaluation.accuracy, evaluation.prompts.len());
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: json!({ "task": settings.task, "decoding": settings.decoding, "problems": count }),
        summary: format!("{}: accuracy {accuracy:.1} % on {count} problems", env.task.name()),
        notes,
        figures,
    })
}

fn rows(env: &Environment, evaluation: &Evaluation) -> Vec<Value> {
    let all = evaluation.prompts.iter().zip(&evaluation.rollouts);
    let row = |(prompt, rollout): (&crate::env::Prompt, &Rollout)| {
        json!({
            "index": prompt.index,
            "problem": in_words(&env.task.variables(prompt.split, prompt.index)),
            "text": rollout.text,
            "tokens": rollout.sequence.response.len(),
            "accuracy": rollout.grade.accuracy,
            "format": rollout.grade.format,
            "reward": rollout.grade.reward,
            "answered": rollout.grade.answered,
            "verdict": rollout.grade.reason,
        })
    };
    all.map(row).collect()
}

/// A name, and what is measured in a rollout.
type Measure = (&'static str, fn(&Rollout) -> f64);

/// Means with their intervals over problems.
fn figures(evaluation: &Evaluation) -> Vec<Figure> {
    let measures: [Measure; 5] = [
        ("accuracy", |r| r.grade.accuracy),
        ("format", |r| r.grade.format),
        ("reward", |r| r.grade.reward),
        ("answered", |r| f64::from(u8::from(r.grade.answered))),
        ("response_length", |r| r.sequence.response.len() as f64),
    ];
    let figure = |(name, of): Measure| {
        let values: Vec<f64> = evaluation.rollouts.iter().map(of).collect();
        let grid = Grid::new(vec![values])?;
        let interval = Bootstrap::new(RESAMPLES, grid.problems()).mean(&grid);
        Some(Figure { name: name.into(), value: grid.mean(), interval, n: Some(grid.problems()) })
    };
    measures.into_iter().filter_map(figure).collect()
}
