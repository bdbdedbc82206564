//! Where the rows of a warm start come from: a file, or our own solver.

mod answers;
mod file;
mod lengths;
mod notes;
mod stats;
mod task;
mod tokens;
mod trace;

pub use file::trace_of;
pub use stats::{Spread, Stats, Unanswered};
pub use task::{Tasks, Unreadable};
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
use crate::train::sft::Rows;
use anyhow::Result;
use file::{Found, Source};
use lengths::{Measured, nearest};
use notes::{notes, warn_of_unreadable};
use std::ops::Range;
use tokens::{Changes, Row, tokenised};

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
        answers::check(&self.stats, &plan.recipe, sft)
    }
}

/// Reads or writes the traces of `sft` and tokenises them; each response ends with the end-of-text token.
///
/// # Errors
/// Bad input: a file that cannot be read, too few rows, a row without prompt or response or with an end within it.
pub fn prepare(plan: &Plan, sft: &Sft, env: &Environment) -> Result<Prepared> {
    let (prepared, notes) = noted(plan, sft, env)?;
    notes.iter().for_each(|note| terminal::warn(note));
    Ok(prepared)
}

/// `prepare`, with notes about what is odd in the rows.
fn noted(plan: &Plan, sft: &Sft, env: &Environment) -> Result<(Prepared, Vec<String>)> {
    let (train, validation) =
        (read(plan, sft, env, Part::Train, sft.train)?, read(plan, sft, env, Part::Validation, sft.validation)?);
    let unreadable = train.unreadable.len();
    warn_of_unreadable(&[train.unreadable, validation.unreadable].concat());
    let (train, validation) = (train.traces, validation.traces);
    if train.is_empty() {
        return Err(bad!("none of the {unreadable} training rows of the warm start can be read"));
    }
    let mut changes = Changes::default();
    let training = tokenised(&train, sft, env, &mut changes)?;
    let held_out = tokenised(&validation, sft, env, &mut changes)?;
    let stats = Stats::of(&train, &training, env, &plan.recipe.reward)?;
    let stats = Stats { validation_rows: held_out.len(), unreadable, ..stats };
    let tokens = |rows: Vec<Row>| rows.into_iter().map(|row| row.tokens).collect();
    let rows = Rows { train: tokens(training), validation: tokens(held_out) };
    let notes = notes(&rows, &train, sft, &changes, &stats);
    Ok((Prepared { rows, stats }, notes))
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
            let traces = solver_traces(plan, solver, env, first..first + count)?;
            return Ok(Found { traces, unreadable: vec![] });
        }
        Some(SftData::File(data)) => data,
    };
    let (path, partner, wanted) = match part {
        Part::Train => (Some(&data.path), &data.partner, ("sft.train", sft.train)),
        Part::Validation => (data.validation.as_ref(), &data.partner_validation, ("sft.validation", sft.validation)),
    };
    let Some(path) = path.filter(|_| count > 0) else { return Ok(Found::default()) };
    let tasks = Tasks::new(data, &env.tokenizer, &plan.tokenizer_dir)?;
    file::read(&Source { path, partner: partner.as_deref(), wanted }, count, &tasks, &plan.tokenizer_dir)
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
fn solver_traces(plan: &Plan, solver: &SolverData, env: &Environment, rows: Range<usize>) -> Result<Vec<Trace>> {
    let seed = plan.recipe.warm_start_seed();
    let write = |row: usize| {
        let index = row % env.task.len(Split::Train);
        let prompt = env.prompt(Split::Train, index)?;
        let attempt = |solver: &SolverData, more: usize| -> Result<String> {
            let mut rng = rng::stream(seed, Purpose::Traces, 0, row as u64);
            let response = env.task.trace(index, solver, more, &mut rng);
            let response =
                response.ok_or_else(|| bad!("the task {} has no solver to write traces", env.task.name()))?;
            let merged = |dialogue: Dialogue| merge_utterances(&dialogue, true);
            let merged = if solver.merge_utterances { Dialogue::parse(&response).ok().map(merged) } else { None };
            let response = merged.unwrap_or(response);
            Ok(if prompt.opens_think { after_open_think(&response).to_string() } else { response })
        };
        let mut wanted = None;
        let response = if solver.match_lengths {
            let dialogue = attempt(&SolverData { style: TraceStyle::Dialogue, ..solver.clone() }, 0)?;
            let tokens = env.tokenizer.encode(&dialogue)?.len();
            wanted = Some(tokens);
            let measured = |more| Measured::of(&env.tokenizer, attempt(solver, more)?);
            nearest(tokens, (0..).map(measured))?
        } else {
            attempt(solver, 0)?
        };
        Ok(Trace {
            response,
            prompt: prompt.text,
            problem: env.task.variables(Split::Train, index).to_string(),
            index: Some(index),
            wanted,
            place: format!("the solver's row {row}"),
            ..Trace::default()
        })
    };
    rows.map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use std::path::Path;

    /// What is read: responses, notes in lines, figures.
    type Read = (Vec<String>, String, Stats);

    /// What the smoke recipe reads from files with these prompts and responses.
    fn read_all(train: &[[&str; 2]], validation: &[[&str; 2]], sets: &[&str]) -> Result<Read, String> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[[&str; 2]]| {
            let line = |[prompt, response]: &[&str; 2]| {
                format!("{}\n", serde_json::json!({ "prompt": prompt, "response": response }))
            };
            std::fs::write(dir.path().join(name), rows.iter().map(line).collect::<String>()).unwrap();
            format!("{:?}", dir.path().join(name))
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let data = [write("rows.jsonl", train), write("validation.jsonl", validation)];
        let data = format!("data = {{ kind = 'file', path = {}, validation = {} }}", data[0], data[1]);
        let [rows, held_out] = [train.len(), validation.len()];
        let mut all = vec![
            format!("model.path={:?}", root.join("checkpoints/countdown-base")),
            format!("sft={{ {data}, train = {rows}, validation = {held_out}, batch = 1 }}"),
            "sft.context=32".into(),
            "sft.min_answered=0".into(),
        ];
        all.extend(sets.iter().map(ToString::to_string));
        let plan = plan::load(&root.join("recipes/smoke.toml"), &all, None).map_err(|error| error.to_string())?;
        let env = Environment::of(&plan).map_err(|error| error.to_string())?;
        let sft = plan.recipe.sft.as_ref().unwrap();
        let (Prepared { rows, stats }, notes) = noted(&plan, sft, &env).map_err(|error| error.to_string())?;
        let texts = rows.train.iter().map(|row| env.tokenizer.decode(&row.response).unwrap()).collect();
        Ok((texts, notes.join("\n"), stats))
    }

    fn read(response: &str) -> Result<String, String> {
        read_all(&[["Numbers: 1 2", response]], &[], &[]).map(|(texts, ..)| texts[0].clone())
    }

    #[test]
    fn a_response_has_one_end_token_at_its_end() {
        for text in ["1+2", "1+2<|endoftext|>", "1+2<|endoftext|>\n", "1+2<|endoftext|><|endoftext|>"] {
            assert_eq!(read(text).unwrap(), "1+2<|endoftext|>");
        }
        for (text, message) in [
            ("<|endoftext|>", "the response is blank before its end token <|endoftext|> ("),
            (" \n<|endoftext|>", "the response is blank before its end token <|endoftext|> ("),
            ("1+2<|endoftext|>yes", "the response has the end token <|endoftext|> ("),
            ("<|endoftext|>1+2", "the response has the end token <|endoftext|> ("),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!("rows.jsonl, line 1: {message}")), "{error}");
        }
        let long = read(&"1+2 ".repeat(30)).unwrap();
        assert!(!long.ends_with("<|endoftext|>"), "{long}");
    }

    #[test]
    fn a_prompt_does_not_end_the_text() {
        let error = read_all(&[["Numbers: 1 2<|endoftext|>", "1+2"]], &[], &[]).unwrap_err();
        assert!(error.contains("line 1: the prompt ends with the end token <|endoftext|> ("), "{error}");
        assert!(read_all(&[["1 2<|endoftext|>\nNumbers: 1 2", "1+2"]], &[], &[]).is_ok());
    }

    #[test]
    fn what_is_odd_about_rows_is_counted() {
        let [a, same, b] = [["a", "1"], ["a", "1<|endoftext|>"], ["b", "1"]];
        let (_, notes, _) = read_all(&[a, same, b], &[b, ["b", "2 "]], &[]).unwrap();
        assert_eq!(
            notes,
            "note: the training rows of the warm start repeat 1 row (of 3)\n\
             warning: the validation of the warm start shares 1 row (of 2) with its training"
        );
        let (_, notes, _) = read_all(&[a], &[b], &["sft.validation=0"]).unwrap();
        assert_eq!(notes, "note: sft.data.validation is not read, since sft.validation = 0");
        let long = "1+2 ".repeat(30);
        for (response, note) in [
            ("1<|endoftext|>\n", "note: 1 row of the warm start with more end tokens or white space after"),
            (long.as_str(), "warning: 1 row of the warm start cut at sft.context = 32"),
            ("1 stop 2", "note: 1 row of the warm start with text after a string of rollout.stop"),
            ("1 stop", ""),
            ("1 stop<|endoftext|>", ""),
        ] {
            let (_, notes, _) = read_all(&[["a", response]], &[b], &["rollout.stop=['stop']"]).unwrap();
            assert!(notes.starts_with(note) && notes.is_empty() == note.is_empty(), "{response}: {notes}");
        }
    }
    #[test]
    fn rows_are_graded_as_they_are_trained_on() {
        let whole = "<think>1+2</think>\n<answer>1+2</answer>";
        let long = whole.replace("1+2</think>", &format!("{}</think>", "1+2 ".repeat(30)));
        let (_, notes, stats) = read_all(&[["a", whole], ["b", &long]], &[["c", &long]], &[]).unwrap();
        assert_eq!(notes, "warning: 2 rows of the warm start cut at sft.context = 32");
        assert_eq!((stats.rows, stats.cut, stats.answered, stats.formatted), (2, 1, 1, 1));
        assert_eq!(stats.unanswered, Unanswered { context: 1, ..Unanswered::default() });
        // The tags of neither are words.
        assert_eq!(stats.words.fewest, 2);
        let (_, _, stats) = read_all(&[["a", whole], ["b", &long]], &[["c", &long]], &["sft.context=256"]).unwrap();
        assert_eq!((stats.cut, stats.answered, stats.unanswered), (0, 2, Unanswered::default()));
    }
}
