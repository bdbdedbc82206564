//! Whether the skill transfers: the policy answers problems of another task, in the prompt that it was trained with.
//! Each answer is a line of `answers.jsonl` in the job's folder; if the task has classes, `classes.json` says which was
//! taken for which. `with_answer` is the share of responses with an answer tag; `unanswered`, of a task with classes,
//! the share of those whose answer is none of the classes.

use super::identity::of_responses;
use super::outcome::Outcome;
use super::schedule::Job;
use crate::analysis::Answers;
use crate::env::{Environment, PREFLIGHT_PROMPTS, Prompt};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Transfer;
use crate::stats::{Bootstrap, Figure, Grid, Place, RESAMPLES};
use crate::task::{Split, in_words, settings as task_settings};
use crate::train::evaluate::{Evaluation, evaluate};
use crate::train::pulse::Pulse;
use crate::train::rollouts::Rollout;
use crate::{OrBadInput, json};
use anyhow::{Context, Result};
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
    pub format: Option<f64>,
    pub reward: Option<f64>,
    pub with_answer: Option<bool>,
    /// Length in tokens.
    pub tokens: Option<usize>,
    /// The problem's class, if the task has classes.
    pub truth: Option<String>,
    /// The class that was answered, if it is one.
    pub given: Option<String>,
}

/// What is known of an answer under a figure's name.
type Kept = (&'static str, fn(&Answer) -> Option<f64>);

/// The figures that are means over answers, by what is kept of each.
pub const KEPT: [Kept; 6] = [
    ("accuracy", |answer| Some(answer.accuracy)),
    ("format", |answer| answer.format),
    ("reward", |answer| answer.reward),
    ("with_answer", |answer| answer.with_answer.map(|with| f64::from(u8::from(with)))),
    ("response_length", |answer| answer.tokens.map(|tokens| tokens as f64)),
    ("unanswered", |answer| answer.truth.as_ref().map(|_| f64::from(u8::from(answer.given.is_none())))),
];

/// The answers in the folder of a job.
///
/// # Errors
/// Bad input: there are none, or a line is not one.
pub fn read(folder: &Path) -> Result<Vec<Answer>> {
    json::lines(&folder.join(ANSWERS), "an answer", |_| Ok(()))
}

/// In which picture a figure is shown.
pub fn place(name: &str) -> Option<Place> {
    match name {
        "accuracy" | "format" | "with_answer" => {
            Some(Place::new("Answers to the other task", name, "answers, %", true))
        }
        "macro_f1" => Some(Place::new("Macro-F1 on the other task", "macro-F1", "macro-F1, %", true)),
        "response_length" => Some(Place::new("Response length on the other task", name, "tokens", true)),
        "unanswered" => Some(Place::new("Answers that are none of the classes", name, "answers, %", false)),
        "reward" => Some(Place::new("Reward on the other task", name, "reward", false)),
        _ => Some(Place::new("F1 by class on the other task", name.strip_prefix("f1_")?, "F1, %", false)),
    }
}

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
    let other = other(plan, settings);
    let env = environment(&other, settings)?;
    let evaluation = evaluate(policy, &other, &env, Split::Test, settings.problems, settings.decoding, pulse)?;
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
        identity: identity(plan, settings)?,
        summary: format!("{}: accuracy {accuracy:.1} % on {count} problems", env.task.name()),
        missing: None,
        notes,
        figures,
    })
}

/// The plan of a run on the other task.
fn other(plan: &Plan, settings: &Transfer) -> Plan {
    let mut plan = plan.clone();
    let recipe = &mut plan.recipe;
    recipe.task = settings.task.clone();
    recipe.rollout.max_prompt_tokens = settings.max_prompt_tokens.unwrap_or(recipe.rollout.max_prompt_tokens);
    recipe.rollout.max_response_tokens = settings.max_response_tokens.unwrap_or(recipe.rollout.max_response_tokens);
    plan
}

/// The other task's environment. Prompts that are too long are those of the hook's own key, if it is set.
fn environment(other: &Plan, settings: &Transfer) -> Result<Environment> {
    let limit = settings.max_prompt_tokens.map_or("rollout.max_prompt_tokens", |_| "hooks.transfer.max_prompt_tokens");
    let mut env = Environment::of(other)?;
    env.limit = limit;
    Ok(env)
}

/// Builds the other task, and renders the prompts of the problems that will be asked.
///
/// # Errors
/// Bad input: files that cannot be used, a prompt that does not render or is too long.
pub fn check(plan: &Plan, settings: &Transfer) -> Result<()> {
    let env = environment(&other(plan, settings), settings).context("hooks.transfer").bad_input()?;
    let all = env.task.len(Split::Test);
    let count = if settings.problems == 0 { all } else { settings.problems.min(all) };
    let mut problems = (0..count).step_by(count.div_ceil(PREFLIGHT_PROMPTS).max(1));
    problems.try_for_each(|index| env.prompt(Split::Test, index).map(drop)).context("hooks.transfer").bad_input()
}

/// What a result depends on besides the checkpoint.
///
/// # Errors
/// Bad input: a prompt template that cannot be read.
pub fn identity(plan: &Plan, settings: &Transfer) -> Result<Value> {
    let Transfer { task, decoding, problems, .. } = settings;
    let problems = if *problems == 0 { task_settings(task).sizes()[2] } else { *problems };
    let mut identity = of_responses(&other(plan, settings), *decoding)?;
    identity.insert("decoding".into(), json!(decoding));
    identity.insert("problems".into(), json!(problems));
    Ok(identity.into())
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
            "with_answer": rollout.grade.answered,
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
        ("with_answer", |r| f64::from(u8::from(r.grade.answered))),
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
