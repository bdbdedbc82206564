//! Several runs side by side: one metric of each, from its records.

use super::{Series, learning_curve, points, read_jsonl};
use crate::bad;
use crate::metrics::{JSONL, Record, Stage};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A metric over the steps of several runs.
pub struct Comparison {
    pub metric: String,
    series: Vec<Series>,
}

impl Comparison {
    /// Reads the runs' folders. `metric`: a scalar's name (default: the first validation accuracy of the first run).
    ///
    /// # Errors
    /// Bad input: a folder without records, or records without the metric.
    pub fn read(runs: &[PathBuf], metric: Option<&str>) -> Result<Self> {
        let records = runs.iter().map(|run| read_run(run)).collect::<Result<Vec<_>>>()?;
        let metric = match metric {
            Some(metric) => metric.to_string(),
            None => validation_accuracy(records.first().map_or(&[], Vec::as_slice))
                .ok_or_else(|| bad!("the first run has no evaluation; choose a metric with --metric"))?,
        };
        let stage = if metric.starts_with("val/") { Stage::Evaluation } else { Stage::Ppo };
        let series = runs.iter().zip(&records).map(|(run, records)| {
            let points = points(records, stage, &metric);
            if points.is_empty() {
                return Err(bad!("{} has no metric {metric}", run.display()));
            }
            Ok(Series { name: run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned(), points })
        });
        Ok(Self { series: series.collect::<Result<_>>()?, metric })
    }

    /// One row per run: its name, first and last value, and the difference.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |s: &Series| {
            let ((first_step, first), (last_step, last)) = (s.points[0], s.points[s.points.len() - 1]);
            let at = |step: f64, value: f64| format!("{value:.3} (step {step})");
            vec![s.name.clone(), at(first_step, first), at(last_step, last), format!("{:+.3}", last - first)]
        };
        self.series.iter().map(row).collect()
    }

    /// The same as JSON, with every point.
    pub fn json(&self) -> Value {
        let runs: Vec<Value> = self.series.iter().map(|s| json!({"run": s.name, "points": s.points})).collect();
        json!({"metric": self.metric, "runs": runs})
    }

    /// Draws the curves into one picture.
    pub fn draw(&self, picture: &Path) -> Result<()> {
        let share = if self.metric.ends_with("/accuracy") || self.metric.ends_with("/format") { ", %" } else { "" };
        learning_curve(picture, &self.metric, &self.series, "PPO step", &format!("{}{share}", self.metric))
    }
}

fn read_run(run: &Path) -> Result<Vec<Record>> {
    let path = run.join(JSONL);
    if !path.exists() {
        return Err(bad!("{} is not a run folder: it has no metrics.jsonl", run.display()));
    }
    read_jsonl(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn validation_accuracy(records: &[Record]) -> Option<String> {
    let evaluations = records.iter().filter(|record| record.stage == Stage::Evaluation);
    evaluations.flat_map(Record::scalars).map(|(name, _)| name).find(|n| n.ends_with("/accuracy")).map(String::from)
}
