//! What a run reports: one `Record` per step goes to TensorBoard (`events/`) and to `metrics.jsonl`, and the single
//! problems of an evaluation to `evaluations.jsonl`.
//!
//! Logs never end a run: a write error is reported once per file, counted, and tried again with the next record.

pub mod evaluations;
mod events;
pub mod jsonl;
mod log_file;
mod outcomes;
mod record;
mod sink;

pub use outcomes::Outcomes;
pub use record::{Record, Stage, measures_machine, validation};
pub use sink::Sink;

use anyhow::{Context, Result};
use events::EventFile;
use jsonl::JsonLines;
use std::fs;
use std::path::Path;

/// The file of a run that has one record per line.
pub const JSONL: &str = "metrics.jsonl";
/// The file of a run that has one evaluation per line, problem by problem.
pub const EVALUATIONS: &str = "evaluations.jsonl";

/// Which logs a run writes.
#[derive(Clone, Copy, Debug)]
pub struct Logs {
    pub tensorboard: bool,
    pub jsonl: bool,
}

/// The logs of a run.
pub struct Metrics(Vec<Box<dyn Sink>>);

impl Metrics {
    /// Opens the logs of the run folder `dir`: `dir/events/{sft,ppo}/`, `dir/metrics.jsonl` and
    /// `dir/evaluations.jsonl`.
    ///
    /// `resume`: the last thing that the run has done. What comes later is removed from the logs: lines are cut off,
    /// and TensorBoard is made to discard later steps. `None` is a run from its start, which removes everything.
    ///
    /// `warn` is called once for each file that cannot be written.
    ///
    /// # Errors
    /// The folder cannot be created, or a JSONL file cannot be read or cut.
    pub fn open(dir: &Path, logs: Logs, resume: Option<(Stage, u64)>, warn: fn(&str)) -> Result<Self> {
        let metrics = Self::after(dir, logs, resume, warn)?;
        if let (true, Some((Stage::Ppo | Stage::Evaluation, step))) = (logs.jsonl, resume) {
            let path = dir.join(JSONL);
            let last = jsonl::last_step(&path, Stage::Ppo).unwrap_or(0);
            if last < step {
                let (shown, first) = (path.display(), last + 1);
                warn(&format!("warning: {shown} has no records of the steps from {first} to {step}"));
            }
        }
        Ok(metrics)
    }

    /// Opens the logs of a run that nobody continues, to add to them.
    ///
    /// # Errors
    /// As `open`.
    pub fn extend(dir: &Path, logs: Logs, warn: fn(&str)) -> Result<Self> {
        // A step that no run comes to: nothing is after it.
        Self::after(dir, logs, Some((Stage::Ppo, i64::MAX as u64 - 1)), warn)
    }

    fn after(dir: &Path, logs: Logs, resume: Option<(Stage, u64)>, warn: fn(&str)) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if logs.tensorboard {
            for stages in [&[Stage::Sft][..], &[Stage::Ppo, Stage::Evaluation, Stage::Hook]] {
                let folder = dir.join("events").join(stages[0].name());
                sinks.push(Box::new(EventFile::new(&folder, stages, stages[0].first_undone(resume), warn)));
            }
        }
        if logs.jsonl {
            sinks.push(Box::new(JsonLines::open(&dir.join(JSONL), jsonl::line, resume, warn)?));
            sinks.push(Box::new(JsonLines::open(&dir.join(EVALUATIONS), evaluations::lines, resume, warn)?));
        }
        Ok(Self(sinks))
    }

    /// Records for a single reader, which nothing keeps.
    pub fn to(sink: Box<dyn Sink>) -> Self {
        Self(vec![sink])
    }

    /// No logs, for a process that leaves them to another.
    pub fn none() -> Self {
        Self(vec![])
    }

    /// Writes a record to every log.
    pub fn write(&mut self, record: &Record) {
        self.0.iter_mut().for_each(|sink| sink.write(record));
    }

    /// Waits until the disk holds everything that could be written.
    pub fn flush(&mut self) {
        self.0.iter_mut().for_each(|sink| sink.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_over_can_be_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs { tensorboard: true, jsonl: true };
        for step in [1, 2] {
            let mut metrics = match step {
                1 => Metrics::open(dir.path(), logs, None, |warning| panic!("{warning}")).unwrap(),
                _ => Metrics::extend(dir.path(), logs, |warning| panic!("{warning}")).unwrap(),
            };
            metrics.write(&Record::new(if step == 1 { Stage::Ppo } else { Stage::Hook }, step));
            metrics.flush();
        }
        let records = jsonl::read(&dir.path().join(JSONL), |warning| panic!("{warning}")).unwrap();
        let found: Vec<_> = records.iter().map(|record| (record.stage, record.step)).collect();
        assert_eq!(found, [(Stage::Ppo, 1), (Stage::Hook, 2)]);
        assert_eq!(std::fs::read_dir(dir.path().join("events/ppo")).unwrap().count(), 2);
    }

    #[test]
    fn logs_that_are_switched_off_are_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics =
            Metrics::open(dir.path(), Logs { tensorboard: false, jsonl: true }, None, |warning| panic!("{warning}"))
                .unwrap();
        metrics.write(&Record::new(Stage::Ppo, 1));
        metrics.flush();
        assert!(dir.path().join("metrics.jsonl").exists() && !dir.path().join("events").exists());
        let dir = tempfile::tempdir().unwrap();
        let mut metrics =
            Metrics::open(dir.path(), Logs { tensorboard: true, jsonl: false }, None, |warning| panic!("{warning}"))
                .unwrap();
        metrics.write(&Record::new(Stage::Evaluation, 0));
        metrics.flush();
        assert!(dir.path().join("events/ppo").exists() && !dir.path().join("events/sft").exists());
        assert!(!dir.path().join("metrics.jsonl").exists());
    }
}
