//! Statistics of samples, as pure functions: exact tests, bootstrap, comparisons at matched length.
//!
//! `scripts/golden_stats.py` computes the same with numpy and scipy, for the unit tests.

mod bins;
pub mod distinct;
mod figure;
pub mod fit;
mod resample;
mod statistics;

pub use bins::Bins;
pub use figure::{Figure, HIGH, LOW, Place, RESAMPLES};
pub use resample::{Bootstrap, Draw, Grid, Part};
pub use statistics::{area_weights, auc, first_at_least, mcnemar, mean, percentile_interval, quantile, sign_flip};
