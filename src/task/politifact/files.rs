//! Claims from files, in the layouts that the public sets have.
//!
//! - LIAR: `.tsv` without a header, ratings by name;
//! - LIAR2: `.csv` or parquet with `statement` and `label`, a number;
//! - rows for verl, with the claim within `prompt`, its class in `reward_model.ground_truth.verdict`, and the number of
//!   its rating in `extra_info.raw_label`;
//! - JSON, JSONL and parquet with the columns of any of these.
//!
//! A bad row is an error with its file, row and field, never skipped. Blanks and line ends within a claim are one blank
//! each, so that the same claim is the same text in every layout. A file is read whole, beyond the rows that are used,
//! since the order of its numbers is judged by all of them.

use super::history::{History, all_columns, better_order, history};
use super::label::Order;
use super::said::{Said, check_order};
use crate::recipe::Politifact;
use crate::rows::{self, Row, field, place};
use crate::task::splits::check_count;
use crate::terminal;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// The columns of LIAR's files, which do not name them.
pub const LIAR: [&str; 14] = [
    "id",
    "label",
    "statement",
    "subject",
    "speaker",
    "job_title",
    "state_info",
    "party_affiliation",
    "barely_true_counts",
    "false_counts",
    "half_true_counts",
    "mostly_true_counts",
    "pants_on_fire_counts",
    "context",
];

/// The columns that are read, besides the counts of histories.
const COLUMNS: [&str; 14] = [
    "statement",
    "claim",
    "prompt",
    "label",
    "label_name",
    "label_text",
    "rating",
    "verdict",
    "raw_label",
    "reward_model",
    "extra_info",
    "speaker",
    "context",
    "subject",
];

/// A statement and how it was rated.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub text: String,
    /// Who said it, where, about what: as far as the file says.
    pub about: [Option<String>; 3],
    /// The class, by its place in `CLASSES`.
    pub class: usize,
}

/// The names of `Claim::about`, as columns and as variables of a prompt.
pub const ABOUT: [&str; 3] = ["speaker", "context", "subject"];

/// The claims of the three splits. Without a file for validation they are the last rows of the training file, which has
/// then rows for both.
///
/// # Errors
/// A bad file, or one with fewer rows than the recipe asks for.
pub fn splits(task: &Politifact, order: Order) -> Result<[Vec<Claim>; 3]> {
    let mut train = read(&task.train_file, order)?;
    let validation = match &task.validation_file {
        Some(file) => first(read(file, order)?, task.validation, file, "task.validation")?,
        None => {
            let (found, file) = (train.len(), task.train_file.display());
            ensure!(
                found >= task.train.saturating_add(task.validation),
                "{file} has {}, but the recipe asks for {} to train and, since there is no task.validation_file, for \
                 the \
                 last {} to validate: set task.train to at most {}",
                terminal::counted(found, "row"),
                task.train,
                task.validation,
                found.saturating_sub(task.validation)
            );
            train.split_off(found - task.validation)
        }
    };
    let test = first(read(&task.test_file, order)?, task.test, &task.test_file, "task.test")?;
    Ok([first(train, task.train, &task.train_file, "task.train")?, validation, test])
}

/// The first `count` claims.
fn first(mut claims: Vec<Claim>, count: usize, path: &Path, key: &str) -> Result<Vec<Claim>> {
    check_count(path, claims.len(), count, key)?;
    claims.truncate(count);
    Ok(claims)
}

/// All claims of a file.
fn read(path: &Path, order: Order) -> Result<Vec<Claim>> {
    let (claims, warning) = claims(path, rows(path)?, order)?;
    warning.iter().for_each(|warning| terminal::warn(warning));
    Ok(claims)
}

/// The claims in all rows of a file, and what is odd about their numbers.
///
/// # Errors
/// A bad row, or ratings that contradict each other, with file, row and field.
pub fn claims(
    path: &Path,
    rows: impl Iterator<Item = Result<Row>>,
    order: Order,
) -> Result<(Vec<Claim>, Option<String>)> {
    let (mut claims, mut ratings, mut histories) = (Vec::new(), Vec::new(), Vec::<(i64, History)>::new());
    for row in rows {
        let (number, row) = row?;
        let said = Said::of(&row).with_context(|| place(path, number))?;
        let text = text(&row).with_context(|| place(path, number))?;
        let about = ABOUT.map(|name| string(&row, name));
        if let Some((_, number)) = said.number {
            histories.push((number, history(&row)));
        }
        claims.push(Claim { text, about, class: said.class(order)? });
        ratings.push((number, said));
    }
    check_order(path, &ratings, order)?;
    let warning = better_order(&histories, order).map(|other| {
        format!(
            "warning: {}: the speakers' histories fit better if the label 0 means {} and 5 means {}: unless the file's \
             authors say otherwise, set {}",
            path.display(),
            other.name(0),
            other.name(5),
            other.written()
        )
    });
    Ok((claims, warning))
}

/// The rows of a file of any of the kinds.
fn rows(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Row>>>> {
    let counts = all_columns();
    let columns: Vec<&str> = COLUMNS.into_iter().chain(counts.iter().map(String::as_str)).collect();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("tsv") => Ok(Box::new(rows::table(path, &LIAR)?)),
        Some("csv") => Ok(Box::new(rows::table(path, &columns)?)),
        Some("json" | "jsonl" | "parquet") => rows::read(path, &columns),
        _ => bail!("{}: claims are read from .tsv, .csv, .jsonl, .json and .parquet files", path.display()),
    }
}

/// The text of a row's claim.
fn text(row: &Map<String, Value>) -> Result<String> {
    let text = match ["statement", "claim"].iter().find_map(|name| string(row, name)) {
        Some(text) => text,
        None => {
            let prompt = field(row, "prompt").context("no claim: expected `statement`, `claim` or `prompt`")?;
            let message =
                message(prompt).context("field `prompt`: expected a text, or a list with a message of the user's")?;
            claim_in(message).map(one_line).ok_or_else(|| {
                anyhow!(
                    "field `prompt`: expected a line `{START} ...` and, after the claim, a line `{}...`",
                    END.trim()
                )
            })?
        }
    };
    ensure!(!text.is_empty(), "the claim is empty");
    Ok(text)
}

/// A prompt, or what the user says last in a list of messages.
fn message(prompt: &Value) -> Option<&str> {
    let Value::Array(messages) = prompt else { return prompt.as_str() };
    messages.iter().rfind(|message| message["role"] == "user")?["content"].as_str()
}

const START: &str = "Claim:";
const END: &str = "\nAnswer exactly one of";

/// The claim in a prompt of the public set for verl.
fn claim_in(prompt: &str) -> Option<&str> {
    let line = format!("\n{START}");
    let rest = prompt.strip_prefix(START).or_else(|| Some(prompt.split_once(&line)?.1))?;
    Some(rest.split_once(END)?.0)
}

/// A column's text on one line, unless it is empty.
fn string(row: &Map<String, Value>, name: &str) -> Option<String> {
    let text = one_line(field(row, name)?.as_str()?);
    (!text.is_empty()).then_some(text)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
