//! The table of transfer: what was answered on the other task at each judged step, which class was taken for which, and
//! whether the last step is better than the first.

use super::hooks::Cell;
use crate::analysis::{Paired, Summary};
use crate::hooks::found::{Found, Judged};
use crate::hooks::schedule::TRANSFER;
use crate::hooks::transfer::{CLASSES, read};
use crate::json;
use crate::stats::{Bootstrap, RESAMPLES};
use crate::terminal::{between, figure};
use serde::Serialize;

/// The transfer of a run.
#[derive(Serialize)]
pub struct Transfer {
    pub steps: Vec<Step>,
    /// What constant answers get.
    pub baselines: Vec<Baseline>,
    /// The last judged step against the first.
    pub paired: Option<String>,
}

/// A judged step.
#[derive(Serialize)]
pub struct Step {
    pub step: usize,
    pub problems: Option<usize>,
    pub accuracy: Cell,
    pub macro_f1: Cell,
    pub unanswered: Cell,
    /// If the task has classes; of the first and the last step.
    pub classes: Option<Classes>,
}

/// Which class was taken for which.
#[derive(Serialize)]
pub struct Classes {
    pub names: Vec<String>,
    pub rows: Vec<Row>,
}

/// A class: how often its problems got each answer, and the last for none.
#[derive(Serialize)]
pub struct Row {
    pub class: String,
    pub counts: Vec<u64>,
    pub precision: String,
    pub recall: String,
    pub f1: String,
}

#[derive(Serialize)]
pub struct Baseline {
    pub about: String,
    pub accuracy: String,
    pub macro_f1: String,
}

/// The transfer of a run, if it was judged. What cannot be read is told to `missing`.
pub fn transfer(found: &Found, missing: &mut Vec<String>) -> Option<Transfer> {
    let judged = found.of(TRANSFER);
    let mut keep = |result: anyhow::Result<Option<Summary>>| match result {
        Ok(summary) => summary,
        Err(error) => {
            missing.push(format!("{error:#}"));
            None
        }
    };
    let summaries: Vec<Option<Summary>> = judged.iter().map(|one| keep(summary(one))).collect();
    let shown = |(at, (one, summary)): (usize, (&Judged, &Option<Summary>))| {
        let is_end = at == 0 || at + 1 == judged.len();
        step(one, summary.as_ref().filter(|_| is_end))
    };
    let steps: Vec<Step> = judged.iter().zip(&summaries).enumerate().map(shown).collect();
    let baselines = summaries.iter().flatten().next_back().map_or(vec![], baselines);
    let paired = match judged {
        [first, .., last] => match paired(first, last) {
            Ok(text) => text,
            Err(error) => {
                missing.push(format!("{error:#}"));
                None
            }
        },
        _ => None,
    };
    (!steps.is_empty()).then_some(Transfer { steps, baselines, paired })
}

/// What the hook wrote about classes; older results have nothing.
fn summary(judged: &Judged) -> anyhow::Result<Option<Summary>> {
    let path = judged.folder.join(CLASSES);
    if path.exists() { json::read(&path).map(Some) } else { Ok(None) }
}

fn step(judged: &Judged, summary: Option<&Summary>) -> Step {
    let cell = |name: &str| {
        let found = judged.figure(name);
        share(found.map(|found| found.value), found.and_then(|found| found.interval))
    };
    Step {
        step: judged.outcome.step,
        problems: judged.figure("accuracy").and_then(|found| found.n),
        accuracy: cell("accuracy"),
        macro_f1: cell("macro_f1"),
        unanswered: cell("unanswered"),
        classes: summary.map(classes),
    }
}

fn classes(summary: &Summary) -> Classes {
    let scores = &summary.scores;
    let row = |(at, class): (usize, &String)| {
        let of = |all: &[f64]| all.get(at).copied().map_or("–".into(), percent);
        Row {
            class: class.clone(),
            counts: summary.confusion.get(at).cloned().unwrap_or_default(),
            precision: of(&scores.precision),
            recall: of(&scores.recall),
            f1: of(&scores.f1),
        }
    };
    Classes { names: summary.classes.clone(), rows: summary.classes.iter().enumerate().map(row).collect() }
}

fn baselines(summary: &Summary) -> Vec<Baseline> {
    let baseline = |own: &crate::analysis::Baseline| {
        let which = if own.majority_of_train { ", the commonest in training" } else { "" };
        Baseline {
            about: format!("always `{}`{which}", own.class),
            accuracy: percent(own.accuracy),
            macro_f1: percent(own.macro_f1),
        }
    };
    summary.baselines.iter().map(baseline).collect()
}

fn paired(first: &Judged, last: &Judged) -> anyhow::Result<Option<String>> {
    let [before, now] = [read(&first.folder)?, read(&last.folder)?];
    if before.iter().map(|answer| &answer.problem).ne(now.iter().map(|answer| &answer.problem)) {
        return Ok(None);
    }
    let [before, now] = [&before, &now].map(|all| all.iter().map(|answer| answer.accuracy).collect::<Vec<f64>>());
    let paired = Paired::of(&now, &before, &Bootstrap::new(RESAMPLES, now.len()));
    Ok(paired.map(|paired| in_words(&paired, last.outcome.step, first.outcome.step)))
}

/// `now` is the step that the other is held against.
fn in_words(paired: &Paired, now: usize, before: usize) -> String {
    let Paired { both, only_first, only_second, neither, .. } = paired;
    let points = |share: f64| format!("{:+.1}", 100.0 * share);
    let ends = paired.interval.map_or(String::new(), |ends| format!(" ({})", between(points, ends)));
    format!(
        "The same problems at both steps: accuracy at step {now} minus that at step {before} is {} points{ends}. Right \
         at both {both}, only at step {now} {only_first}, only at step {before} {only_second}, at neither {neither}; \
         McNemar's exact test: p = {}.",
        points(paired.difference),
        figure(paired.p)
    )
}

fn share(value: Option<f64>, ends: Option<[f64; 2]>) -> Cell {
    let number = |value: f64| format!("{:.1}", 100.0 * value);
    Cell {
        value: value.map_or("–".into(), percent),
        interval: ends.map_or(String::new(), |ends| between(number, ends)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
