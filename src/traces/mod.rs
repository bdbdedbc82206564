//! Where the rows of a warm start come from: a file, or our own solver.

mod file;
mod lengths;
mod stats;
mod task;
mod trace;

pub use stats::{Spread, Stats};
pub use trace::Trace;

use crate::bad;
use crate::env::Environment;
use crate::plan::Plan;
use crate::recipe::{Sft, SftData, SolverData, TraceStyle};
use crate::rng::{self, Purpose};
use crate::task::Split;
use crate::task::layout::after_open_think;
use crate::terminal;
use crate::text::persona::{Dialogue, merge_utterances};
use crate::train::batch::Sequence;
use crate::train::sft::Rows;
use anyhow::Result;
use file::{Found, Source};
use lengths::nearest;
use std::collections::HashSet;
use std::ops::Range;
use task::Tasks;

/// The rows of a warm start, and what they are like.
pub struct Prepared {
    pub rows: Rows,
    pub stats: Stats,
}

impl Prepared {
    /// Refuses to start PPO from rows that its reward cannot reward.
    ///
    /// # Errors
    /// Bad input: with PPO, a share of rows with an answer below `sft.min_answered`.
    pub fn check(&self, plan: &Plan, sft: &Sft) -> Result<()> {
        if plan.recipe.ppo.is_none() || self.stats.answered_share() >= sft.min_answered {
            return Ok(());
        }
        Err(bad!(
            "{}: PPO would start from a layout that cannot be rewarded\n\
             set sft.data.answer_tags = true or reward.dialogue_format = true, whichever is meant; or, if it is \
             meant so, lower sft.min_answered ({})",
            self.stats.verdict(),
            sft.min_answered
        ))
    }
}

/// Reads or writes the traces of `sft` and tokenises them; each response ends with the end-of-text token.
///
/// # Errors
/// Bad input: a file that cannot be read, too few rows, a row without prompt or response or with an end within it.
pub fn prepare(plan: &Plan, sft: &Sft, env: &Environment) -> Result<Prepared> {
    let (train, validation) =
        (read(plan, sft, env, Part::Train, sft.train)?, read(plan, sft, env, Part::Validation, sft.validation)?);
    let unreadable = train.unreadable.len();
    warn_of_unreadable(&[train.unreadable, validation.unreadable].concat());
    let (train, validation) = (train.traces, validation.traces);
    if sft.files().is_some() {
        warn_of_doubles(&train, &validation);
    }
    let mut changes = Changes::default();
    let mut tokenise = |traces: &[Trace]| -> Result<Vec<Sequence>> {
        traces.iter().map(|trace| sequence(trace, sft, env, &mut changes)).collect()
    };
    let rows = Rows { train: tokenise(&train)?, validation: tokenise(&validation)? };
    changes.warn(sft);
    let reward = &plan.recipe.reward;
    let stats = Stats::of(&train, &rows.train, (env, reward))?;
    let stats = Stats { validation_rows: validation.len(), unreadable, cut: changes.cut, ..stats };
    Ok(Prepared { rows, stats })
}

/// Rows to train on, or for the validation loss.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
}

/// The first `count` rows of a part: written by the solver, or read from the part's file if there is one.
fn read(plan: &Plan, sft: &Sft, env: &Environment, part: Part, count: usize) -> Result<Found> {
    let data = match &sft.data {
        None => return Ok(Found::default()),
        Some(SftData::Solver(solver)) => {
            let first = if part == Part::Train { 0 } else { sft.train };
            let traces = solver_traces(plan, sft, solver, env, first..first + count)?;
            return Ok(Found { traces, unreadable: vec![] });
        }
        Some(SftData::File(data)) => data,
    };
    let (path, partner, wanted) = match part {
        Part::Train => (Some(&data.path), &data.match_lengths, ("sft.train", sft.train)),
        Part::Validation => (data.validation.as_ref(), &data.match_validation, ("sft.validation", sft.validation)),
    };
    let Some(path) = path else { return Ok(Found::default()) };
    let tasks = Tasks::new(data, &env.tokenizer, &plan.tokenizer_dir)?;
    file::read(&Source { path, partner: partner.as_deref(), wanted }, count, &tasks, &plan.tokenizer_dir)
}

/// Says which rows cannot be read.
fn warn_of_unreadable(unreadable: &[String]) {
    const SHOWN: usize = 5;
    for message in unreadable.iter().take(SHOWN) {
        terminal::warn(&format!("warning: left out: {message}"));
    }
    if unreadable.len() > SHOWN {
        terminal::warn(&format!("warning: and {} more rows that cannot be read", unreadable.len() - SHOWN));
    }
}

/// How many rows are not as their source has them.
#[derive(Default)]
struct Changes {
    /// Cut at the context.
    cut: usize,
    /// Without what followed the end token.
    ends: usize,
}

impl Changes {
    fn warn(&self, sft: &Sft) {
        let Self { cut, ends } = self;
        if *cut > 0 {
            terminal::warn(&format!("warning: {cut} rows of the warm start were cut at sft.context = {}", sft.context));
        }
        if *ends > 0 {
            terminal::warn(&format!(
                "note: {ends} rows of the warm start had more end tokens or white space after their end token: left out"
            ));
        }
    }
}

/// Says how many rows a file has twice, or has in both splits.
fn warn_of_doubles(train: &[Trace], validation: &[Trace]) {
    let text = |trace: &Trace| (trace.prompt.clone(), trace.response.clone());
    let known: HashSet<_> = train.iter().map(text).collect();
    let twice = train.len() - known.len();
    let shared = validation.iter().filter(|trace| known.contains(&text(trace))).count();
    let rows = train.len();
    if twice > 0 {
        terminal::warn(&format!("warning: {twice} of the {rows} training rows of the warm start repeat others"));
    }
    if shared > 0 {
        let count = validation.len();
        terminal::warn(&format!(
            "warning: {shared} of the {count} validation rows of the warm start are training rows too"
        ));
    }
}

/// The first `count` training rows of the warm start as text: read, or written by the solver.
///
/// # Errors
/// As `prepare`.
pub fn traces(plan: &Plan, sft: &Sft, env: &Environment, count: usize) -> Result<Vec<Trace>> {
    let found = read(plan, sft, env, Part::Train, count)?;
    warn_of_unreadable(&found.unreadable);
    Ok(found.traces)
}

/// Rows that the task's solver writes, each with its own random stream.
fn solver_traces(
    plan: &Plan,
    sft: &Sft,
    solver: &SolverData,
    env: &Environment,
    rows: Range<usize>,
) -> Result<Vec<Trace>> {
    let seed = sft.seed.unwrap_or(plan.recipe.seed);
    let write = |row: usize| {
        let index = row % env.task.len(Split::Train);
        let prompt = env.prompt(Split::Train, index)?;
        let attempt = |solver: &SolverData, more: usize| {
            let mut rng = rng::stream(seed, Purpose::Traces, 0, row as u64);
            let response = env.task.trace(index, solver, more, &mut rng);
            let response =
                response.ok_or_else(|| bad!("the task {} has no solver to write traces", env.task.name()))?;
            match Dialogue::parse(&response) {
                Ok(dialogue) if solver.merge_utterances => Ok(merge_utterances(&dialogue, true)),
                _ => Ok(response),
            }
        };
        let response = if solver.match_lengths {
            let dialogue = attempt(&SolverData { style: TraceStyle::Dialogue, ..solver.clone() }, 0)?;
            let wanted = env.tokenizer.encode(&dialogue)?.len();
            nearest(&env.tokenizer, wanted, (0..).map(|more| attempt(solver, more)))?
        } else {
            attempt(solver, 0)?
        };
        let response = if prompt.opens_think { after_open_think(&response) } else { &response };
        Ok(Trace {
            response: response.to_string(),
            prompt: prompt.text,
            problem: env.task.variables(Split::Train, index).to_string(),
            index: Some(index),
            place: format!("the solver's row {row}"),
        })
    };
    rows.map(write).collect()
}

/// A trace as tokens: the response ends with one end token, whether or not its text has it.
fn sequence(trace: &Trace, sft: &Sft, env: &Environment, changes: &mut Changes) -> Result<Sequence> {
    let place = &trace.place;
    let prompt = env.tokenizer.encode_prompt(&trace.prompt)?;
    let mut response = env.tokenizer.encode(&trace.response)?;
    let whole = response.len();
    match response.iter().position(|id| env.ends.contains(id)) {
        None => response.push(env.end),
        Some(end) => {
            let after: Vec<i64> = response.drain(end + 1..).filter(|id| !env.ends.contains(id)).collect();
            if end == 0 || !env.tokenizer.decode(&after)?.trim().is_empty() {
                let end = env.tokenizer.list(&response[end..]);
                return Err(bad!("{place}: the response has the end token {end} before its text ends"));
            }
            changes.ends += usize::from(whole > response.len());
        }
    }
    if prompt.is_empty() || prompt.len() >= sft.context {
        let (length, context) = (prompt.len(), sft.context);
        return Err(bad!(
            "{place}: a prompt of {length} tokens leaves no room for a response in sft.context = {context}"
        ));
    }
    if prompt.len() + response.len() > sft.context {
        response.truncate(sft.context - prompt.len());
        changes.cut += 1;
    }
    Ok(Sequence { prompt: prompt.into(), response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use std::path::Path;

    /// The rows that the smoke recipe reads from a file with this response.
    fn read(response: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rows.jsonl");
        let row = serde_json::json!({ "prompt": "Numbers: 1 2", "response": response });
        std::fs::write(&file, row.to_string()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sets = [
            format!("model.path={:?}", root.join("checkpoints/countdown-base")),
            format!("sft={{ data = {{ kind = \"file\", path = {file:?} }}, train = 1, validation = 0, batch = 1 }}"),
            "sft.context=32".into(),
            "sft.min_answered=0".into(),
        ];
        let plan = plan::load(&root.join("recipes/smoke.toml"), &sets, None).map_err(|error| error.to_string())?;
        let env = Environment::of(&plan).map_err(|error| error.to_string())?;
        let prepared = prepare(&plan, plan.recipe.sft.as_ref().unwrap(), &env).map_err(|error| error.to_string())?;
        Ok(env.tokenizer.decode(&prepared.rows.train[0].response).unwrap())
    }

    #[test]
    fn a_response_has_one_end_token_at_its_end() {
        for text in ["1+2", "1+2<|endoftext|>", "1+2<|endoftext|>\n", "1+2<|endoftext|><|endoftext|>"] {
            assert_eq!(read(text).unwrap(), "1+2<|endoftext|>");
        }
        for text in ["<|endoftext|>", "1+2<|endoftext|>yes", "<|endoftext|>1+2"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("rows.jsonl, line 1: the response has the end token <|endoftext|> ("), "{error}");
        }
        let long = read(&"1+2 ".repeat(30)).unwrap();
        assert!(!long.ends_with("<|endoftext|>"), "{long}");
    }
}
