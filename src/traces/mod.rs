//! Where the rows of a warm start come from: a file, or our own solver.

use crate::env::Environment;
use crate::plan::Plan;
use crate::recipe::{Sft, SftData, SolverData};
use crate::rng::{self, Purpose};
use crate::rows::{self, Row, place};

use crate::task::Split;
use crate::task::layout::after_open_think;
use crate::text::chat_messages;
use crate::train::batch::Sequence;
use crate::train::sft::Rows;
use crate::{OrBadInput, bad};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// Reads or writes the traces of `sft` and tokenises them; each response ends with the end-of-text token.
///
/// # Errors
/// Bad input: a file that cannot be read, too few rows, a row without prompt or response.
pub fn rows(plan: &Plan, sft: &Sft, env: &Environment) -> Result<Rows> {
    let mut cut = 0;
    let mut tokenise = |traces: Vec<Trace>| -> Result<Vec<Sequence>> {
        traces.iter().map(|trace| sequence(trace, sft, env, &mut cut)).collect()
    };
    let train = tokenise(traces(plan, sft, env, sft.train)?)?;
    let validation = tokenise(match &sft.data {
        SftData::Solver(solver) => solver_traces(plan, solver, env, sft.train..sft.train + sft.validation)?,
        SftData::File(file) => match &file.validation {
            Some(path) => read(path, sft.validation, &plan.tokenizer_dir)?,
            None => vec![],
        },
    })?;
    Ok(Rows { train, validation, cut })
}

/// The first `count` training rows of the warm start as text: read, or written by the solver.
///
/// # Errors
/// As `rows`.
pub fn traces(plan: &Plan, sft: &Sft, env: &Environment, count: usize) -> Result<Vec<Trace>> {
    match &sft.data {
        SftData::Solver(solver) => solver_traces(plan, solver, env, 0..count),
        SftData::File(file) => read(&file.path, count, &plan.tokenizer_dir),
    }
}

/// Rows that the task's solver writes, each with its own random stream.
fn solver_traces(plan: &Plan, solver: &SolverData, env: &Environment, rows: Range<usize>) -> Result<Vec<Trace>> {
    let write = |row: usize| {
        let index = row % env.task.len(Split::Train);
        let prompt = env.prompt(Split::Train, index)?;
        let mut rng = rng::stream(plan.recipe.seed, Purpose::Traces, 0, row as u64);
        let response = env.task.trace(index, solver, &mut rng);
        let response = response.ok_or_else(|| bad!("the task {} has no solver to write traces", env.task.name()))?;
        let response = if prompt.opens_think { after_open_think(&response) } else { &response };
        Ok(Trace { response: response.to_string(), prompt: prompt.text })
    };
    rows.map(write).collect()
}

fn read(path: &Path, count: usize, tokenizer_dir: &Path) -> Result<Vec<Trace>> {
    let traces = first_rows(path, count, &|messages| chat_messages(tokenizer_dir, messages)).bad_input()?;
    if traces.len() < count {
        let found = traces.len();
        return Err(bad!("{} has {found} rows, but the recipe asks for {count}", path.display()));
    }
    Ok(traces)
}

fn sequence(trace: &Trace, sft: &Sft, env: &Environment, cut: &mut usize) -> Result<Sequence> {
    let prompt = env.tokenizer.encode_prompt(&trace.prompt)?;
    let mut response = env.tokenizer.encode(&trace.response)?;
    if response.last() != Some(&env.end) {
        response.push(env.end);
    }
    if prompt.is_empty() || prompt.len() >= sft.context {
        let (length, context) = (prompt.len(), sft.context);
        return Err(bad!("a prompt of {length} tokens leaves no room for a response in sft.context = {context}"));
    }
    if prompt.len() + response.len() > sft.context {
        response.truncate(sft.context - prompt.len());
        *cut += 1;
    }
    Ok(Sequence { prompt: prompt.into(), response })
}

/// What the model is shown, and what it should write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub prompt: String,
    pub response: String,
}

/// The columns that may hold a row.
const COLUMNS: [&str; 4] = ["prompt", "response", "completion", "messages"];

/// The first `limit` rows of a JSONL or parquet file; other columns are ignored. `chat` renders messages up to where
/// the answer begins. The layouts:
///
/// - `prompt` and `response`, or `prompt` and `completion`: two strings, or two lists of messages as TRL has them;
/// - `messages`: a conversation, whose last message is the response.
///
/// # Errors
/// A file that cannot be read or has no rows; a row in another layout, or with an empty part, with file, row and key.
fn first_rows(path: &Path, limit: usize, chat: &dyn Fn(&Value) -> Result<String>) -> Result<Vec<Trace>> {
    let read = |row: Result<Row>| {
        let (number, row) = row?;
        from_row(&row, chat).with_context(|| place(path, number))
    };
    let traces: Vec<_> = rows::read(path, &COLUMNS)?.take(limit).map(read).collect::<Result<_>>()?;
    if traces.is_empty() && limit > 0 {
        bail!("{} has no rows", path.display());
    }
    Ok(traces)
}

fn from_row(row: &Map<String, Value>, chat: &dyn Fn(&Value) -> Result<String>) -> Result<Trace> {
    let text = |key: &str, value: &Value| {
        let text = value.as_str().with_context(|| format!("key `{key}`: expected a string"))?;
        ensure!(!text.is_empty(), "key `{key}` is empty");
        Ok(text.to_string())
    };
    // The text of the single message of a list.
    let content = |key: &str, message: Option<&Value>| {
        let message = message.with_context(|| format!("key `{key}` is empty"))?;
        ensure!(message["role"] == "assistant", "key `{key}`: the last message is not the assistant's");
        text(&format!("{key}, content"), &message["content"])
    };
    if let Some(messages) = row.get("messages") {
        let messages = messages.as_array().context("key `messages`: expected a list")?;
        let (last, before) = messages.split_last().context("key `messages` is empty")?;
        ensure!(!before.is_empty(), "key `messages` has one message only, so there is no prompt");
        return Ok(Trace { prompt: chat(&before.into())?, response: content("messages", Some(last))? });
    }
    let prompt = row.get("prompt").context("missing key `prompt`, or `messages`")?;
    let (key, response) = ["response", "completion"]
        .into_iter()
        .find_map(|key| Some((key, row.get(key)?)))
        .context("missing key `response`, or `completion`")?;
    let response = match response.as_array() {
        Some(messages) => content(key, messages.last())?,
        None => text(key, response)?,
    };
    let prompt = if prompt.is_array() { chat(prompt)? } else { text("prompt", prompt)? };
    Ok(Trace { prompt, response })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_or_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("traces.jsonl");
        let rows = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let chat = |messages: &Value| Ok(format!("<chat>{messages}"));
            first_rows(&path, 1, &chat).map_err(|error| format!("{error:#}"))
        };
        let trace = Trace { prompt: "a".into(), response: "b\n".into() };
        assert_eq!(rows("{\"prompt\": \"a\", \"response\": \"b\\n\", \"id\": 1}\nnot read").unwrap(), [trace]);
        let user = r#"{"role": "user", "content": "a"}"#;
        let assistant = r#"{"role": "assistant", "content": "b"}"#;
        let chat =
            Trace { prompt: format!("<chat>[{}]", user.replace(": ", ":").replace(", ", ",")), response: "b".into() };
        for row in [
            format!("{{\"messages\": [{user}, {assistant}]}}"),
            format!("{{\"prompt\": [{user}], \"completion\": [{assistant}]}}"),
        ] {
            assert_eq!(rows(&row).unwrap()[0], chat);
        }
        let plain = Trace { prompt: "a".into(), response: "b".into() };
        assert_eq!(rows(r#"{"prompt": "a", "completion": "b"}"#).unwrap(), [plain]);
        for (row, message) in [
            ("", "has no rows"),
            ("{\"messages\": []}", "line 1: key `messages` is empty"),
            ("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "so there is no prompt"),
            ("{\"text\": \"a\"}", "missing key `prompt`, or `messages`"),
            ("\n{\"prompt\": \"a\"}", "line 2: missing key `response`, or `completion`"),
            ("{\"prompt\": 1, \"response\": \"b\"}", "line 1: key `prompt`: expected a string"),
            ("{\"prompt\": \"a\", \"response\": \"\"}", "line 1: key `response` is empty"),
            ("a", "line 1: not valid JSON at column 1"),
        ] {
            let error = rows(row).unwrap_err();
            assert!(error.contains("traces.jsonl") && error.contains(message), "{error}");
        }
    }
}
