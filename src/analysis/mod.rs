//! Reading finished and running experiments: curves from the records of a run folder, and comparisons of runs.

mod arms;
mod classification;
mod compare;
mod csv;
mod curve;
mod data;
mod lengths;
mod pairs;
mod picture;
mod png;
mod reference;
mod report;
mod runs;
mod spread;
mod summary;
#[cfg(test)]
mod tests;

pub use crate::metrics::jsonl::read as read_jsonl;
pub use arms::{Arm, Arms};
pub use classification::{Answers, Summary, commonest};
pub use compare::{Comparison, Settings};
pub use csv::csv;
pub use curve::{Look, Series, learning_curve, points, svg};
pub use pairs::Paired;
pub use picture::picture;
pub use png::png;
pub use reference::Reference;
pub use report::{markdown, text};
pub use runs::{Metric, Run};
pub use spread::Allowed;
pub use summary::{TITLES, before_and_after, draw_curve};
