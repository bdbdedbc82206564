//! Who judges the answers of `ppo-train steer`, and the lines that are written about them.

use anyhow::Result;
use ppo_train::env::{Environment, Prompt};
use ppo_train::hooks::judges::panel;
use ppo_train::hooks::persona::{self, Judged, judged_by};
use ppo_train::judge::Judge;
use ppo_train::plan::use_device;
use ppo_train::recipe::{self, Recipe};
use ppo_train::steer::{Answers, Condition, Direction, Report};
use ppo_train::train::stop::Stop;
use ppo_train::{Stopped, bad};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// An override that gives every recipe a [hooks.persona], whose judge is the lexical one if it names no other. How many
/// traces that hook reads does not matter here, but the checks want them to be no more than there are problems.
pub const SECTION: &str = "hooks.persona.traces=1";

/// The judge of a recipe's [hooks.persona] at work.
pub struct Judging {
    /// The judge in words.
    pub name: String,
    judge: Box<dyn Judge>,
    /// The share of the answers that may have no judgement.
    max_missing: f64,
    /// All answers so far, condition by condition.
    judged: Vec<Judged>,
    /// Where the answers of an endpoint are if nobody wants to keep them; it goes when this does.
    passing: Option<TempDir>,
}

impl Judging {
    /// The judge on the device of the recipe's hooks. `answers`: the folder of an endpoint's answers (none: they are
    /// not kept); `stop`: set by a signal.
    ///
    /// # Errors
    /// Bad input: the recipe has no judge, or one that cannot be used.
    pub fn open(recipe: &Recipe, answers: Option<&Path>, stop: &Stop) -> Result<Self> {
        let Some(settings) = &recipe.hooks.persona else {
            return Err(bad!("the recipe has no [hooks.persona], whose judge could read the answers"));
        };
        let (name, has_answers) = match &settings.judge {
            recipe::Judge::Lexical => ("the lexical judge".to_string(), false),
            recipe::Judge::Endpoint(own) => (format!("{} behind an endpoint", own.model), true),
            recipe::Judge::Local(own) => (format!("the model in {}", own.path.display()), false),
        };
        let passing = (has_answers && answers.is_none()).then(tempfile::tempdir).transpose()?;
        let answers = answers.or(passing.as_ref().map(TempDir::path)).unwrap_or(Path::new(""));
        // No figure needs the vectors of what voices know.
        let (judge, _) = panel(&settings.judge, answers, use_device(&recipe.hooks_machine())?, &stop.0)?;
        Ok(Self { name, judge, max_missing: settings.max_missing, judged: vec![], passing })
    }

    /// What the judgements depend on besides the text.
    pub fn identity(&self) -> Value {
        self.judge.identity()
    }

    /// What the judge says about the answers under some conditions, about all of them in one call; condition by
    /// condition, problem by problem.
    ///
    /// # Errors
    /// Those of the judge.
    pub fn read(&mut self, env: &Environment, prompts: &[Prompt], group: &[Answers]) -> Result<&[Judged]> {
        let responses: Vec<_> = group.iter().flat_map(|answers| prompts.iter().zip(&answers.rollouts)).collect();
        let first = self.judged.len();
        let judged = judged_by(self.judge.as_ref(), env, &responses);
        self.judged.extend(judged.map_err(|error| match self.passing.is_some() && error.is::<Stopped>() {
            true => Stopped("without --answers no answer is kept").into(),
            false => error,
        })?);
        Ok(&self.judged[first..])
    }

    /// What to know about the judgements: what the judge cannot see, what it cost, and what is missing.
    ///
    /// # Errors
    /// More answers have no judgement than the recipe allows.
    pub fn notes(&mut self) -> Result<Vec<String>> {
        let lacking = persona::complete(&mut self.judged, None, self.max_missing)?;
        let known = persona::notes(self.judge.as_ref(), None);
        Ok(known.into_iter().chain(lacking.traces).chain(lacking.parts).collect())
    }
}

/// A line of --traces: a judged trace, and how it was made.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    judged: &'a Judged,
    prompt: &'a str,
    terminated: bool,
    direction: &'a str,
    control: bool,
    layer: usize,
    strength: f64,
    unit: &'static str,
    share_of_stream: f64,
}

/// The answers under a condition, a line each, with the fields of judged traces.
///
/// # Errors
/// They cannot be written as JSON.
pub fn lines(
    answers: &Answers,
    judged: &[Judged],
    prompts: &[Prompt],
    directions: &[Direction],
    report: &Report,
) -> Result<String> {
    let Condition { direction, strength, .. } = answers.condition;
    let mut lines = String::new();
    for ((prompt, rollout), judged) in prompts.iter().zip(&answers.rollouts).zip(judged) {
        let line = Line {
            judged,
            prompt: &prompt.text,
            terminated: rollout.terminated,
            direction: &directions[direction].name,
            control: direction > 0,
            layer: report.layer,
            strength,
            unit: report.scale.unit.name(),
            share_of_stream: report.scale.share(strength),
        };
        lines += &serde_json::to_string(&line)?;
        lines.push('\n');
    }
    Ok(lines)
}
