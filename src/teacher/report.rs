//! What came of a job, for people and for programs: how many problems were asked, which arm solved them, what was
//! dropped and why, how long the traces are, what it took.

use super::judge::{Flaw, Trace};
use super::pool::{Outcome, Solved};
use super::problems::Problems;
use crate::endpoint::Spent;
use serde_json::{Map, Value, json};

/// Where the traces come from.
pub struct Source {
    /// The problem file's path.
    pub file: String,
    /// `Teacher::identity`.
    pub teacher: Value,
    /// The endpoint, if there is one.
    pub address: Option<String>,
    /// By this run.
    pub spent: Spent,
    /// By all runs with the same folder of answers.
    pub in_all: Spent,
}

/// Pairs that were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub train: usize,
    pub validation: usize,
}

/// Dropped problems that report.md shows; report.json has all of them.
const SHOWN: usize = 50;

/// The report as JSON. `dropped` has an entry for every problem that was asked and not solved both ways.
pub fn report(problems: &Problems, outcome: &Outcome, kept: Kept, source: &Source) -> Value {
    let solved = &outcome.solved;
    let both = |dialogue: bool, monologue: bool| {
        solved.iter().filter(|s| s.dialogue.is_ok() == dialogue && s.monologue.is_ok() == monologue).count()
    };
    let pairs: Vec<&Solved> = solved.iter().filter(|s| s.pair().is_some()).take(kept.train + kept.validation).collect();
    let traces = |which: usize| -> Vec<&Trace> {
        let pairs = pairs.iter().filter_map(|solved| solved.pair());
        pairs.map(|pair| if which == 0 { pair.0 } else { pair.1 }).collect()
    };
    let mut personas = Map::new();
    for pair in &pairs {
        let count = personas.entry(pair.personas.to_string()).or_insert(json!(0));
        *count = (count.as_u64().unwrap_or(0) + 1).into();
    }
    personas.sort_keys();
    let dropped = solved.iter().filter(|solved| solved.pair().is_none());
    let flaw = |result: &Result<Trace, Flaw>| result.as_ref().err().map(Flaw::json);
    let spent = source.spent;
    json!({
        "problems": {
            "file": source.file,
            "sha256": problems.sha256,
            "rows": problems.all.len() + problems.repeated,
            "repeated": problems.repeated,
            "asked": solved.len(),
            "not_asked": problems.all.len() - solved.len(),
        },
        "teacher": source.teacher,
        "address": source.address,
        "kept": { "train": kept.train, "validation": kept.validation, "personas": personas },
        "solved": {
            "both": both(true, true),
            "dialogue_only": both(true, false),
            "monologue_only": both(false, true),
            "neither": both(false, false),
        },
        "arms": {
            "dialogue": arm(solved.iter().map(|s| &s.dialogue), &traces(0)),
            "monologue": arm(solved.iter().map(|s| &s.monologue), &traces(1)),
        },
        "spent": {
            "requests": spent.requests,
            "from_cache": outcome.cached,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "estimated": spent.estimated,
        },
        "spent_in_all": source.in_all,
        "ended": outcome.ended.as_ref().map(ToString::to_string),
        "dropped": dropped.map(|s| json!({
            "pid": problems.all[s.index].pid,
            "personas": s.personas,
            "dialogue": flaw(&s.dialogue),
            "monologue": flaw(&s.monologue),
        })).collect::<Vec<_>>(),
    })
}

/// Counts of one arm over all that was asked, and means over what was kept of it.
fn arm<'a>(results: impl Iterator<Item = &'a Result<Trace, Flaw>>, kept: &[&Trace]) -> Value {
    let results: Vec<_> = results.collect();
    let mut counts = Map::from_iter([("right".to_string(), results.iter().filter(|r| r.is_ok()).count().into())]);
    for name in Flaw::NAMES {
        let flawed = results.iter().filter(|result| result.as_ref().is_err_and(|flaw| flaw.name() == name));
        counts.insert(name.into(), flawed.count().into());
    }
    let mean = |of: fn(&Trace) -> usize| {
        let sum: usize = kept.iter().map(|trace| of(trace)).sum();
        (!kept.is_empty()).then(|| (sum as f64 / kept.len() as f64 * 10.0).round() / 10.0)
    };
    counts.insert("mean_words".into(), mean(|trace| trace.words).into());
    counts.insert("mean_turns".into(), mean(|trace| trace.turns).into());
    Value::Object(counts)
}

/// The report as a page.
pub fn markdown(report: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "none".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (problems, kept, solved, spent) = (&report["problems"], &report["kept"], &report["solved"], &report["spent"]);
    let count = |name: &str| problems[name].as_u64().unwrap_or(0);
    let repeated = match count("repeated") {
        0 => String::new(),
        rows => format!("Rows with the task and the answer of an earlier one, left out: {rows}.\n"),
    };
    let mut page = format!(
        "# Dialogues and monologues\n\n{} of {} problems of {} (SHA-256 {}) were asked.\n\
         {}Kept: {} pairs for training, {} for validation; by number of personas: {}.\n\
         Teacher: {}{}.\n\n",
        problems["asked"],
        count("asked") + count("not_asked"),
        shown(&problems["file"]),
        shown(&problems["sha256"]),
        repeated,
        kept["train"],
        kept["validation"],
        counts(&kept["personas"]),
        report["teacher"],
        report["address"].as_str().map_or(String::new(), |address| format!(", {address}")),
    );
    if let Some(why) = report["ended"].as_str() {
        page += &format!("It ended early: {}.\n\n", one_line(why));
    }
    page += &format!(
        "Solved by both arms {}, by the dialogue only {}, by the monologue only {}, by neither {}.\n\n",
        solved["both"], solved["dialogue_only"], solved["monologue_only"], solved["neither"]
    );
    page += "| | dialogue | monologue |\n|---|---|---|\n";
    for name in ["right"].into_iter().chain(Flaw::NAMES).chain(["mean_words", "mean_turns"]) {
        let [dialogue, monologue] = ["dialogue", "monologue"].map(|arm| shown(&report["arms"][arm][name]));
        page += &format!("| {} | {dialogue} | {monologue} |\n", name.replace('_', " "));
    }
    page += &format!("\n{}; {} answers came from the cache.\n", cost(spent), spent["from_cache"]);
    let in_all = &report["spent_in_all"];
    if in_all["requests"] != spent["requests"] {
        page += &format!("All runs with these answers together: {}.\n", cost(in_all));
    }
    page + &dropped(report["dropped"].as_array().map_or(&[], Vec::as_slice))
}

/// `7 requests were sent, about 70 prompt tokens and about 35 completion tokens`
fn cost(spent: &Value) -> String {
    let about = if spent["estimated"] == true { "about " } else { "" };
    let (requests, prompt, completion) = (&spent["requests"], &spent["prompt_tokens"], &spent["completion_tokens"]);
    format!("{requests} requests were sent, {about}{prompt} prompt tokens and {about}{completion} completion tokens")
}

/// `2 (167), 3 (167)`
fn counts(personas: &Value) -> String {
    let all = personas.as_object().into_iter().flatten();
    let all: Vec<String> = all.map(|(personas, pairs)| format!("{personas} ({pairs})")).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

fn dropped(all: &[Value]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut page = "\n## Dropped\n\n| problem | personas | dialogue | monologue |\n|---|---|---|---|\n".to_string();
    for entry in all.iter().take(SHOWN) {
        let [dialogue, monologue] = ["dialogue", "monologue"].map(|arm| {
            let detail = entry[arm]["detail"].as_str();
            detail.map_or("right".to_string(), |detail| {
                format!("{}: {}", entry[arm]["why"].as_str().unwrap_or(""), detail)
            })
        });
        let cells = [entry["pid"].as_str().unwrap_or(""), &entry["personas"].to_string(), &dialogue, &monologue];
        page += &format!("| {} |\n", cells.map(one_line).join(" | "));
    }
    let more = all.len().saturating_sub(SHOWN);
    if more > 0 { page + &format!("\nand {more} more, all of them in report.json.\n") } else { page }
}

/// A text that a cell of a table can hold.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.replace('|', "\\|")
}
