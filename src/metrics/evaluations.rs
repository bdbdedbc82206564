//! `evaluations.jsonl`: one line per evaluation and decoding mode, with what each problem came to:
//! `{"stage": "evaluation", "step": 10, "time": 1.7e9, "task": "countdown", "decoding": "greedy", "problems": "9f..",
//! "accuracy": [1.0, 0.0, ...], "format": [...], "reward": [...], "response_length": [...], "terminated": [...]}`.

use super::jsonl;
use super::outcomes::Outcomes;
use super::record::{Record, Stage};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Serialize)]
struct Written<'a> {
    stage: &'static str,
    step: u64,
    time: f64,
    #[serde(flatten)]
    outcomes: &'a Outcomes,
}

#[derive(Deserialize)]
struct Line {
    step: u64,
    #[serde(flatten)]
    outcomes: Outcomes,
}

/// The lines of a record; none if it is not one of an evaluation.
pub(super) fn lines(record: &Record) -> Vec<u8> {
    let (stage, step, time) = (Stage::Evaluation.name(), record.step, record.time);
    let mut lines = Vec::new();
    for outcomes in record.outcomes() {
        // Cannot fail: every field is a number, a text or an array of these. What is not finite becomes null.
        lines.extend(serde_json::to_vec(&Written { stage, step, time, outcomes }).unwrap_or_default());
        lines.push(b'\n');
    }
    lines
}

/// The evaluation in a line, and its step.
///
/// # Errors
/// It is not JSON, lacks a key, or its arrays have different lengths.
pub fn parse(line: &str) -> Result<(u64, Outcomes)> {
    let Line { step, outcomes } = serde_json::from_str(line)?;
    outcomes.check()?;
    Ok((step, outcomes))
}

/// The evaluations of an `evaluations.jsonl` with their steps, oldest first. Lines that are none are passed over, as in
/// `jsonl::read`.
///
/// # Errors
/// Those of `jsonl::read`.
pub fn read(path: &Path, warn: fn(&str)) -> Result<Vec<(u64, Outcomes)>> {
    jsonl::read_lines(path, parse, warn)
}

#[cfg(test)]
mod tests {
    use super::super::{EVALUATIONS, Logs, Metrics};
    use super::*;

    fn outcomes(decoding: &str) -> Outcomes {
        Outcomes {
            task: "countdown".into(),
            decoding: decoding.into(),
            problems: "9f".into(),
            accuracy: vec![1.0, 0.0],
            format: vec![1.0, 1.0],
            reward: vec![1.0, 0.1],
            response_length: vec![17, 48],
            terminated: vec![true, false],
            class: vec![],
            answer: vec![],
        }
    }

    fn record(step: u64) -> Record {
        let mut record = Record::new(Stage::Evaluation, step);
        record.outcome(outcomes("sampled"));
        record.outcome(outcomes("greedy"));
        record
    }

    #[test]
    fn evaluations_are_read_back_as_they_were_written() {
        let text = String::from_utf8(lines(&record(10))).unwrap();
        let read: Vec<_> = text.lines().map(|line| parse(line).unwrap()).collect();
        assert_eq!(read, [(10, outcomes("sampled")), (10, outcomes("greedy"))]);
        assert_eq!(outcomes("greedy").figure("clip_ratio").unwrap(), [0.0, 1.0]);
        assert!(lines(&Record::new(Stage::Ppo, 10)).is_empty());
        let uneven = text.lines().next().unwrap().replace("[17,48]", "[17]");
        assert!(parse(&uneven).unwrap_err().to_string().contains("different lengths"));
    }

    #[test]
    fn a_resumed_run_writes_its_later_evaluations_anew() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs { tensorboard: false, jsonl: true };
        let path = dir.path().join(EVALUATIONS);
        for (resume, expected) in [
            (None, vec![0, 0, 10, 10, 20, 20]),
            (Some((Stage::Ppo, 15)), vec![0, 0, 10, 10, 0, 0, 10, 10, 20, 20]),
            (Some((Stage::Sft, 9)), vec![0, 0, 10, 10, 20, 20]),
        ] {
            let mut metrics = Metrics::open(dir.path(), logs, resume, |_| ()).unwrap();
            [0, 10, 20].iter().for_each(|step| metrics.write(&record(*step)));
            metrics.flush();
            let steps: Vec<u64> =
                read(&path, |warning| panic!("{warning}")).unwrap().into_iter().map(|(step, _)| step).collect();
            assert_eq!(steps, expected, "{resume:?}");
        }
    }
}
