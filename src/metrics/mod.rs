//! What a run tells of itself: one `Record` a step goes to TensorBoard (`events/`), to `metrics.jsonl` and, through
//! `console`, to whoever watches.
//!
//! Logs never end a run: an error in writing is reported once a file, counted, and tried again with the next record.

pub mod console;
mod events;
pub mod jsonl;
mod log_file;
mod record;

pub use record::{Record, Stage};

use crate::recipe::Logging;
use anyhow::{Context, Result};
use events::EventFile;
use log_file::LogFile;
use std::fs;
use std::path::Path;

/// The log files of a run.
pub struct Metrics {
    sft: Option<EventFile>,
    ppo: Option<EventFile>,
    jsonl: Option<LogFile>,
}

impl Metrics {
    /// Opens the logs of the run folder `dir`: `dir/events/{sft,ppo}/` and `dir/metrics.jsonl`.
    ///
    /// `resume`: the last step that the run has behind it. What the logs hold of later steps is taken back: lines are
    /// cut off, and TensorBoard is told to forget. `None` is a run from its start, which takes back everything.
    ///
    /// # Errors
    /// The folder cannot be made, or its `metrics.jsonl` not read or cut.
    pub fn open(dir: &Path, logging: &Logging, resume: Option<(Stage, u64)>) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let events = |stage: Stage| {
            let folder = dir.join("events").join(stage.name());
            logging.tensorboard.then(|| EventFile::new(&folder, stage.first_undone(resume)))
        };
        let lines = dir.join("metrics.jsonl");
        let jsonl = match logging.jsonl {
            true => Some(LogFile::new(lines.clone(), jsonl::cut(&lines, resume)?)),
            false => None,
        };
        Ok(Self { sft: events(Stage::Sft), ppo: events(Stage::Ppo), jsonl })
    }

    /// Writes a record to every log.
    pub fn write(&mut self, record: &Record) {
        let events = if record.stage == Stage::Sft { &mut self.sft } else { &mut self.ppo };
        if let Some(events) = events {
            events.append(record);
        }
        if let Some(lines) = &mut self.jsonl {
            lines.append(jsonl::line(record));
        }
    }

    /// Waits until the disk holds everything that could be written.
    pub fn flush(&mut self) {
        self.logs().for_each(LogFile::flush);
    }

    /// How often writing failed so far, and how many records a log has given up.
    pub fn trouble(&mut self) -> (u64, u64) {
        self.logs().fold((0, 0), |(failures, lost), log| (failures + log.failures, lost + log.lost))
    }

    fn logs(&mut self) -> impl Iterator<Item = &mut LogFile> {
        let events = self.sft.iter_mut().chain(&mut self.ppo).map(|events| &mut events.log);
        events.chain(&mut self.jsonl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), &Logging { tensorboard: false, jsonl: true }, None).unwrap();
        metrics.write(&Record::new(Stage::Ppo, 1));
        metrics.flush();
        assert!(dir.path().join("metrics.jsonl").exists() && !dir.path().join("events").exists());
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), &Logging { tensorboard: true, jsonl: false }, None).unwrap();
        metrics.write(&Record::new(Stage::Evaluation, 0));
        metrics.flush();
        assert!(dir.path().join("events/ppo").exists() && !dir.path().join("events/sft").exists());
        assert!(!dir.path().join("metrics.jsonl").exists());
        assert_eq!(metrics.trouble(), (0, 0));
    }
}
