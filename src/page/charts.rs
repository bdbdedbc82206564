//! The page's pictures of lines.

use crate::analysis::{Arm, ArmCurve, Look, Metric, Run, Series, arm_curves, svg};
use crate::terminal::figure;
use crate::text::visible;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeSet;

/// Resamples behind the bands of learning curves: enough to draw them.
pub const RESAMPLES: usize = 500;

/// Most points of a line that is shown with its runs.
const CROWD: usize = 60;

/// A picture with what a reader who does not see it needs.
#[derive(Serialize)]
pub struct Chart {
    pub title: String,
    /// The SVG's first tag without its end, so that a name can be put into it.
    pub tag: String,
    /// What follows that tag.
    pub svg: String,
    /// First and last value of every line.
    pub text: String,
}

/// Curves of training that are shown if the runs have them: metric, title, axis.
const CURVES: [(&str, &str, &str); 6] = [
    ("critic/rewards/mean", "Reward in training", "reward"),
    ("reward/accuracy", "Accuracy in training", "accuracy, %"),
    ("reward/format", "Format in training", "format, %"),
    ("response_length/mean", "Response length in training", "tokens"),
    ("actor/reward_kl_penalty", "KL from the start", "nats"),
    ("actor/entropy", "Entropy of the policy", "nats"),
];
/// What is shown of each evaluation: the last part of the metric's name, title, axis.
const EVALUATED: [(&str, &str, &str); 4] = [
    ("accuracy", "Accuracy", "accuracy, %"),
    ("macro_f1", "Macro-F1", "macro-F1, %"),
    ("reward", "Reward", "reward"),
    ("response_length", "Response length", "tokens"),
];

/// The learning curves of all arms, validation first.
///
/// # Errors
/// A picture cannot be drawn.
pub fn curves(runs: &[Run], arms: &[Arm]) -> Result<Vec<Chart>> {
    let scalars: BTreeSet<&str> = runs.iter().flat_map(Run::scalars).collect();
    let evaluations: BTreeSet<&str> =
        scalars.iter().filter_map(|name| name.strip_prefix("val/")?.strip_suffix("/accuracy")).collect();
    let mut wanted: Vec<(String, String, &str)> = vec![];
    for (last, title, axis) in EVALUATED {
        for task in &evaluations {
            let title = format!("{title} on held-out problems: {}", task.replace('_', ", "));
            wanted.push((format!("val/{task}/{last}"), title, axis));
        }
    }
    wanted.extend(CURVES.map(|(name, title, axis)| (name.to_string(), title.to_string(), axis)));
    let mut charts = vec![];
    for (name, title, axis) in wanted.into_iter().filter(|(name, ..)| scalars.contains(name.as_str())) {
        let metric = Metric::named(&name);
        let means = arm_curves(runs, arms, &metric, RESAMPLES);
        let lines: Vec<Series> = arms
            .iter()
            .zip(means)
            .enumerate()
            .flat_map(|(at, (arm, mean))| lines(runs, &metric, arm, &mean, at))
            .collect();
        charts.extend(chart(title, &lines, axis)?);
    }
    Ok(charts)
}

/// An arm's mean with its band, and if it has several runs, a thin line for each, unless so many points would hide all.
fn lines(runs: &[Run], metric: &Metric, arm: &Arm, mean: &ArmCurve, colour: usize) -> Vec<Series> {
    let thin = |run: &usize| Series {
        points: runs[*run].points(metric).into_iter().map(|(step, value)| (step as f64, value)).collect(),
        look: Look::Thin,
        colour,
        ..Series::default()
    };
    let several = arm.runs.len() > 1 && mean.points.len() <= CROWD;
    let mean = Series {
        name: arm.name.clone(),
        points: mean.points.iter().map(|point| (point.step as f64, point.mean)).collect(),
        band: mean.points.iter().filter_map(|p| p.band.map(|[low, high]| (p.step as f64, low, high))).collect(),
        colour,
        ..Series::default()
    };
    arm.runs.iter().filter(|_| several).map(thin).chain([mean]).collect()
}

/// A picture of the lines, if any of them has a point.
///
/// # Errors
/// It cannot be drawn.
pub fn chart(title: String, lines: &[Series], axis: &str) -> Result<Option<Chart>> {
    if !lines.iter().any(|line| line.points.iter().any(|(_, y)| y.is_finite())) {
        return Ok(None);
    }
    let number = |value: f64| if axis.ends_with('%') { format!("{:.1} %", 100.0 * value) } else { figure(value) };
    let named = lines.iter().filter(|line| line.look == Look::Line);
    let ends = named.filter_map(|line| {
        let ((from, first), (to, last)) = (line.points.first()?, line.points.last()?);
        let start = format!("{} at step {from}", number(*first));
        let end = if from == to { String::new() } else { format!(", {} at step {to}", number(*last)) };
        Some(format!("{}: {start}{end}", line.name))
    });
    let text = ends.collect::<Vec<_>>().join("; ");
    let shown = lines.iter().map(|line| Series { name: visible(&line.name).into_owned(), ..line.clone() });
    let shown: Vec<Series> = shown.collect();
    // The page has the title, and sets the size.
    let picture = svg("", &shown, "PPO step", axis)?;
    let (tag, rest) = picture.split_once('>').unwrap_or((&picture, ""));
    Ok(Some(Chart { title, tag: tag.into(), svg: rest.into(), text }))
}
