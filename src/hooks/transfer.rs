//! Whether the skill transfers: the policy answers problems of another task, in the prompt that it was trained with.
//! Each answer is a line of `answers.jsonl` in the job's folder; if the task has classes, `classes.json` says which was
//! taken for which.

use super::outcome::Outcome;
use super::schedule::Job;
use crate::analysis::Answers;
use crate::bad;
use crate::env::{Environment, Prompt};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Transfer;
use crate::stats::{Bootstrap, Figure, Grid, Place, RESAMPLES};
use crate::task::{Split, in_words};
use crate::train::evaluate::{Evaluation, evaluate};
use crate::train::rollouts::Rollout;
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// The file of answers.
const ANSWERS: &str = "answers.jsonl";
/// The file of classes: `analysis::Summary`, as `eval --json` has it.
pub const CLASSES: &str = "classes.json";

/// What is read again of an answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Answer {
    pub problem: String,
    pub accuracy: f64,
}

/// The answers in the folder of a job.
///
/// # Errors
/// Bad input: there are none, or a line is not one.
pub fn read(folder: &Path) -> Result<Vec<Answer>> {
    let path = folder.join(ANSWERS);
    let text = std::fs::read_to_string(&path).map_err(|error| bad!("cannot read {}: {error}", path.display()))?;
    let line = |(line, number): (&str, usize)| {
        serde_json::from_str(line).map_err(|error| bad!("{}, line {number} is not an answer: {error}", path.display()))
    };
    text.lines().zip(1..).map(line).collect()
}

/// In which picture a figure is shown.
pub fn place(name: &str) -> Option<Place> {
    match name {
        "accuracy" | "format" | "answered" => Some(Place::new("Answers to the other task", name, "answers, %", true)),
        "macro_f1" => Some(Place::new("Macro-F1 on the other task", "macro-F1", "macro-F1, %", true)),
        "response_length" => Some(Place::new("Response length on the other task", name, "tokens", true)),
        "reward" => Some(Place::new("Reward on the other task", name, "reward", false)),
        _ => Some(Place::new("F1 by class on the other task", name.strip_prefix("f1_")?, "F1, %", false)),
    }
}

/// Evaluates the policy on the other task's test split, and writes its answers into `folder`.
///
/// # Errors
/// Bad input: the other task's files or prompts cannot be used.
pub fn evaluate_on(plan: &Plan, settings: &Transfer, policy: &Policy, (job, folder): (&Job, &Path)) -> Result<Outcome> {
    let mut plan = plan.clone();
    let recipe = &mut plan.recipe;
    recipe.task = settings.task.clone();
    recipe.rollout.max_prompt_tokens = settings.max_prompt_tokens.unwrap_or(recipe.rollout.max_prompt_tokens);
    recipe.rollout.max_response_tokens = settings.max_response_tokens.unwrap_or(recipe.rollout.max_response_tokens);
    let env = Environment::of(&plan)?;
    let evaluation = evaluate(policy, &plan, &env, Split::Test, settings.problems, settings.decoding)?;
    let classes = evaluation.answers(env.task.as_ref());
    let answers: Vec<String> = rows(&env, &evaluation, classes.as_ref()).iter().map(Value::to_string).collect();
    std::fs::write(folder.join(ANSWERS), answers.join("\n") + "\n")?;
    let mut figures = figures(&evaluation);
    let mut notes = vec![];
    if let Some(answers) = classes {
        let summary = answers.summary(&Bootstrap::new(RESAMPLES, evaluation.prompts.len()));
        std::fs::write(folder.join(CLASSES), serde_json::to_string_pretty(&summary)? + "\n")?;
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

/// A row per answer. `truth` is the problem's class by name, and `given` the one that was answered, `null` if it names
/// none; tasks without classes have neither.
fn rows(env: &Environment, evaluation: &Evaluation, classes: Option<&Answers>) -> Vec<Value> {
    let all = evaluation.prompts.iter().zip(&evaluation.rollouts).enumerate();
    let row = |(at, (prompt, rollout)): (usize, (&Prompt, &Rollout))| {
        let mut row = json!({
            "index": prompt.index,
            "problem": in_words(&env.task.variables(prompt.split, prompt.index)),
            "text": rollout.text,
            "tokens": rollout.sequence.response.len(),
            "accuracy": rollout.grade.accuracy,
            "format": rollout.grade.format,
            "reward": rollout.grade.reward,
            "answered": rollout.grade.answered,
            "verdict": rollout.grade.reason,
        });
        if let Some(Answers { names, truth, given, .. }) = classes {
            row["truth"] = names[truth[at]].into();
            row["given"] = given[at].map(|class| names[class]).into();
        }
        row
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
