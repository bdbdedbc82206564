//! Whether personas emerge: a judge reads responses to held-out problems. Each trace with its judgement is a line of
//! `traces.jsonl` in the job's folder.

use super::judges::Panel;
use super::outcome::Outcome;
use super::schedule::Job;
use crate::bad;
use crate::env::{Environment, Prompt};
use crate::judge::{self, Embedder, Judgement, Trace};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::{Decoding, Persona};
use crate::stats::{Figure, RESAMPLES};
use crate::task::{Split, in_words};
use crate::train::evaluate::evaluate;
use crate::train::pulse::Pulse;
use crate::train::rollouts::Rollout;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

/// The file of judged traces.
pub const JUDGED: &str = "traces.jsonl";

/// A trace with what was said about it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Judged {
    /// Of the problem in the validation split.
    pub index: usize,
    pub problem: String,
    pub text: String,
    /// Length in tokens.
    pub tokens: usize,
    pub reward: f64,
    pub accuracy: f64,
    pub format: f64,
    pub verdict: String,
    /// Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Vectors of what each perspective knows; not kept.
    #[serde(skip)]
    pub embeddings: Option<Vec<Vec<f32>>>,
}

impl Judged {
    /// For the metrics of the judge.
    pub fn view(&self) -> judge::Judged<'_> {
        judge::Judged {
            text: &self.text,
            tokens: self.tokens,
            judgement: self.judgement.as_ref(),
            embeddings: self.embeddings.as_deref(),
        }
    }
}

/// The judged traces of a file, or of the folder of a job.
///
/// # Errors
/// Bad input: there are none, or a line is not one.
pub fn read(path: &Path) -> Result<Vec<Judged>> {
    let path = if path.is_dir() { path.join(JUDGED) } else { path.to_path_buf() };
    let text = std::fs::read_to_string(&path).map_err(|error| bad!("cannot read {}: {error}", path.display()))?;
    let line = |(line, number): (&str, usize)| {
        serde_json::from_str(line)
            .map_err(|error| bad!("{}, line {number} is not a judged trace: {error}", path.display()))
    };
    text.lines().zip(1..).map(line).collect()
}

/// Lets `judge` read the policy's responses, and writes them into `folder`.
///
/// # Errors
/// Those of the judge; no trace could be judged.
pub fn judge(
    plan: &Plan,
    settings: &Persona,
    (policy, pulse): (&Policy, &Pulse),
    (judge, embedder): &Panel,
    (job, folder): (&Job, &Path),
) -> Result<Outcome> {
    let env = Environment::of(plan)?;
    let evaluation = evaluate(policy, plan, &env, Split::Validation, settings.traces, Decoding::Sampled, pulse)?;
    let trace = |(prompt, rollout): (&Prompt, &Rollout)| Trace {
        problem: in_words(&env.task.variables(prompt.split, prompt.index)),
        text: rollout.text.clone(),
    };
    let traces: Vec<Trace> = evaluation.prompts.iter().zip(&evaluation.rollouts).map(trace).collect();
    let judgements = judge.judge(&traces)?;
    let all = traces.into_iter().zip(&evaluation.rollouts).zip(judgements).enumerate();
    let mut judged: Vec<Judged> = all
        .map(|(index, ((trace, rollout), judgement))| {
            let (judgement, missing) = match judgement {
                Ok(judgement) => (Some(judgement), None),
                Err(refusal) => (None, Some(refusal.0)),
            };
            let grade = &rollout.grade;
            Judged {
                index,
                problem: trace.problem,
                text: trace.text,
                tokens: rollout.sequence.response.len(),
                reward: grade.reward,
                accuracy: grade.accuracy,
                format: grade.format,
                verdict: grade.reason.clone(),
                judgement,
                missing,
                embeddings: None,
            }
        })
        .collect();
    if let Some(embedder) = embedder {
        let judgements: Vec<_> = judged.iter().map(|trace| trace.judgement.as_ref()).collect();
        let vectors = embedder.expertise(&judgements)?;
        judged.iter_mut().zip(vectors).for_each(|(trace, vectors)| trace.embeddings = vectors);
    }
    let lines: Result<Vec<String>, _> = judged.iter().map(serde_json::to_string).collect();
    std::fs::write(folder.join(JUDGED), lines?.join("\n") + "\n")?;
    let missing = judged.iter().filter(|trace| trace.judgement.is_none()).count();
    let first = judged.iter().find_map(|trace| trace.missing.clone()).unwrap_or_default();
    ensure!(missing < judged.len(), "no trace could be judged; the first: {first}");
    let figures = judge::figures(&judged.iter().map(Judged::view).collect::<Vec<_>>(), RESAMPLES);
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: json!({
            "judge": judge.identity(),
            "embeddings": embedder.as_ref().map(Embedder::identity),
            "traces": settings.traces,
        }),
        summary: summary(&figures, judged.len()),
        notes: judge.cannot_see().map(str::to_string).into_iter().collect(),
        figures,
    })
}

/// The most telling figures in a line.
fn summary(figures: &[Figure], traces: usize) -> String {
    let shown = [
        ("perspectives/mean", "perspectives"),
        ("conversational/question_answering/mean", "questions answered"),
        ("conversational/perspective_shift/mean", "shifts"),
        ("conversational/conflict/mean", "conflicts"),
        ("conversational/reconciliation/mean", "reconciliations"),
        ("cognitive/verification/mean", "verifications"),
        ("cognitive/backtracking/mean", "backtrackings"),
    ];
    let part = |(name, short): (&str, &str)| {
        let found = figures.iter().find(|figure| figure.name == name)?;
        Some(format!("{short} {:.2}", found.value))
    };
    let parts: Vec<String> = shown.into_iter().filter_map(part).collect();
    format!("per trace of {traces}: {}", parts.join(", "))
}
