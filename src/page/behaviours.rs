//! What hooks found, over the steps. A run alone has a picture for figures that belong together. Runs side by side have
//! one for each main figure, with a line for each arm, whatever the number of seeds.

use super::charts::{Chart, RESAMPLES, chart};
use crate::analysis::{Arm, Look, Series};
use crate::hooks::found::{Found, Judged, names, place};
use crate::stats::{Bootstrap, Figure, Grid, Place};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// The pictures of a run alone: of main figures, and of others.
///
/// # Errors
/// A picture cannot be drawn.
pub fn of_run(found: &Found) -> Result<(Vec<Chart>, Vec<Chart>)> {
    let (mut charts, mut more) = (vec![], vec![]);
    for (hook, judged) in &found.hooks {
        let mut pictures: Vec<(Place, Vec<Series>)> = vec![];
        for name in names(judged) {
            let Some(own) = place(hook, name) else { continue };
            let at = pictures.iter().position(|(known, _)| known.picture == own.picture).unwrap_or_else(|| {
                pictures.push((own.clone(), vec![]));
                pictures.len() - 1
            });
            let (points, colour) = (values(judged, name), pictures[at].1.len());
            pictures[at].1.push(line(own.line, &points, colour));
        }
        for (place, lines) in pictures {
            let is_zero = |line: &Series| line.points.iter().all(|(_, value)| *value == 0.0);
            // Other figures that are always zero are in the table.
            if place.main {
                charts.extend(chart(place.picture, &lines, place.axis)?);
            } else if !lines.iter().all(is_zero) {
                more.extend(chart(place.picture, &lines, place.axis)?);
            }
        }
    }
    Ok((charts, more))
}

/// The pictures of arms side by side.
///
/// # Errors
/// A picture cannot be drawn.
pub fn of_arms(arms: &[Arm], runs: &[&Found]) -> Result<Vec<Chart>> {
    let hooks: BTreeSet<&str> = runs.iter().flat_map(|found| found.hooks.keys().map(String::as_str)).collect();
    let mut charts = vec![];
    for hook in hooks {
        let figures = names(runs.iter().flat_map(|found| found.of(hook)));
        let places: Vec<(&str, Place)> = figures
            .into_iter()
            .filter_map(|name| Some((name, place(hook, name)?)))
            .filter(|(_, own)| own.main)
            .collect();
        for (name, own) in &places {
            let alone = places.iter().filter(|(_, other)| other.picture == own.picture).count() == 1;
            let title = if alone { own.picture.clone() } else { format!("{}: {}", own.picture, own.line) };
            let arm = |(at, arm): (usize, &Arm)| of_arm(arm, at, &|run| values(runs[run].of(hook), name));
            let lines: Vec<Series> = arms.iter().enumerate().flat_map(arm).collect();
            charts.extend(chart(title, &lines, own.axis)?);
        }
    }
    Ok(charts)
}

/// A figure by step.
type Points<'a> = BTreeMap<usize, &'a Figure>;

fn values<'a>(judged: &'a [Judged], name: &str) -> Points<'a> {
    judged.iter().filter_map(|one| Some((one.outcome.step, one.figure(name)?))).collect()
}

fn line(name: String, points: &Points, colour: usize) -> Series {
    let band = points.iter().filter_map(|(step, found)| found.interval.map(|[low, high]| (*step as f64, low, high)));
    Series {
        name,
        points: points.iter().map(|(step, found)| (*step as f64, found.value)).collect(),
        band: band.collect(),
        colour,
        ..Series::default()
    }
}

/// The line of an arm: its run's with its intervals, or the mean at the steps that all of its runs have, with an
/// interval over runs, and the runs as thin lines.
fn of_arm<'a>(arm: &Arm, colour: usize, of: &dyn Fn(usize) -> Points<'a>) -> Vec<Series> {
    let runs: Vec<Points> = arm.runs.iter().map(|run| of(*run)).filter(|points| !points.is_empty()).collect();
    if let [only] = runs.as_slice() {
        return vec![line(arm.name.clone(), only, colour)];
    }
    let Some(first) = runs.first() else { return vec![] };
    let bootstrap = Bootstrap::new(RESAMPLES, 1);
    let mut mean = Series { name: arm.name.clone(), colour, ..Series::default() };
    for step in first.keys() {
        let values: Option<Vec<Vec<f64>>> = runs.iter().map(|run| Some(vec![run.get(step)?.value])).collect();
        if let Some(grid) = values.and_then(Grid::new) {
            mean.points.push((*step as f64, grid.mean()));
            mean.band.extend(bootstrap.mean(&grid).map(|[low, high]| (*step as f64, low, high)));
        }
    }
    let thin = |run: &Points| Series { look: Look::Thin, band: vec![], ..line(String::new(), run, colour) };
    runs.iter().map(thin).chain([mean]).collect()
}
