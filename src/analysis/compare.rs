//! Runs side by side, arms and seeds: what `ppo-train compare` computes. docs/compare.md says what each figure means.

use super::arms::{Arm, Arms};
use super::data::Data;
use super::lengths::{self, Layout, Matched};
use super::pairs::{self, Differing, Exact};
use super::reference::Reference;
use super::runs::{Metric, Run};
use super::warm_starts::WarmStarts;
use crate::bad;
use crate::stats::{Bootstrap, Grid, area_weights, first_at_least, mean};
use anyhow::Result;
use serde::Serialize;

/// The steps at which the paper (arXiv:2601.10825) gives figures.
const PAPER: [u64; 4] = [40, 70, 150, 250];
/// Most steps of a table if none are asked for.
const MOST_STEPS: usize = 6;

/// The band of a single run, as its hook recorded it.
const RECORDED: &str = "as the hook drew";

/// What a user can choose.
pub struct Settings {
    /// Steps of the tables.
    pub steps: Option<Vec<u64>>,
    /// Values whose first step is looked for (default: a quarter and a half, for shares and rewards).
    pub thresholds: Option<Vec<f64>>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
}

/// Everything that is computed, in the layout of its JSON.
#[derive(Serialize)]
pub struct Comparison {
    pub metric: String,
    /// Whether the metric's values are shares from 0 to 1.
    pub shares: bool,
    pub warm_starts: WarmStarts,
    pub notes: Vec<String>,
    /// The steps of the tables.
    pub steps: Vec<u64>,
    pub runs: Vec<RunCurve>,
    pub arms: Vec<ArmCurve>,
    pub differences: Vec<Differing>,
    pub exact: Vec<Exact>,
    pub areas: Vec<Area>,
    pub thresholds: Vec<Reached>,
    pub matched: Vec<Matched>,
    pub layout: Vec<Layout>,
    pub reference: Option<Reference>,
}

/// A run's values.
#[derive(Serialize)]
pub struct RunCurve {
    pub run: String,
    pub arm: String,
    pub seed: Option<u64>,
    /// (step, value)
    pub points: Vec<(u64, f64)>,
}

/// An arm's mean over its runs, at the steps that all of them have.
#[derive(Serialize)]
pub struct ArmCurve {
    pub arm: String,
    pub points: Vec<Point>,
}

/// A mean with its bootstrap band.
#[derive(Serialize)]
pub struct Point {
    pub step: u64,
    pub mean: f64,
    pub band: Option<[f64; 2]>,
    /// What the bootstrap draws: `seeds`, `problems`, `seeds and problems`, or nothing; or `RECORDED`.
    pub over: Option<&'static str>,
}

/// The mean height of a curve between two steps, straight lines between evaluations.
#[derive(Serialize)]
pub struct Area {
    pub arm: String,
    pub from: u64,
    pub to: u64,
    pub area: f64,
    pub band: Option<[f64; 2]>,
    /// Of each run, in the order of the arm's runs.
    pub runs: Vec<f64>,
}

/// The first evaluation at or above a threshold.
#[derive(Serialize)]
pub struct Reached {
    pub arm: String,
    /// `None`: the arm's mean.
    pub run: Option<String>,
    pub threshold: f64,
    pub step: Option<u64>,
}

impl Comparison {
    /// Compares the arms of `runs`.
    ///
    /// # Errors
    /// Bad input: a run without the metric; steps that not every run has.
    pub fn of(runs: &[Run], arms: Arms, metric: &Metric, settings: &Settings) -> Result<Self> {
        let data = Data::new(runs, metric);
        if let Some(run) = (0..runs.len()).find(|run| data.points(*run).is_empty()) {
            return Err(bad!("{} has no metric {}", runs[run].dir.display(), metric.name));
        }
        let Arms { arms, warm_starts, mut notes } = arms;
        let common = data.common_steps(&(0..runs.len()).collect::<Vec<_>>());
        let steps = chosen(&common, settings.steps.as_deref())?;
        notes.extend(data.gaps(&common));
        notes.extend(ends(&data, &common));
        notes.extend(pairs::unpaired(&data, &arms));
        let bootstrap = Bootstrap::new(settings.resamples, data.problems());
        let usual: &[f64] = if metric.is_share || metric.figure() == "reward" { &[0.25, 0.5] } else { &[] };
        Ok(Self {
            metric: metric.name.clone(),
            shares: metric.is_share,
            runs: run_curves(&data, &arms),
            arms: arms.iter().map(|arm| arm_curve(&data, arm, &bootstrap)).collect(),
            differences: pairs::differences(&data, &arms, &steps, &common, &bootstrap),
            exact: pairs::exact(&data, &arms, &steps),
            areas: areas(&data, &arms, &common, &bootstrap),
            thresholds: thresholds(&data, &arms, settings.thresholds.as_deref().unwrap_or(usual)),
            matched: lengths::matched(&data, &arms, &steps, &bootstrap),
            layout: lengths::layout(&data, &arms, &steps),
            reference: None,
            warm_starts,
            notes,
            steps,
        })
    }
}

/// The steps of the tables.
fn chosen(common: &[u64], asked: Option<&[u64]>) -> Result<Vec<u64>> {
    if let Some(asked) = asked {
        if let Some(missing) = asked.iter().find(|step| !common.contains(step)) {
            let known: Vec<String> = thinned(common, 30).iter().map(u64::to_string).collect();
            let known = if known.is_empty() { "no step".into() } else { known.join(", ") };
            return Err(bad!("not every run has the step {missing}; they share {known}"));
        }
        let mut asked = asked.to_vec();
        asked.sort_unstable();
        asked.dedup();
        return Ok(asked);
    }
    let paper: Vec<u64> = PAPER.into_iter().filter(|step| common.contains(step)).collect();
    Ok(if paper.is_empty() { thinned(common, MOST_STEPS) } else { paper })
}

/// At most `most` (two or more) of the steps, evenly, with the first and the last.
pub fn thinned<T: Copy>(steps: &[T], most: usize) -> Vec<T> {
    if steps.len() <= most {
        return steps.to_vec();
    }
    (0..most).map(|i| steps[i * (steps.len() - 1) / (most - 1)]).collect()
}

/// Which runs end before others.
fn ends(data: &Data, common: &[u64]) -> Option<String> {
    let last = |run: usize| data.points(run).last().map_or(0, |(step, _)| *step);
    let longest = (0..data.runs.len()).map(last).max().unwrap_or(0);
    let early = (0..data.runs.len()).filter(|run| last(*run) < longest);
    let early: Vec<String> = early.map(|run| format!("{} at step {}", data.runs[run].name, last(run))).collect();
    let covered = match (common.first(), common.last()) {
        (Some(first), Some(last)) => format!("tables and areas cover the steps {first} to {last}, which all runs have"),
        _ => "the runs share no step, so there are only curves".into(),
    };
    (!early.is_empty() || common.is_empty()).then(|| match early.is_empty() {
        true => covered,
        false => format!("ended early: {}; {covered}", early.join(", ")),
    })
}

fn run_curves(data: &Data, arms: &[Arm]) -> Vec<RunCurve> {
    let of = |arm: &Arm| -> Vec<RunCurve> {
        let curve = |run: &usize| RunCurve {
            run: data.runs[*run].name.clone(),
            arm: arm.name.clone(),
            seed: data.runs[*run].seed(),
            points: data.points(*run),
        };
        arm.runs.iter().map(curve).collect()
    };
    arms.iter().flat_map(of).collect()
}

/// The curves of arms alone. Runs without the metric have no part in them.
pub fn arm_curves(runs: &[Run], arms: &[Arm], metric: &Metric, resamples: usize) -> Vec<ArmCurve> {
    let data = Data::new(runs, metric);
    let bootstrap = Bootstrap::new(resamples, data.problems());
    let having = |arm: &Arm| {
        let runs = arm.runs.iter().copied().filter(|run| !data.points(*run).is_empty()).collect();
        Arm { name: arm.name.clone(), runs }
    };
    arms.iter().map(|arm| arm_curve(&data, &having(arm), &bootstrap)).collect()
}

fn arm_curve(data: &Data, arm: &Arm, bootstrap: &Bootstrap) -> ArmCurve {
    let point = |step: u64| {
        let grid = data.grids(&[&arm.runs], step)?.pop()?;
        // Of one value there is nothing to draw; a hook may have drawn before.
        let recorded = |run: usize| Some((Some(data.recorded(run, step)?), Some(RECORDED)));
        let known = match arm.runs.as_slice() {
            [only] if grid.problems() == 1 => recorded(*only),
            _ => None,
        };
        let (band, over) = known.unwrap_or_else(|| (bootstrap.mean(&grid), drawn(&grid)));
        Some(Point { step, mean: grid.mean(), band, over })
    };
    let steps = data.common_steps(&arm.runs);
    ArmCurve { arm: arm.name.clone(), points: steps.into_iter().filter_map(point).collect() }
}

/// What a bootstrap of the grid draws.
fn drawn(grid: &Grid) -> Option<&'static str> {
    match (grid.seeds(), grid.problems()) {
        (1, 1) => None,
        (1, _) => Some("problems"),
        (_, 1) => Some("seeds"),
        _ => Some("seeds and problems"),
    }
}

fn areas(data: &Data, arms: &[Arm], steps: &[u64], bootstrap: &Bootstrap) -> Vec<Area> {
    let ([from, .., to], weights) = (steps, area_weights(steps)) else { return vec![] };
    let area = |arm: &Arm| {
        let grid = pairs::over_steps(data, &[&arm.runs], steps, &weights)?.pop()?;
        let (area, band) = (grid.mean(), bootstrap.mean(&grid));
        Some(Area { arm: arm.name.clone(), from: *from, to: *to, area, band, runs: grid.means() })
    };
    arms.iter().filter_map(area).collect()
}

fn thresholds(data: &Data, arms: &[Arm], thresholds: &[f64]) -> Vec<Reached> {
    let mut all = Vec::new();
    for &threshold in thresholds {
        for arm in arms {
            let name = || arm.name.clone();
            let means = data.common_steps(&arm.runs).into_iter().map(|step| {
                let values: Vec<f64> = data.grids(&[&arm.runs], step).map_or(vec![], |grids| grids[0].means());
                (step, mean(&values))
            });
            let step = first_at_least(&means.collect::<Vec<_>>(), threshold);
            all.push(Reached { arm: name(), run: None, threshold, step });
            all.extend(arm.runs.iter().map(|run| Reached {
                arm: name(),
                run: Some(data.runs[*run].name.clone()),
                threshold,
                step: first_at_least(&data.points(*run), threshold),
            }));
        }
    }
    all
}
