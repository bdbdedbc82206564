//! What the hooks of a run found, as tables over the judged steps.

use crate::hooks::found::{Aside, Found, Judged, names};
use crate::terminal::{figure, interval};
use serde::Serialize;

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

/// A table for each hook of a run, and for results that stand apart one of their own.
pub fn tables(found: &Found, aside: &[Aside]) -> Vec<Table> {
    let apart = |own: &Aside| {
        let mut table = table(&format!("{}, another {}", own.hook, own.parts.join(" and ")), &own.judged);
        table.notes.insert(0, own.why.clone());
        table
    };
    found.hooks.iter().map(|(name, judged)| table(name, judged)).chain(aside.iter().map(apart)).collect()
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
