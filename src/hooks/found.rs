//! What the hooks of a run left in its folder, step by step, for a page or a comparison. A result that cannot be read
//! is named and left out: the others are no worse for it.

use super::outcome::Outcome;
use super::schedule::{DISTINCT, Job, PERSONA, TRANSFER};
use super::{distinct, transfer};
use crate::checkpoint::RunFolder;
use crate::judge::metrics;
use crate::stats::{Figure, Place};
use crate::terminal::counted;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The results of a run.
#[derive(Default)]
pub struct Found {
    /// The judged steps of each hook.
    pub hooks: BTreeMap<String, Vec<Judged>>,
    /// What is missing, and why.
    pub missing: Vec<String>,
}

/// What a hook made of a step.
pub struct Judged {
    pub outcome: Outcome,
    pub folder: PathBuf,
}

impl Judged {
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.outcome.figures.iter().find(|figure| figure.name == name)
    }
}

impl Found {
    /// # Errors
    /// The run's folder cannot be read.
    pub fn read(run: &RunFolder) -> Result<Self> {
        let mut found = Self::default();
        for job in jobs(run)? {
            let what = format!("hook {} at step {}", job.hook, job.step);
            if let Some(failed) = job.failed(run) {
                let times = counted(failed.attempts, "attempt");
                found.missing.push(format!("{what} failed, {times}: {}", failed.error));
            }
            if job.has_result(run) {
                match Outcome::read(run, &job) {
                    Ok(outcome) => {
                        let judged = Judged { outcome, folder: job.folder(run) };
                        found.hooks.entry(job.hook).or_default().push(judged);
                    }
                    Err(error) => found.missing.push(format!("{what} is left out: {error:#}")),
                }
            }
        }
        Ok(found)
    }

    /// The judged steps of a hook.
    pub fn of(&self, hook: &str) -> &[Judged] {
        self.hooks.get(hook).map_or(&[], Vec::as_slice)
    }
}

/// The jobs that left anything in the run folder, by step and hook.
fn jobs(run: &RunFolder) -> Result<Vec<Job>> {
    let mut jobs = BTreeSet::new();
    let folder = run.hooks(0);
    let Some(all) = folder.parent().filter(|all| all.is_dir()) else { return Ok(vec![]) };
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(step) = name.rsplit('_').next().and_then(|step| step.parse().ok()) else { continue };
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            jobs.insert((step, name.trim_end_matches(".failed.json").to_string()));
        }
    }
    Ok(jobs.into_iter().map(|(step, hook)| Job { step, hook }).collect())
}

/// The names of the figures of any step, in their order.
pub fn names<'a>(judged: impl IntoIterator<Item = &'a Judged>) -> Vec<&'a str> {
    let mut names: Vec<&str> = vec![];
    let mut seen = BTreeSet::new();
    for found in judged.into_iter().flat_map(|one| &one.outcome.figures) {
        if seen.insert(found.name.as_str()) {
            names.push(&found.name);
        }
    }
    names
}

/// In which picture a figure of a hook is shown. Those of a command of the user's share one with what has the same
/// start.
pub fn place(hook: &str, name: &str) -> Option<Place> {
    match hook {
        PERSONA => metrics::place(name),
        TRANSFER => transfer::place(name),
        DISTINCT => distinct::place(name),
        _ => {
            let (start, line) = name.rsplit_once('/').unwrap_or((name, name));
            Some(Place::new(format!("{hook}: {}", start.replace('_', " ")), line, "", true))
        }
    }
}
