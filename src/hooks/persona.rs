//! Whether personas emerge: a judge reads responses to held-out problems. Each trace with its judgement is a line of
//! `traces.jsonl` in the job's folder.

use super::identity::of_responses;
use super::judges::{Panel, identities};
use super::outcome::Outcome;
use super::schedule::Job;
use crate::env::{Environment, Prompt};
use crate::json;
use crate::judge::{self, Embedder, Judge, Judgement, Refusal, Trace};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::{Decoding, Persona};
use crate::stats::{Figure, RESAMPLES};
use crate::task::{Split, in_words};
use crate::terminal;
use crate::train::evaluate::evaluate;
use crate::train::pulse::Pulse;
use crate::train::rollouts::Rollout;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// The file of judged traces.
pub const JUDGED: &str = "traces.jsonl";
/// The share of traces from which on a part that they lack is worth a warning.
const MANY: f64 = 0.1;

/// A trace with what was said about it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Judged {
    /// Of the problem in its split, which is the validation split in hooks.
    pub index: usize,
    pub problem: String,
    pub text: String,
    /// Length in tokens; absent, as all of the grade, if it is a text of a file, which nobody graded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Length in words that are said, of a text of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
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
    /// A trace with what a judge says about it, and nothing else.
    pub fn new(trace: Trace, judgement: Result<Judgement, Refusal>) -> Self {
        let Trace { problem, text } = trace;
        let (judgement, missing) = match judgement {
            Ok(judgement) => (Some(judgement), None),
            Err(Refusal(why)) => (None, Some(why)),
        };
        Self { problem, text, judgement, missing, ..Self::default() }
    }

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
    json::lines(&path, "a judged trace", |judged: &Judged| {
        judged.judgement.as_ref().map_or(Ok(()), |judgement| judgement.check(&judged.text))
    })
}

/// Lets the judge that `open` makes read the policy's responses, and writes them into `folder`. The policy is gone by
/// the time there is a judge, so that they need not fit side by side.
///
/// # Errors
/// Those of the judge; more traces are missing than the settings allow.
pub fn judge(
    plan: &Plan,
    settings: &Persona,
    (policy, pulse): (Policy, &Pulse),
    open: impl FnOnce() -> Result<Panel>,
    (job, folder): (&Job, &Path),
) -> Result<Outcome> {
    let env = Environment::of(plan)?;
    let evaluation = evaluate(&policy, plan, &env, Split::Validation, settings.traces, Decoding::Sampled, pulse)?;
    drop(policy);
    let (judge, embedder) = open()?;
    let responses: Vec<_> = evaluation.prompts.iter().zip(&evaluation.rollouts).collect();
    let mut judged = judged_by(judge.as_ref(), &env, &responses)?;
    let lacking = complete(&mut judged, embedder.as_ref(), settings.max_missing)?;
    write(&folder.join(JUDGED), &judged)?;
    let figures = judge::figures(&judged.iter().map(Judged::view).collect::<Vec<_>>(), RESAMPLES);
    let missing = lacking.traces;
    let summary = summary(&figures, judged.len());
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: identity(plan, settings)?,
        summary: missing.as_ref().map_or(summary.clone(), |missing| format!("{missing}; {summary}")),
        missing,
        notes: [notes(judge.as_ref(), embedder.as_ref()), lacking.parts].concat(),
        figures,
    })
}

/// Lets a judge read responses to problems, all of them in one call.
///
/// # Errors
/// Those of the judge.
pub fn judged_by(judge: &dyn Judge, env: &Environment, responses: &[(&Prompt, &Rollout)]) -> Result<Vec<Judged>> {
    let trace = |(prompt, rollout): &(&Prompt, &Rollout)| Trace {
        problem: in_words(&env.task.variables(prompt.split, prompt.index)),
        text: rollout.text.clone(),
    };
    let traces: Vec<Trace> = responses.iter().map(trace).collect();
    let judgements = judge.judge(&traces)?;
    let all = traces.into_iter().zip(responses).zip(judgements);
    let one = |((trace, (prompt, rollout)), judgement): ((Trace, &(&Prompt, &Rollout)), _)| {
        let grade = &rollout.grade;
        Judged {
            index: prompt.index,
            tokens: Some(rollout.sequence.response.len()),
            reward: Some(grade.reward),
            accuracy: Some(grade.accuracy),
            format: Some(grade.format),
            verdict: Some(grade.reason.clone()),
            ..Judged::new(trace, judgement)
        }
    };
    Ok(all.map(one).collect())
}

/// What a result depends on besides the checkpoint.
///
/// # Errors
/// Those of the judge, and a prompt template that cannot be read.
pub fn identity(plan: &Plan, settings: &Persona) -> Result<Value> {
    let (judge, embeddings) = identities(&settings.judge)?;
    let mut identity = of_responses(plan, Decoding::Sampled)?;
    identity.insert("judge".into(), judge);
    identity.insert("embeddings".into(), json!(embeddings));
    identity.insert("traces".into(), json!(settings.traces));
    Ok(identity.into())
}

/// What is not known about judged traces.
pub struct Lacking {
    /// How many of the traces, and why; none if all are judged.
    pub traces: Option<String>,
    /// A sentence for each part of a judgement that some of the others lack.
    pub parts: Vec<String>,
}

/// Gives traces the vectors of what their voices know, and counts what is missing.
///
/// # Errors
/// Those of the embedder; more than the share `most` of the traces, or every one, has no judgement at all.
pub fn complete(judged: &mut [Judged], embedder: Option<&Embedder>, most: f64) -> Result<Lacking> {
    let missing = judged.iter().filter(|trace| trace.judgement.is_none()).count();
    let first = judged.iter().find_map(|trace| trace.missing.clone()).unwrap_or_default();
    let (all, known) = (judged.len(), judged.len() - missing);
    let traces = (missing > 0).then(|| format!("{known} of {all} traces judged, {missing} missing: {first}"));
    if let Some(traces) = traces.as_ref().filter(|_| known == 0 || missing as f64 > most * all as f64) {
        let rule = format!("hooks.persona.max_missing is {most}");
        bail!("{traces} ({})", if known == 0 { "at least one must be judged" } else { &rule });
    }
    if let Some(embedder) = embedder {
        let judgements: Vec<_> = judged.iter().map(|trace| trace.judgement.as_ref()).collect();
        let vectors = embedder.expertise(&judgements)?;
        judged.iter_mut().zip(vectors).for_each(|(trace, vectors)| trace.embeddings = vectors);
    }
    let views: Vec<_> = judged.iter().map(Judged::view).collect();
    let said = judged.iter().filter_map(|trace| trace.judgement.as_ref());
    let part = |(part, count): (String, usize)| {
        let why = said.clone().flat_map(|j| &j.missing).find(|own| own.part == part).map(|own| own.why.clone());
        let sentence = format!("{part}: missing in {count} of {known} traces, first: {}", why.unwrap_or_default());
        let warning = if count as f64 > MANY * known as f64 { "warning: " } else { "" };
        format!("{warning}{sentence}")
    };
    let mut parts: Vec<String> = judge::metrics::missing_parts(&views).into_iter().map(part).collect();
    let cut = said.clone().filter(|judgement| !judgement.notes.is_empty());
    if let Some(note) = cut.clone().next().and_then(|judgement| judgement.notes.first()) {
        parts.push(format!("of {} of {known} traces not all is kept, first: {note}", cut.count()));
    }
    parts.iter().filter(|part| part.starts_with("warning")).for_each(|part| terminal::warn(part));
    Ok(Lacking { traces, parts })
}

/// What to know about a judge's figures: what it cannot see, and what it cost.
pub fn notes(judge: &dyn Judge, embedder: Option<&Embedder>) -> Vec<String> {
    let cost = |whose: &str, cost: Option<String>| cost.map(|cost| format!("{whose}: {cost}"));
    let blind = judge.cannot_see().map(str::to_string);
    let costs = [cost("the judge", judge.cost()), cost("embeddings", embedder.and_then(Embedder::cost))];
    blind.into_iter().chain(costs.into_iter().flatten()).collect()
}

/// Writes judged traces, a line each.
///
/// # Errors
/// They cannot be written.
pub fn write(path: &Path, judged: &[Judged]) -> Result<()> {
    let lines: Vec<String> = judged.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(std::fs::write(path, lines.join("\n") + "\n")?)
}

/// The most telling figures in a line.
pub fn summary(figures: &[Figure], traces: usize) -> String {
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
