//! Reading finished and running experiments: curves from the records of a run folder, and comparisons of runs.

mod arms;
mod classification;
mod compare;
mod csv;
mod curve;
mod data;
mod lengths;
mod marks;
mod origin;
mod pairs;
mod picture;
mod png;
mod reference;
mod report;
mod runs;
mod singles;
mod spread;
mod summary;
mod svg;
#[cfg(test)]
mod tests;
mod warm_starts;

pub use crate::metrics::jsonl::read as read_jsonl;
pub use arms::{Arm, Arms};
pub use classification::{Answers, Baseline, Summary, commonest};
pub use compare::{ArmCurve, Comparison, Settings, arm_curves, thinned};
pub use csv::csv;
pub use curve::{Look, Series, points};
pub use pairs::Paired;
pub use picture::picture;
pub use png::png;
pub use reference::Reference;
pub use report::{markdown, text};
pub use runs::{Metric, Run};
pub use singles::Singles;
pub use spread::Allowed;
pub use summary::{TITLES, before_and_after, draw_curve};
pub use svg::{learning_curve, svg};
