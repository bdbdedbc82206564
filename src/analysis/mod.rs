//! Reading finished and running experiments: curves from the records of a run folder.

mod compare;
mod curve;
mod resample;
mod statistics;
mod summary;

pub use crate::metrics::jsonl::read as read_jsonl;
pub use compare::Comparison;
pub use curve::{Series, learning_curve, points};
pub use summary::{TITLES, before_and_after, draw_curve};
