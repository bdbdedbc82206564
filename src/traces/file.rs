//! Rows of a warm start from files, in the layouts that people have.

use crate::rows::{self, Row, place};
use crate::text::chat_messages;
use crate::{OrBadInput, bad};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// What the model is shown, and what it should write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub prompt: String,
    pub response: String,
    /// Where it comes from, for messages.
    pub place: String,
}

/// The first `limit` rows of a file of which the recipe wants more: `wanted`, a key and its value.
///
/// # Errors
/// Bad input: those of `first_rows`; fewer rows than the recipe wants.
pub fn read(path: &Path, limit: usize, wanted: (&str, usize), tokenizer_dir: &Path) -> Result<Vec<Trace>> {
    let traces = first_rows(path, limit, &|messages| chat_messages(tokenizer_dir, messages)).bad_input()?;
    if traces.len() < limit {
        let (found, (key, count)) = (traces.len(), wanted);
        return Err(bad!(
            "{} has {found} rows, but the recipe asks for {count}: set {key} to at most {found}",
            path.display()
        ));
    }
    Ok(traces)
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
        let place = place(path, number);
        let trace = from_row(&row, chat).with_context(|| place.clone())?;
        Ok(Trace { place, ..trace })
    };
    let traces: Vec<_> = rows::read(path, &COLUMNS)?.take(limit).map(read).collect::<Result<_>>()?;
    if traces.is_empty() && limit > 0 {
        bail!("{} has no rows", path.display());
    }
    Ok(traces)
}

fn from_row(row: &Map<String, Value>, chat: &dyn Fn(&Value) -> Result<String>) -> Result<Trace> {
    // pandas writes what a row does not have as null.
    let column = |key: &str| row.get(key).filter(|value| !value.is_null());
    let one_of = |keys: [&'static str; 2]| match keys.map(|key| column(key).map(|value| (key, value))) {
        [Some(_), Some(_)] => bail!("both `{}` and `{}`: keep one of them", keys[0], keys[1]),
        [one, other] => Ok(one.or(other)),
    };
    let response = one_of(["response", "completion"])?;
    if let Some(messages) = column("messages") {
        ensure!(response.is_none(), "both `messages` and `{}`: keep one of them", response.map_or("", |(key, _)| key));
        let all = conversation("messages", messages)?;
        let (last, before) = all.split_last().context("key `messages` is empty")?;
        ensure!(!before.is_empty(), "key `messages` has one message only, so there is no prompt");
        return trace(chat(&before.into())?, answer("messages", last)?);
    }
    let (Some(prompt), Some((key, response))) = (column("prompt"), response) else {
        let found: Vec<String> = row.keys().map(|key| format!("`{key}`")).collect();
        bail!(
            "it has {}, expected `prompt` and `response` (or `completion`), or `messages` (docs/data.md)",
            if found.is_empty() { "no keys".into() } else { found.join(", ") }
        );
    };
    let response = if response.is_array() {
        match conversation(key, response)? {
            [one] => answer(key, one)?,
            several => bail!("key `{key}` has {} messages, expected one", several.len()),
        }
    } else {
        text(key, response)?
    };
    let prompt = if prompt.is_array() {
        conversation("prompt", prompt)?;
        chat(prompt)?
    } else {
        text("prompt", prompt)?
    };
    trace(prompt, response)
}

fn trace(prompt: String, response: String) -> Result<Trace> {
    Ok(Trace { prompt, response, place: String::new() })
}

/// A text that is not blank.
fn text(key: &str, value: &Value) -> Result<String> {
    let text = value.as_str().with_context(|| format!("key `{key}`: expected a string"))?;
    ensure!(!text.trim().is_empty(), "key `{key}` is empty");
    Ok(text.to_string())
}

/// A list of messages, each with a role that chat templates know and a text.
fn conversation<'a>(key: &str, messages: &'a Value) -> Result<&'a [Value]> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    let list = messages.as_array().with_context(|| format!("key `{key}`: expected a list of messages"))?;
    for (message, number) in list.iter().zip(1..) {
        let role = message["role"].as_str();
        let role = role.with_context(|| format!("key `{key}`, message {number}: it has no `role`"))?;
        let known = ROLES.join(", ");
        ensure!(ROLES.contains(&role), "key `{key}`, message {number}: the role `{role}` is not one of {known}");
        let content = &message["content"];
        ensure!(content.is_string(), "key `{key}`, message {number}, `content`: expected a string");
    }
    Ok(list)
}

/// The text of the assistant's message.
fn answer(key: &str, message: &Value) -> Result<String> {
    ensure!(message["role"] == "assistant", "key `{key}`: the last message is not the assistant's");
    text(&format!("{key}, content"), &message["content"])
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
        let trace = |prompt: &str, response: &str| Trace {
            prompt: prompt.into(),
            response: response.into(),
            place: format!("{}, line 1", path.display()),
        };
        assert_eq!(
            rows("{\"prompt\": \"a\", \"response\": \"b\\n\", \"id\": 1}\nnot read").unwrap(),
            [trace("a", "b\n")]
        );
        let user = r#"{"role": "user", "content": "a"}"#;
        let assistant = r#"{"role": "assistant", "content": "b"}"#;
        let chat = trace(&format!("<chat>[{}]", user.replace(": ", ":").replace(", ", ",")), "b");
        for row in [
            format!("{{\"messages\": [{user}, {assistant}]}}"),
            format!("{{\"prompt\": [{user}], \"completion\": [{assistant}]}}"),
        ] {
            assert_eq!(rows(&row).unwrap()[0], chat);
        }
        for row in [r#"{"prompt": "a", "completion": "b"}"#, r#"{"prompt": "a", "response": null, "completion": "b"}"#]
        {
            assert_eq!(rows(row).unwrap(), [trace("a", "b")]);
        }
        for (row, message) in [
            ("", "has no rows"),
            ("{\"messages\": []}", "line 1: key `messages` is empty"),
            ("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "so there is no prompt"),
            (
                "{\"conversations\": []}",
                "it has `conversations`, expected `prompt` and `response` (or `completion`), or",
            ),
            ("\n{\"prompt\": \"a\"}", "line 2: it has `prompt`, expected `prompt` and `response`"),
            ("{\"prompt\": \"a\", \"response\": \"b\", \"completion\": \"b\"}", "both `response` and `completion`"),
            ("{\"messages\": [{}], \"response\": \"b\"}", "both `messages` and `response`"),
            ("{\"messages\": [{\"content\": \"a\"}]}", "key `messages`, message 1: it has no `role`"),
            (
                "{\"prompt\": [{\"role\": \"human\", \"content\": \"a\"}], \"response\": \"b\"}",
                "message 1: the role `human` is not one of system,",
            ),
            (
                "{\"messages\": [{\"role\": \"user\", \"content\": [{\"text\": \"a\"}]}]}",
                "key `messages`, message 1, `content`: expected a string",
            ),
            (
                "{\"prompt\": \"a\", \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}, \
                  {\"role\": \"assistant\", \"content\": \"c\"}]}",
                "key `completion` has 2 messages, expected one",
            ),
            ("{\"prompt\": \"a\", \"response\": \" \\n\"}", "key `response` is empty"),
            ("{\"prompt\": \"a\", \"prompt\": \"b\"}", "the key `prompt` is there twice"),
            ("{\"prompt\": 1, \"response\": \"b\"}", "line 1: key `prompt`: expected a string"),
            ("{\"prompt\": \"a\", \"response\": \"\"}", "line 1: key `response` is empty"),
            ("a", "line 1: not valid JSON at column 1"),
        ] {
            let error = rows(row).unwrap_err();
            assert!(error.contains("traces.jsonl") && error.contains(message), "{error}");
        }
    }
}
