//! The problem file: what to ask, and what is right.
//!
//! A row has `task` (or `question`, `problem`) and `answer`, perhaps `choices` (or `options`) and `kind`; or it is a
//! Countdown problem, in any layout that the recipes read, which gets its task from us. `pid` or `id` names it,
//! otherwise its place in the file. A bad row is an error with its file, row and column.

use super::grading::{Kind, Right};
use crate::OrBadInput;
use crate::hash::hash_of_files;
use crate::recipe::spelling::nearest;
use crate::rows::{self, place};
use crate::task::countdown;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

const TASKS: [&str; 3] = ["task", "question", "problem"];
const CHOICES: [&str; 2] = ["choices", "options"];
const NAMES: [&str; 2] = ["pid", "id"];

/// Something to solve.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub pid: String,
    /// As the teacher is shown it, with its choices.
    pub task: String,
    /// The right answer as the file has it; of Countdown, the target.
    pub answer: String,
    pub right: Right,
}

/// A problem file that was read.
pub struct Problems {
    /// Each once.
    pub all: Vec<Arc<Problem>>,
    /// Rows that were left out, since an earlier one is the same problem.
    pub repeated: usize,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
}

/// Reads a problem file, the first `limit` problems at most; without `kind`, a row's own column or else the form of its
/// answer decides how it is graded. A problem that is there twice could be in both splits: its first row counts.
///
/// # Errors
/// Bad input: a file that cannot be read or has no rows; a row without task or answer, with an answer that is not of
/// its kind, or with the name of an earlier row.
pub fn read(path: &Path, limit: usize, kind: Option<Kind>) -> Result<Problems> {
    let columns = [&TASKS[..], &CHOICES, &NAMES, &["answer", "kind"], &countdown::COLUMNS].concat();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (mut names, mut known) = (HashSet::new(), HashSet::new());
    let (mut all, mut repeated) = (vec![], 0);
    let mut read = || -> Result<()> {
        for row in rows::read(path, &columns)? {
            let (number, row) = row?;
            let problem = problem_of(&row, &format!("{stem}/{number}"), kind).with_context(|| place(path, number))?;
            ensure!(names.insert(problem.pid.clone()), "{}: a second `{}`", place(path, number), problem.pid);
            match known.insert(problem.same()) {
                true => all.push(Arc::new(problem)),
                false => repeated += 1,
            }
            if all.len() >= limit {
                break;
            }
        }
        Ok(())
    };
    read().bad_input()?;
    if all.is_empty() {
        return Err(anyhow!("{} has no rows", path.display())).bad_input();
    }
    let sha256 = hash_of_files([path]).with_context(|| format!("{} cannot be read", path.display())).bad_input()?;
    Ok(Problems { all, repeated, sha256 })
}

impl Problem {
    /// What the rows of one problem have in common: its task and its answer; of Countdown the numbers, in any order.
    fn same(&self) -> (String, String) {
        let task = match &self.right {
            Right::Countdown(problem) => of_countdown(problem.canonical(), String::new()).task,
            _ => self.task.clone(),
        };
        (task, self.answer.trim().to_string())
    }
}

fn problem_of(row: &Map<String, Value>, place: &str, kind: Option<Kind>) -> Result<Problem> {
    let pid = match column(row, &NAMES) {
        Some((_, name)) => scalar(name).context("column `pid`: expected a string or a number")?,
        None => place.to_string(),
    };
    let kind = match (kind, row.get("kind").filter(|kind| !kind.is_null())) {
        (Some(kind), _) => Some(kind),
        (None, Some(own)) => Some(kind_named(own)?),
        (None, None) => None,
    };
    let is_countdown = row.contains_key("target") || row.contains_key("reward_model");
    if kind == Some(Kind::Countdown) || kind.is_none() && is_countdown {
        return Ok(of_countdown(countdown::problem_of(row)?, pid));
    }
    let (name, task) = column(row, &TASKS).context("missing column `task` (or `question`, `problem`)")?;
    let task = task.as_str().with_context(|| format!("column `{name}`: expected a string"))?.trim();
    ensure!(!task.is_empty(), "column `{name}` is empty");
    let choices = column(row, &CHOICES).map_or(Ok(vec![]), |(name, choices)| texts(name, choices))?;
    let given = row.get("answer").filter(|answer| !answer.is_null()).context("missing column `answer`")?;
    let answer = answer_of(given, &choices).context("column `answer`: expected a string or a number")?;
    ensure!(!answer.trim().is_empty(), "column `answer` is empty");
    let default = if choices.is_empty() { Kind::of_answer(&answer) } else { Kind::Choice };
    let right = Right::of(kind.unwrap_or(default), &answer, &choices).context("column `answer`")?;
    let listed: String = ('A'..='Z').zip(&choices).map(|(letter, text)| format!("\n({letter}) {text}")).collect();
    Ok(Problem { pid, task: format!("{task}{listed}"), answer, right })
}

fn of_countdown(problem: countdown::Problem, pid: String) -> Problem {
    let numbers: Vec<String> = problem.nums.iter().map(i64::to_string).collect();
    let (numbers, target) = (numbers.join(", "), problem.target);
    let task = format!(
        "Make {target} from the numbers {numbers}. Use each of them exactly once, with +, -, * and / and with \
         parentheses where you need them. The answer is one expression without an equals sign."
    );
    Problem { pid, task, answer: target.to_string(), right: Right::Countdown(problem) }
}

/// The first of these columns that a row has.
fn column<'a>(row: &'a Map<String, Value>, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    names.iter().find_map(|name| Some((*name, row.get(*name).filter(|value| !value.is_null())?)))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(if *value { "True" } else { "False" }.into()),
        _ => None,
    }
}

fn kind_named(name: &Value) -> Result<Kind> {
    let name = name.as_str().context("column `kind`: expected a string")?;
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) {
        return Ok(kind);
    }
    let hint =
        nearest(name, Kind::ALL.map(Kind::name)).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    bail!("column `kind`: there is no kind `{name}`{hint}")
}

/// The texts of the choices: a list, or lists `text` and `label` as some public sets have them.
fn texts(name: &str, choices: &Value) -> Result<Vec<String>> {
    let list = choices.get("text").unwrap_or(choices).as_array();
    let texts = list.and_then(|list| list.iter().map(scalar).collect::<Option<Vec<_>>>());
    let texts = texts.with_context(|| format!("column `{name}`: expected a list of strings"))?;
    ensure!((2..=26).contains(&texts.len()), "column `{name}`: {} choices, expected 2 to 26", texts.len());
    Ok(texts)
}

/// The answer's text; with choices, their index from 0 and the text of one of them are turned into its letter.
fn answer_of(answer: &Value, choices: &[String]) -> Option<String> {
    let at = match answer {
        Value::Number(index) => index.as_u64().map(|index| index as usize).filter(|index| *index < choices.len()),
        Value::String(text) => choices.iter().position(|choice| choice == text),
        _ => None,
    };
    match at {
        Some(at) => Some(char::from(b'A' + at as u8).to_string()),
        None => scalar(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, kind: Option<Kind>) -> Result<Vec<Arc<Problem>>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path, 10, kind).map(|problems| problems.all).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_are_problems_of_their_kind() {
        let text = r#"{"pid": "a/1", "task": "1 + 1?", "answer": 2}
            {"question": "Which holds tea?", "choices": ["a plate", "a cup"], "answer": 1, "id": 7}
            {"problem": "Is it so?", "answer": "Yes", "kind": null}
            {"question": "Which?", "options": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": "y"}
            {"target": 67, "nums": [5, 7, 12]}
            {"task": "Name it", "answer": "12", "kind": "exact"}"#;
        let rows = rows(text, None).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.pid.as_str(), row.answer.as_str(), row.right.kind())).collect();
        let expected = [
            ("a/1", "2", Kind::Number),
            ("7", "B", Kind::Choice),
            ("set/3", "Yes", Kind::Exact),
            ("set/4", "B", Kind::Choice),
            ("set/5", "67", Kind::Countdown),
            ("set/6", "12", Kind::Exact),
        ];
        assert_eq!(seen, expected);
        assert_eq!(rows[1].task, "Which holds tea?\n(A) a plate\n(B) a cup");
        assert!(rows[4].task.starts_with("Make 67 from the numbers 5, 7, 12."), "{}", rows[4].task);
    }

    #[test]
    fn a_problem_that_is_there_twice_is_read_once() {
        let text = r#"{"task": "1 + 1?", "answer": 2}
            {"task": " 1 + 1?", "answer": "2 "}
            {"task": "1 + 1?", "answer": 3}
            {"nums": [5, 7, 12], "target": 67}
            {"nums": [12, 5, 7], "target": 67}
            {"nums": [12, 5, 7], "target": 68}
            {"task": "1 + 1?", "answer": 2}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.jsonl");
        std::fs::write(&path, text).unwrap();
        let names = |limit: usize| {
            let Problems { all, repeated, .. } = read(&path, limit, None).unwrap();
            (all.iter().map(|problem| problem.pid.clone()).collect::<Vec<_>>().join(" "), repeated)
        };
        assert_eq!(names(9), ("set/1 set/3 set/4 set/6".to_string(), 3));
        // A limit is one of problems.
        assert_eq!(names(2), ("set/1 set/3".to_string(), 1));
    }

    #[test]
    fn bad_rows_say_what_is_wrong() {
        for (row, kind, message) in [
            ("", None, "set.jsonl has no rows"),
            (r#"{"answer": "a"}"#, None, "line 1: missing column `task` (or `question`, `problem`)"),
            (r#"{"task": " ", "answer": "a"}"#, None, "line 1: column `task` is empty"),
            (r#"{"task": "a"}"#, None, "line 1: missing column `answer`"),
            (r#"{"task": "a", "answer": []}"#, None, "column `answer`: expected a string or a number"),
            (
                r#"{"task": "a", "answer": "b", "kind": "numbr"}"#,
                None,
                "there is no kind `numbr`; did you mean `number`?",
            ),
            (r#"{"task": "a", "answer": "b"}"#, Some(Kind::Number), "column `answer`: `b` is not a number"),
            (
                r#"{"task": "a", "answer": "b", "choices": ["c"]}"#,
                None,
                "column `choices`: 1 choices, expected 2 to 26",
            ),
            (r#"{"target": 1}"#, None, "line 1: missing field `nums`"),
            (
                "{\"task\": \"a\", \"answer\": \"b\", \"id\": 1}\n{\"task\": \"a\", \"answer\": \"b\", \"id\": \"1\"}",
                None,
                "line 2: a second `1`",
            ),
        ] {
            let error = rows(row, kind).unwrap_err();
            assert!(error.contains(message), "{row}: {error}");
        }
    }
}
