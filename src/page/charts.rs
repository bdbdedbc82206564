//! The page's pictures.

use super::hooks::Hook;
use crate::analysis::{Arm, Look, Metric, Run, Series, svg};
use crate::hooks::Outcome;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// A picture with what a reader who does not see it needs.
#[derive(Serialize)]
pub struct Chart {
    pub title: String,
    pub svg: String,
    /// First and last value of every line.
    pub text: String,
}

/// Curves that are shown if the runs have them: metric, title, axis.
const CURVES: [(&str, &str, &str); 5] = [
    ("reward/accuracy", "Accuracy in training", "accuracy, %"),
    ("reward/format", "Format in training", "format, %"),
    ("response_length/mean", "Response length", "tokens"),
    ("actor/reward_kl_penalty", "KL from the start", "nats"),
    ("actor/entropy", "Entropy of the policy", "nats"),
];

/// The learning curves of all runs, validation first.
///
/// # Errors
/// A picture cannot be drawn.
pub fn curves(runs: &[Run], arms: &[Arm]) -> Result<Vec<Chart>> {
    let mut validation: Vec<String> = vec![];
    for name in runs.iter().flat_map(Run::scalars).filter(|name| is_validation(name)) {
        if !validation.iter().any(|known| known == name) {
            validation.push(name.to_string());
        }
    }
    let shown = |name: &String| {
        let what = name.trim_start_matches("val/").trim_end_matches("/accuracy").replace('_', ", ");
        (name.clone(), format!("Accuracy on held-out problems: {what}"), "accuracy, %")
    };
    let training = CURVES.map(|(name, title, axis)| (name.to_string(), title.to_string(), axis));
    let mut charts = vec![];
    for (name, title, axis) in validation.iter().map(shown).chain(training) {
        let metric = Metric::named(&name);
        let lines = lines(runs, arms, &metric);
        charts.extend(chart(title, &lines, axis)?);
    }
    Ok(charts)
}

fn is_validation(name: &str) -> bool {
    name.starts_with("val/") && name.ends_with("/accuracy")
}

/// A line per run, thin if its arm has several, which then have their mean.
fn lines(runs: &[Run], arms: &[Arm], metric: &Metric) -> Vec<Series> {
    let mut all = vec![];
    for (colour, arm) in arms.iter().enumerate() {
        let points: Vec<Vec<(u64, f64)>> = arm.runs.iter().map(|run| runs[*run].points(metric)).collect();
        let floats = |points: &[(u64, f64)]| points.iter().map(|(x, y)| (*x as f64, *y)).collect::<Vec<_>>();
        if let [only] = points.as_slice() {
            all.push(Series { name: arm.name.clone(), points: floats(only), colour, ..Series::default() });
            continue;
        }
        all.extend(points.iter().map(|run| Series {
            points: floats(run),
            look: Look::Thin,
            colour,
            ..Series::default()
        }));
        // The mean at the steps that all of them have.
        let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        points.iter().flatten().for_each(|(step, value)| at.entry(*step).or_default().push(*value));
        let complete = at.into_iter().filter(|(_, values)| values.len() == points.len());
        let mean = complete.map(|(step, values)| (step as f64, values.iter().sum::<f64>() / values.len() as f64));
        all.push(Series { name: arm.name.clone(), points: mean.collect(), colour, ..Series::default() });
    }
    all
}

/// A chart for each group of figures that a hook of a run found at more than one step: names `GROUP/LINE/MEASURE` share
/// a chart if group and measure are the same.
///
/// # Errors
/// A picture cannot be drawn.
pub fn behaviours(runs: &[(&str, &[Hook])]) -> Result<Vec<Chart>> {
    let mut charts = vec![];
    for (run, hooks) in runs {
        for hook in *hooks {
            let mut groups: Vec<(String, Vec<Series>)> = vec![];
            for row in &hook.rows {
                let parts: Vec<&str> = row.name.split('/').collect();
                let (group, line) = match parts.as_slice() {
                    // Rates are in the table.
                    [_, _, measure] if measure.starts_with("per_") => continue,
                    [group, line, measure] => (format!("{group}, {measure}"), line.to_string()),
                    _ => continue,
                };
                let at = groups.iter().position(|(known, _)| *known == group).unwrap_or_else(|| {
                    groups.push((group.clone(), vec![]));
                    groups.len() - 1
                });
                let colour = groups[at].1.len();
                groups[at].1.push(series(&hook.outcomes, &row.name, line, colour));
            }
            for (group, lines) in groups {
                let moves = |line: &Series| line.points.iter().any(|(_, value)| *value != 0.0);
                if lines.iter().any(moves) {
                    charts.extend(chart(format!("{} of {run}: {group}", hook.name), &lines, "")?);
                }
            }
        }
    }
    Ok(charts)
}

fn series(outcomes: &[Outcome], figure: &str, name: String, colour: usize) -> Series {
    let found = outcomes.iter().filter_map(|outcome| {
        let figure = outcome.figures.iter().find(|found| found.name == figure)?;
        Some((outcome.step as f64, figure))
    });
    let found: Vec<_> = found.collect();
    Series {
        name: name.replace('_', " "),
        points: found.iter().map(|(step, figure)| (*step, figure.value)).collect(),
        band: found.iter().filter_map(|(step, figure)| figure.interval.map(|[low, high]| (*step, low, high))).collect(),
        colour,
        ..Series::default()
    }
}

/// A picture of the lines, if any of them has two points.
fn chart(title: String, lines: &[Series], axis: &str) -> Result<Option<Chart>> {
    if !lines.iter().any(|line| line.points.len() > 1) {
        return Ok(None);
    }
    let named = lines.iter().filter(|line| line.look != Look::Thin);
    let ends = named.filter_map(|line| {
        let ((from, first), (to, last)) = (line.points.first()?, line.points.last()?);
        Some(format!("{}: {first:.3} at step {from}, {last:.3} at step {to}", line.name))
    });
    let text = ends.collect::<Vec<_>>().join("; ");
    // The page sets the size.
    let picture = svg(&title, lines, "PPO step", axis)?;
    Ok(Some(Chart { svg: picture, title, text }))
}
