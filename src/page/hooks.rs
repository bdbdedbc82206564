//! What the hooks of a run found, step by step.

use crate::checkpoint::RunFolder;
use crate::hooks::Outcome;
use crate::hooks::schedule::Job;
use crate::stats::Figure;
use crate::terminal::figure;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// A hook with its results.
#[derive(Serialize)]
pub struct Hook {
    pub name: String,
    pub steps: Vec<usize>,
    /// What to know about the results.
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
    #[serde(skip)]
    pub outcomes: Vec<Outcome>,
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

/// The hooks of a run in alphabetical order.
///
/// # Errors
/// A result that cannot be read.
pub fn read(run: &RunFolder) -> Result<Vec<Hook>> {
    let mut all: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    for job in done(run)? {
        all.entry(job.hook.clone()).or_default().push(Outcome::read(run, &job)?);
    }
    Ok(all.into_iter().map(|(name, outcomes)| hook(name, outcomes)).collect())
}

/// The jobs whose results are in the run folder, by step.
///
/// # Errors
/// The folder cannot be read.
pub fn done(run: &RunFolder) -> Result<Vec<Job>> {
    let mut jobs = vec![];
    let Some(all) = run.hooks(0).parent().filter(|all| all.is_dir()).map(fs::read_dir) else { return Ok(jobs) };
    for entry in all? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(Ok(step)) = name.rsplit('_').next().map(str::parse) else { continue };
        for entry in fs::read_dir(&path)? {
            let job = Job { step, hook: entry?.file_name().to_string_lossy().into_owned() };
            if job.is_done(run) {
                jobs.push(job);
            }
        }
    }
    jobs.sort_by(|a, b| (a.step, &a.hook).cmp(&(b.step, &b.hook)));
    Ok(jobs)
}

fn hook(name: String, outcomes: Vec<Outcome>) -> Hook {
    let mut names: Vec<&str> = vec![];
    for found in outcomes.iter().flat_map(|outcome| &outcome.figures) {
        if !names.contains(&found.name.as_str()) {
            names.push(&found.name);
        }
    }
    let cell = |outcome: &Outcome, name: &str| match outcome.figures.iter().find(|found| found.name == name) {
        Some(Figure { value, interval, .. }) => Cell {
            value: figure(*value),
            interval: interval.map_or(String::new(), |[low, high]| format!("{} to {}", figure(low), figure(high))),
        },
        None => Cell { value: "–".into(), interval: String::new() },
    };
    let row = |name: &str| Row { name: name.into(), cells: outcomes.iter().map(|one| cell(one, name)).collect() };
    let mut notes: Vec<String> = vec![];
    for note in outcomes.iter().flat_map(|outcome| &outcome.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    Hook {
        rows: names.into_iter().map(row).collect(),
        steps: outcomes.iter().map(|outcome| outcome.step).collect(),
        notes,
        name,
        outcomes,
    }
}
