//! Lines of a picture, and how they are read from records.

use crate::metrics::{Record, Stage};
use std::collections::BTreeMap;

/// Beyond this a number counts as infinite in a picture.
const FARTHEST: f64 = 1e30;

/// One line of a picture.
#[derive(Clone, Default)]
pub struct Series {
    pub name: String,
    /// (x, y), in the order of x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// (x, low, high) of the band around the line.
    pub band: Vec<(f64, f64, f64)>,
    pub look: Look,
    /// Lines of one colour belong together. It also decides dashes and marks, for those who do not see colours.
    pub colour: usize,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Strong, and named in the legend.
    #[default]
    Line,
    /// Thin and pale, without a name.
    Thin,
    /// Dashed and grey, and named in the legend.
    Reference,
}

impl Series {
    /// Lines side by side, each of its own colour.
    pub fn lines(lines: impl IntoIterator<Item = (String, Vec<(f64, f64)>)>) -> Vec<Self> {
        let all = lines.into_iter().enumerate();
        all.map(|(colour, (name, points))| Self { name, points, colour, ..Self::default() }).collect()
    }

    /// Without what cannot be drawn.
    pub fn drawable(&self) -> Self {
        let fits = |value: f64| value.abs() < FARTHEST;
        Self {
            points: self.points.iter().filter(|(x, y)| fits(*x) && fits(*y)).copied().collect(),
            band: self.band.iter().filter(|(x, low, high)| fits(*x) && fits(*low) && fits(*high)).copied().collect(),
            name: self.name.clone(),
            ..*self
        }
    }

    /// All places that the picture has to have room for.
    pub fn places(&self) -> impl Iterator<Item = (f64, f64)> {
        let band = self.band.iter().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        self.points.iter().copied().chain(band)
    }
}

/// The values of a metric over the steps of a stage. If a step was recorded twice, the later record wins.
pub fn points(records: &[Record], stage: Stage, name: &str) -> Vec<(f64, f64)> {
    let records = records.iter().filter(|record| record.stage == stage);
    let values: BTreeMap<u64, f64> = records.filter_map(|record| Some((record.step, record.get(name)?))).collect();
    values.into_iter().map(|(step, value)| (step as f64, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_recorded_twice_counts_once() {
        let record = |step, value| {
            let mut record = Record::new(Stage::Ppo, step);
            record.set("x", value);
            record
        };
        let records = [record(1, 1.0), record(2, 2.0), Record::new(Stage::Ppo, 3), record(1, 3.0)];
        assert_eq!(points(&records, Stage::Ppo, "x"), [(1.0, 3.0), (2.0, 2.0)]);
    }
}
