//! The outcome of a run: its first and last evaluation, and its curve.

use super::{Series, learning_curve, points};
use crate::metrics::{Record, Stage, validation};
use crate::recipe::Decoding;
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// Titles of the columns of `before_and_after`.
pub const TITLES: [&str; 6] = ["decoding", "step", "accuracy", "format", "reward", "tokens"];

/// The first and the last evaluation of a run, for each decoding mode.
pub fn before_and_after(records: &[Record], task: &str) -> Vec<Vec<String>> {
    let evaluations: Vec<&Record> = records.iter().filter(|record| record.stage == Stage::Evaluation).collect();
    let row = |decoding: Decoding, record: &Record| -> Option<Vec<String>> {
        let figure = |name: &str| record.get(&format!("{}/{name}", validation(task, decoding.name())));
        Some(vec![
            decoding.name().to_string(),
            record.step.to_string(),
            format!("{:.1} %", 100.0 * figure("accuracy")?),
            format!("{:.1} %", 100.0 * figure("format")?),
            format!("{:.3}", figure("reward")?),
            format!("{:.1}", figure("response_length")?),
        ])
    };
    // Other hooks may have records of this stage too.
    let rows = |decoding: Decoding| {
        let all: Vec<_> = evaluations.iter().filter_map(|record| row(decoding, record)).collect();
        all.first().into_iter().chain(all.last()).cloned().collect::<Vec<_>>()
    };
    [Decoding::Sampled, Decoding::Greedy].into_iter().flat_map(rows).collect()
}

/// Draws the validation accuracies and the training accuracy over the steps of a run.
pub fn draw_curve(records: &[Record], picture: &Path, name: &str) -> Result<()> {
    let curves = |stage: Stage| {
        let of_stage = records.iter().filter(move |record| record.stage == stage);
        let names = of_stage.flat_map(Record::scalars).map(|(name, _)| name).filter(|name| name.ends_with("/accuracy"));
        names.collect::<BTreeSet<_>>().into_iter().map(move |name| (name.to_string(), points(records, stage, name)))
    };
    let series = Series::lines(curves(Stage::Evaluation).chain(curves(Stage::Ppo)));
    learning_curve(picture, name, &series, "PPO step", "accuracy, %")
}
