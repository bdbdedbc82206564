//! The files of a job: the same problems in the same order for both arms, and the report, which is written last.

use super::grading::Right;
use super::judge::Trace;
use super::pool::{Outcome, Solved};
use super::problems::{Problem, Problems};
use super::report::{Kept, Source, markdown, report};
use crate::checkpoint::write_file;
use crate::json;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// Pairs that are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub rows: usize,
    pub validation: usize,
}

impl Wanted {
    pub fn total(self) -> usize {
        self.rows + self.validation
    }

    /// How many of `found` pairs are for training and validation: what is asked for, or the same shares of less.
    fn of(self, found: usize) -> Kept {
        let kept = found.min(self.total());
        let validation = (kept * self.validation).div_ceil(self.total().max(1));
        // One of them at least is for training, if any is wanted there.
        let validation = validation.min(self.validation).min(kept.saturating_sub(self.rows.min(1)));
        Kept { train: kept - validation, validation }
    }
}

/// Writes `{dialogue,monologue}_{train,val}.jsonl`, `report.md` and `report.json` into the folder `out`; returns the
/// report. Each file is the old one or the new one whatever happens, and while there is no report.json the data is not
/// complete.
///
/// # Errors
/// A file cannot be written; `out` has a complete set of more pairs than were found, and not because fewer were wanted:
/// it stays as it is.
pub fn write(out: &Path, problems: &Problems, outcome: &Outcome, wanted: Wanted, source: &Source) -> Result<Value> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let done = out.join("report.json");
    let found = outcome.solved.iter().filter(|solved| solved.pair().is_some()).count();
    let before = pairs_in(&done);
    ensure!(
        before <= found || found >= wanted.total(),
        "{} holds {before} pairs, and only {found} were found now: it stays as it is; choose another folder with --out",
        out.display()
    );
    if done.exists() {
        std::fs::remove_file(&done).with_context(|| format!("cannot remove {}", done.display()))?;
    }
    let pairs: Vec<&Solved> = outcome.solved.iter().filter(|solved| solved.pair().is_some()).collect();
    let kept = wanted.of(pairs.len());
    for (split, pairs) in [("train", &pairs[..kept.train]), ("val", &pairs[kept.train..kept.train + kept.validation])] {
        let rows = pairs.iter().filter_map(|solved| Some((&*problems.all[solved.index], solved.pair()?)));
        let (dialogues, monologues): (String, String) = rows
            .map(|(problem, (dialogue, monologue))| {
                (line(problem, "dialogue", dialogue), line(problem, "monologue", monologue))
            })
            .unzip();
        write_file(&out.join(format!("dialogue_{split}.jsonl")), &dialogues)?;
        write_file(&out.join(format!("monologue_{split}.jsonl")), &monologues)?;
    }
    let report = report(problems, outcome, kept, source);
    write_file(&out.join("report.md"), markdown(&report))?;
    write_file(&done, format!("{report:#}\n"))?;
    Ok(report)
}

/// The pairs of a complete set with this report.json, 0 if there is none.
fn pairs_in(report: &Path) -> usize {
    let report = json::read::<Value>(report).unwrap_or_default();
    ["train", "validation"].iter().filter_map(|split| report["kept"][split].as_u64()).sum::<u64>() as usize
}

/// A row: the problem, and one arm's trace of it.
fn line(problem: &Problem, arm: &str, trace: &Trace) -> String {
    let mut row = Map::from_iter([
        ("pid".to_string(), problem.pid.clone().into()),
        ("task".into(), problem.task.clone().into()),
        ("answer".into(), problem.answer.clone().into()),
    ]);
    if let Right::Countdown(problem) = &problem.right {
        row.insert("target".into(), problem.target.into());
        row.insert("nums".into(), problem.nums.clone().into());
    }
    row.insert(arm.into(), trace.text.clone().into());
    format!("{}\n", Value::Object(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_pairs_are_divided_in_the_same_shares() {
        let wanted = Wanted { rows: 500, validation: 100 };
        for (found, train, validation) in
            [(0, 0, 0), (1, 1, 0), (6, 5, 1), (300, 250, 50), (600, 500, 100), (700, 500, 100)]
        {
            assert_eq!(wanted.of(found), Kept { train, validation }, "{found}");
        }
        assert_eq!(Wanted { rows: 0, validation: 3 }.of(2), Kept { train: 0, validation: 2 });
        assert_eq!(Wanted { rows: 3, validation: 0 }.of(2), Kept { train: 2, validation: 0 });
        assert_eq!(Wanted { rows: 0, validation: 0 }.of(2), Kept { train: 0, validation: 0 });
    }
}
