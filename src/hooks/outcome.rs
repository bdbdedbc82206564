//! What a hook made of a checkpoint: figures with their intervals, and a sentence; `result.json` in the job's folder.

use super::schedule::Job;
use crate::bad;
use crate::checkpoint::{RunFolder, Verdict, verify};
use crate::json;
use crate::metrics::{Record, Stage};
use crate::stats::{Figure, HIGH, LOW};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

const FILE: &str = "result.json";

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Outcome {
    pub hook: String,
    pub step: usize,
    /// What it depends on besides the checkpoint.
    pub identity: Value,
    /// What came out, in a line.
    pub summary: String,
    /// What it is not about, and why, if that is not nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What to know about it.
    #[serde(default)]
    pub notes: Vec<String>,
    pub figures: Vec<Figure>,
}

impl Outcome {
    /// The result of a job that is done.
    ///
    /// # Errors
    /// There is none; bad input: its file is damaged.
    pub fn read(run: &RunFolder, job: &Job) -> Result<Self> {
        let folder = job.folder(run);
        // Its other files are looked at by who reads them.
        if let Verdict::Damaged(what) = verify(&folder, &[FILE])? {
            return Err(bad!("{} is damaged: {what}; `ppo-train judge` makes it anew", folder.display()));
        }
        json::read(&folder.join(FILE))
    }

    /// Writes the result into the job's folder while that is being filled.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        Ok(std::fs::write(folder.join(FILE), serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// The parts of what a result depends on that are not as in `now`, by name. Parts that only one of them has do not
    /// count: they are from another version of this program.
    pub fn differs(&self, now: &Value) -> Vec<String> {
        // As it comes back from a file.
        let now: Value = serde_json::from_str(&now.to_string()).unwrap_or_default();
        let known = self.identity.as_object().into_iter().flatten();
        let other = known.filter(|(name, value)| now.get(name).is_some_and(|now| now != *value));
        other.map(|(name, _)| name.clone()).collect()
    }

    /// The record of its figures: `hooks/HOOK/NAME`, and `hooks/HOOK/NAME/{low,high}` for intervals.
    pub fn record(&self) -> Record {
        let mut record = Record::new(Stage::Hook, self.step as u64);
        for Figure { name, value, interval, .. } in &self.figures {
            let name = format!("hooks/{}/{name}", self.hook);
            if let Some([low, high]) = interval {
                record.set(format!("{name}/{LOW}"), *low);
                record.set(format!("{name}/{HIGH}"), *high);
            }
            record.set(name, *value);
        }
        record
    }
}
