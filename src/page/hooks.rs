//! What the hooks of a run found, step by step. A result that cannot be read is named and left out: the page is about
//! the others.

use crate::checkpoint::RunFolder;
use crate::hooks::Outcome;
use crate::hooks::schedule::Job;
use crate::stats::Figure;
use crate::terminal::{counted, figure, interval};
use anyhow::Result;
use serde::Serialize;
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
            if job.is_done(run) {
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

/// A hook's figures as a table.
#[derive(Serialize)]
pub struct Table {
    pub name: String,
    pub steps: Vec<usize>,
    /// What to know about the results.
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
}

/// A figure over the steps, as text.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub cells: Vec<Cell>,
}

#[derive(Serialize)]
pub struct Cell {
    pub value: String,
    pub interval: String,
}

impl Cell {
    /// A number in the words of `number`, with its interval.
    pub fn of(value: Option<f64>, ends: Option<[f64; 2]>) -> Self {
        Self { value: value.map_or("–".into(), figure), interval: ends.map_or(String::new(), interval) }
    }
}

/// A table for each hook of a run.
pub fn tables(found: &Found) -> Vec<Table> {
    found.hooks.iter().map(|(name, judged)| table(name, judged)).collect()
}

fn table(name: &str, judged: &[Judged]) -> Table {
    let mut rows: Vec<Row> = vec![];
    for figure in names(judged) {
        let cell = |one: &Judged| {
            let found = one.figure(figure);
            Cell::of(found.map(|found| found.value), found.and_then(|found| found.interval))
        };
        rows.push(Row { name: figure.into(), cells: judged.iter().map(cell).collect() });
    }
    let mut notes: Vec<String> = vec![];
    for note in judged.iter().flat_map(|one| &one.outcome.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    Table { name: name.into(), steps: judged.iter().map(|one| one.outcome.step).collect(), notes, rows }
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
