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
/// The part of an identity in which results that are held against each other may differ: it is that of the run.
const SEED: &str = "seed";
/// The part that says who judged, and the parts that are about that.
const JUDGE: &str = "judge";
const JUDGES: [&str; 2] = [JUDGE, "embeddings"];

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

    /// The result that a hook left beside a file of its own, or in this folder; `None` if there is none.
    ///
    /// # Errors
    /// Its file is damaged.
    pub fn beside(path: &Path) -> Result<Option<Self>> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let file = folder.join(FILE);
        if file.is_file() { json::read(&file).map(Some) } else { Ok(None) }
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

    /// The parts in which it differs from a result that it is held against.
    pub fn apart(&self, other: &Self) -> Vec<String> {
        self.differs(&other.identity).into_iter().filter(|part| part != SEED).collect()
    }

    /// Those of them that are about who judged.
    pub fn judged_apart(&self, other: &Self) -> Vec<String> {
        self.apart(other).into_iter().filter(|part| JUDGES.contains(&part.as_str())).collect()
    }

    /// Who judged, in short, as far as it is known: "lexical", "endpoint m".
    pub fn judge(&self) -> Option<String> {
        let judge = self.identity.get(JUDGE)?;
        let model = &judge["model"];
        let named = model.as_str().or_else(|| model["folder"].as_str());
        Some([judge["kind"].as_str()?].into_iter().chain(named).collect::<Vec<_>>().join(" "))
    }

    /// The two judges, in words; of one that is merely set up in another way, how.
    pub fn judges(&self, other: &Self) -> String {
        let [own, known] = [self, other].map(|one| one.judge().unwrap_or_else(|| "somebody unknown".into()));
        if own != known {
            return format!("{own} here, {known} there");
        }
        let keys = self.identity[JUDGE].as_object().into_iter().flatten();
        let other_keys = keys.filter(|(key, value)| other.identity[JUDGE].get(key) != Some(value));
        let keys: Vec<&str> = other_keys.map(|(key, _)| key.as_str()).collect();
        if keys.is_empty() { own } else { format!("{own} with another {}", keys.join(" and ")) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(step: usize, identity: Value) -> Outcome {
        let (hook, summary) = ("persona".into(), String::new());
        Outcome { hook, step, identity, summary, missing: None, notes: vec![], figures: vec![] }
    }

    #[test]
    fn judges_are_told_apart_and_seeds_are_not() {
        let by = |judge: Value, prompt: &str, seed: u64| {
            outcome(0, json!({ "judge": judge, "embeddings": null, "prompt": prompt, "seed": seed }))
        };
        let lexical = json!({ "kind": "lexical", "version": 1 });
        let first = by(lexical.clone(), "p", 1);
        assert!(first.apart(&by(lexical.clone(), "p", 2)).is_empty());
        assert_eq!(first.apart(&by(lexical.clone(), "q", 1)), ["prompt"]);
        assert!(first.judged_apart(&by(lexical, "q", 1)).is_empty());
        let other = by(json!({ "kind": "endpoint", "model": "m", "prompts": "a" }), "q", 2);
        assert_eq!((first.apart(&other).len(), first.judged_apart(&other)), (2, vec!["judge".to_string()]));
        assert_eq!(first.judges(&other), "lexical here, endpoint m there");
        let asked = by(json!({ "kind": "endpoint", "model": "m", "prompts": "b" }), "q", 2);
        assert_eq!(
            (other.judged_apart(&asked).len(), other.judges(&asked)),
            (1, "endpoint m with another prompts".into())
        );
        let local = json!({ "kind": "local", "model": { "folder": "tiny", "seed": 0 } });
        assert_eq!(by(local, "p", 1).judge().as_deref(), Some("local tiny"));
        // What nothing is known of is not another judge.
        assert!(first.apart(&outcome(0, json!({}))).is_empty() && outcome(0, json!({})).judge().is_none());
    }

    #[test]
    fn a_result_is_found_beside_the_files_of_its_hook() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("traces.jsonl");
        assert_eq!(Outcome::beside(&file).unwrap(), None);
        let own = outcome(3, json!({}));
        own.write(dir.path()).unwrap();
        assert_eq!(Outcome::beside(&file).unwrap(), Some(own.clone()));
        assert_eq!(Outcome::beside(dir.path()).unwrap(), Some(own));
    }
}
