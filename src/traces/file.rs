//! Rows of a warm start from files, in the layouts that people have.

use super::task::{self, Tasks, Unreadable, has_trace};
use super::trace::Trace;
use crate::rows::{self, Row, place};
use crate::terminal::counted;
use crate::text::chat_messages;
use crate::{OrBadInput, bad};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// A file of rows, as the recipe names it.
pub struct Source<'a> {
    pub path: &'a Path,
    /// The file of the other arm, in the same order.
    pub partner: Option<&'a Path>,
    /// How many rows the recipe wants, and the key that says so.
    pub wanted: (&'static str, usize),
}

/// What a file holds.
#[derive(Default)]
pub struct Found {
    pub traces: Vec<Trace>,
    /// Why the others cannot be read, with their places.
    pub unreadable: Vec<String>,
}

/// The first `limit` rows of a file of which the recipe may want more.
///
/// # Errors
/// Bad input: those of `first_rows`; fewer rows than the recipe wants.
pub fn read(source: &Source, limit: usize, tasks: &Tasks, tokenizer_dir: &Path) -> Result<Found> {
    let Source { path, partner, wanted } = *source;
    let found = first_rows(path, limit, &|messages| chat_messages(tokenizer_dir, messages), (tasks, partner));
    let traces = found.bad_input()?;
    if traces.len() < limit {
        let (found, (key, count)) = (traces.len(), wanted);
        return Err(bad!(
            "{} has {}, but the recipe asks for {count}: set {key} to at most {found}",
            path.display(),
            counted(found, "row")
        ));
    }
    let mut found = Found::default();
    for trace in traces {
        match trace {
            Ok(trace) => found.traces.push(trace),
            Err(unreadable) => found.unreadable.push(unreadable),
        }
    }
    Ok(found)
}

/// The columns that may hold a row.
const COLUMNS: [&str; 4] = ["prompt", "response", "completion", "messages"];

/// Rows of tasks, and the file with their partners.
type Traces<'a> = (&'a Tasks<'a>, Option<&'a Path>);

/// The first `limit` rows of a JSONL or parquet file; other columns are ignored. `chat` renders messages up to where
/// the answer begins. The layouts:
///
/// - `messages`: a conversation, whose last message is the response; a `prompt` beside it is ignored;
/// - `prompt` and `response`, or `prompt` and `completion`: two strings, or two lists of messages as TRL has them;
/// - `task`, `answer` and `dialogue` or `monologue`: see `Tasks`.
///
/// # Errors
/// A file that cannot be read or has no rows; a row in another layout, or with an empty part, with file, row and key.
fn first_rows(
    path: &Path,
    limit: usize,
    chat: &dyn Fn(&Value) -> Result<String>,
    (tasks, partner): Traces,
) -> Result<Vec<Result<Trace, String>>> {
    let columns = [COLUMNS.as_slice(), &task::COLUMNS].concat();
    let mut partners = partner.map(|path| rows::read(path, &columns)).transpose()?;
    let read = |row: Result<Row>| {
        let (number, row) = row?;
        let place = place(path, number);
        let partner = match &mut partners {
            None => None,
            Some(rows) => Some(rows.next().with_context(|| format!("{place}: the partner's file has no such row"))??.1),
        };
        match trace_of(&row, partner.as_ref(), chat, tasks) {
            Ok(trace) => Ok(Ok(Trace { place, ..trace })),
            Err(error) if error.is::<Unreadable>() => Ok(Err(format!("{place}: {error:#}"))),
            Err(error) => Err(error.context(place)),
        }
    };
    let traces: Vec<_> = rows::read(path, &columns)?.take(limit).map(read).collect::<Result<_>>()?;
    if traces.is_empty() && limit > 0 {
        bail!("{} has no rows", path.display());
    }
    Ok(traces)
}

/// The trace of a row in any of the layouts, as long as that of its `partner` if the recipe says so.
///
/// # Errors
/// `Unreadable`: a model's trace whose tags cannot be read. Else: another layout, or an empty part, with the key.
pub fn trace_of(
    row: &Map<String, Value>,
    partner: Option<&Map<String, Value>>,
    chat: &dyn Fn(&Value) -> Result<String>,
    tasks: &Tasks,
) -> Result<Trace> {
    if has_trace(row) { tasks.trace(row, partner) } else { from_row(row, chat) }
}

fn from_row(row: &Map<String, Value>, chat: &dyn Fn(&Value) -> Result<String>) -> Result<Trace> {
    // pandas writes what a row does not have as null.
    let column = |key: &'static str| row.get(key).filter(|value| !value.is_null()).map(|value| (key, value));
    let response = match (column("response"), column("completion")) {
        (Some(_), Some(_)) => bail!("both `response` and `completion`: keep one of them"),
        (one, other) => one.or(other),
    };
    match (column("messages"), column("prompt"), response) {
        (Some(_), _, Some((key, _))) => bail!("both `messages` and `{key}`: keep one of them"),
        (Some((key, messages)), _, None) => {
            let all = conversation(key, messages)?;
            let (answer, before) = all.split_last().with_context(|| format!("key `{key}` is empty"))?;
            ensure!(!before.is_empty(), "key `{key}` has one message only, so there is no prompt");
            dialogue(key, before, (key, answer), chat)
        }
        (None, Some((_, prompt)), Some((key, response))) => match (prompt.is_array(), response.is_array()) {
            (true, true) => match conversation(key, response)? {
                [answer] => dialogue("prompt", conversation("prompt", prompt)?, (key, answer), chat),
                several => bail!("key `{key}` has {}, expected one", counted(several.len(), "message")),
            },
            (false, false) => trace(text("key `prompt`", prompt)?, text(&format!("key `{key}`"), response)?),
            _ => bail!("`prompt` and `{key}` are a text and a list of messages: expected two texts or two lists"),
        },
        _ => bail!(without_layout(row)),
    }
}

/// Why a row has none of the layouts.
fn without_layout(row: &Map<String, Value>) -> String {
    let found: Vec<String> = row.keys().map(|key| format!("`{key}`")).collect();
    let columns = COLUMNS.iter().chain(&task::COLUMNS);
    if let Some(key) = columns.into_iter().find(|key| row.get(**key).is_some_and(Value::is_null)) {
        return format!("key `{key}` is null");
    }
    format!(
        "it has {}, expected `prompt` and `response` (or `completion`), `messages`, or `task`, `answer` and `dialogue` \
         or `monologue` (docs/data.md)",
        if found.is_empty() { "no keys".into() } else { found.join(", ") }
    )
}

fn trace(prompt: String, response: String) -> Result<Trace> {
    Ok(Trace { problem: prompt.clone(), prompt, response, ..Trace::default() })
}

/// The trace of a conversation: the messages `before` the answer, in the column `key`, and the answer, with its column.
fn dialogue(
    key: &str,
    before: &[Value],
    (column, answer): (&str, &Value),
    chat: &dyn Fn(&Value) -> Result<String>,
) -> Result<Trace> {
    let roles: Vec<&Value> = before.iter().chain([answer]).map(|message| &message["role"]).collect();
    ensure!(answer["role"] == "assistant", "key `{column}`: the last message is not the assistant's");
    ensure!(!before.is_empty(), "key `{key}` is empty");
    ensure!(roles.iter().any(|role| **role == "user"), "key `{key}` has no message of the user's");
    ensure!(
        roles.windows(2).all(|pair| *pair[0] != "assistant" || pair[0] != pair[1]),
        "key `{key}`: two messages of the assistant's follow each other"
    );
    trace(chat(&before.into())?, text(&format!("key `{column}`, the last message, `content`"), &answer["content"])?)
}

/// A text that is not blank, of which messages say `what`.
fn text(what: &str, value: &Value) -> Result<String> {
    ensure!(!value.is_null(), "{what} is null");
    let text = value.as_str().with_context(|| format!("{what}: expected a string"))?;
    ensure!(!text.trim().is_empty(), "{what} is blank");
    Ok(text.to_string())
}

/// A list of messages, each with a role that chat templates know and a text.
fn conversation<'a>(key: &str, messages: &'a Value) -> Result<&'a [Value]> {
    let list = messages.as_array().with_context(|| format!("key `{key}`: expected a list of messages"))?;
    for (message, number) in list.iter().zip(1..) {
        check_message(message, &format!("key `{key}`, message {number}"))?;
    }
    Ok(list)
}

/// Checks a message, which messages to the user call `what`.
fn check_message(message: &Value, what: &str) -> Result<()> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    let role = message["role"].as_str().with_context(|| format!("{what}: it has no `role`"))?;
    ensure!(ROLES.contains(&role), "{what}: the role `{role}` is not one of {}", ROLES.join(", "));
    let calls = &message["tool_calls"];
    let none = calls.is_null() || calls.as_array().is_some_and(Vec::is_empty);
    ensure!(none, "{what}: `tool_calls` are not supported, a message is a text");
    // A tool may say nothing, and chat templates take an empty system message for none.
    let may_be_blank = !["user", "assistant"].contains(&role) && message["content"].is_string();
    if !may_be_blank {
        text(&format!("{what}, `content`"), &message["content"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::FileData;
    use crate::text::Tokenizer;

    /// The first row of a file with this text.
    fn first_row(path: &Path, text: &str, chat: &dyn Fn(&Value) -> Result<String>) -> Result<Vec<Trace>, String> {
        std::fs::write(path, text).unwrap();
        let data: FileData = toml::from_str("path = 'x'").unwrap();
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(&base).unwrap();
        let tasks = Tasks::new(&data, &tokenizer, &base).unwrap();
        let rows = first_rows(path, 1, chat, (&tasks, None)).map_err(|error| format!("{error:#}"))?;
        rows.into_iter().collect()
    }

    #[test]
    fn rows_are_read_or_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("traces.jsonl");
        let chat = |messages: &Value| Ok(format!("<chat>{messages}"));
        let rows = |text: &str| first_row(&path, text, &chat);
        let trace = |prompt: &str, response: &str| Trace {
            prompt: prompt.into(),
            response: response.into(),
            problem: prompt.into(),
            index: None,
            wanted: None,
            taggable: false,
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
            format!("{{\"prompt\": \"x\", \"messages\": [{user}, {assistant}], \"response\": null}}"),
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
                "it has `conversations`, expected `prompt` and `response` (or `completion`), `messages`, or `task`",
            ),
            ("\n{\"prompt\": \"a\"}", "line 2: it has `prompt`, expected `prompt` and `response`"),
            ("{\"prompt\": \"a\", \"response\": \"b\", \"completion\": \"b\"}", "both `response` and `completion`"),
            ("{\"messages\": [{}], \"response\": \"b\"}", "both `messages` and `response`"),
            ("{\"messages\": [{\"content\": \"a\"}]}", "key `messages`, message 1: it has no `role`"),
            (
                "{\"prompt\": [{\"role\": \"human\", \"content\": \"a\"}], \"response\": []}",
                "key `response` has 0 messages, expected one",
            ),
            (
                "{\"messages\": [{\"role\": \"human\", \"content\": \"a\"}]}",
                "message 1: the role `human` is not one of system,",
            ),
            (
                "{\"messages\": [{\"role\": \"user\", \"content\": [{\"text\": \"a\"}]}]}",
                "key `messages`, message 1, `content`: expected a string",
            ),
            ("{\"prompt\": \"a\", \"response\": null}", "key `response` is null"),
            ("{\"prompt\": \"a\", \"completion\": []}", "`prompt` and `completion` are a text and a list of messages"),
            ("{\"prompt\": [], \"response\": \"b\"}", "`prompt` and `response` are a text and a list of messages"),
            ("{\"prompt\": \"a\", \"response\": \" \\n\"}", "key `response` is blank"),
            ("{\"prompt\": \"a\", \"prompt\": \"b\"}", "the key `prompt` is there twice"),
            ("{\"prompt\": 1, \"response\": \"b\"}", "line 1: key `prompt`: expected a string"),
            ("{\"prompt\": \"a\", \"response\": \"\"}", "line 1: key `response` is blank"),
            ("a", "line 1: not valid JSON at column 1"),
        ] {
            let error = rows(row).unwrap_err();
            assert!(error.contains("traces.jsonl") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn conversations_are_the_users_and_the_assistants_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("traces.jsonl");
        let read = |row: String| first_row(&path, &row, &|_| Ok("chat".into()));
        let message = |role: &str, content: &str| format!(r#"{{"role": "{role}", "content": {content}}}"#);
        let [user, yes] = ["user", "assistant"].map(|role| message(role, "\"a\""));
        for good in [
            format!("{user}, {yes}, {user}, {yes}"),
            format!("{}, {user}, {yes}", message("system", "\"\"")),
            format!("{user}, {yes}, {}, {yes}", message("tool", "\"\"")),
            format!(r#"{user}, {{"role": "assistant", "content": "a", "tool_calls": []}}"#),
        ] {
            assert_eq!(read(format!("{{\"messages\": [{good}]}}")).unwrap().len(), 1, "{good}");
        }
        for (messages, part) in [
            (format!("{}, {yes}", message("user", "\" \"")), "key `messages`, message 1, `content` is blank"),
            (format!("{user}, {}", message("assistant", "null")), "key `messages`, message 2, `content` is null"),
            (format!("{}, {yes}", message("system", "\"a\"")), "key `messages` has no message of the user's"),
            (format!("{user}, {yes}, {yes}"), "key `messages`: two messages of the assistant's follow each other"),
            (format!("{user}, {user}"), "key `messages`: the last message is not the assistant's"),
            (
                format!(r#"{user}, {{"role": "assistant", "content": "a", "tool_calls": [{{"id": 1}}]}}"#),
                "key `messages`, message 2: `tool_calls` are not supported",
            ),
        ] {
            let error = read(format!("{{\"messages\": [{messages}]}}")).unwrap_err();
            assert!(error.contains(part), "{messages}: {error}");
        }
        for (prompt, completion, part) in [
            (String::new(), &yes, "key `prompt` is empty"),
            (format!("{user}, {yes}"), &yes, "key `prompt`: two messages of the assistant's follow each other"),
            (user.clone(), &user, "key `completion`: the last message is not the assistant's"),
            (user.clone(), &format!("{yes}, {yes}"), "key `completion` has 2 messages, expected one"),
        ] {
            let error = read(format!("{{\"prompt\": [{prompt}], \"completion\": [{completion}]}}")).unwrap_err();
            assert!(error.contains(part), "{prompt}, {completion}: {error}");
        }
    }
}
