//! A comparison as a picture: a line with its band for each arm, thin lines for its runs, references dashed.

use super::compare::Comparison;
use super::curve::{Look, Series};
use super::svg::svg;
use anyhow::Result;

/// The text of an SVG file with the curves of a comparison.
///
/// # Errors
/// There is no point to draw.
pub fn picture(comparison: &Comparison) -> Result<String> {
    let place = |(step, value): &(u64, f64)| (*step as f64, *value);
    let arm = |name: &str| comparison.arms.iter().position(|arm| arm.arm == name).unwrap_or(0);
    let mut all = Vec::new();
    // A single run of an arm is the arm's line.
    for run in &comparison.runs {
        if comparison.runs.iter().filter(|other| other.arm == run.arm).count() > 1 {
            let points = run.points.iter().map(place).collect();
            all.push(Series { points, look: Look::Thin, colour: arm(&run.arm), ..Series::default() });
        }
    }
    let references = comparison.reference.iter().flat_map(|r| r.curves.iter().map(move |curve| (r, curve)));
    all.extend(references.enumerate().map(|(colour, (reference, curve))| Series {
        name: reference.label(curve),
        points: curve.points.iter().map(place).collect(),
        look: Look::Reference,
        colour,
        ..Series::default()
    }));
    all.extend(comparison.arms.iter().enumerate().map(|(colour, arm)| Series {
        name: arm.arm.clone(),
        points: arm.points.iter().map(|point| (point.step as f64, point.mean)).collect(),
        band: arm.points.iter().filter_map(|p| p.band.map(|[low, high]| (p.step as f64, low, high))).collect(),
        colour,
        ..Series::default()
    }));
    let unit = if comparison.shares { ", %" } else { "" };
    let steps = if comparison.metric.starts_with("sft/") { "step of the warm start" } else { "PPO step" };
    svg(&comparison.metric, &all, steps, &format!("{}{unit}", comparison.metric))
}
