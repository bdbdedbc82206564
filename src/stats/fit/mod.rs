//! Regressions: least squares and Poisson models with fixed effects, errors for clusters, mediation, corrections for
//! several tests. nalgebra does the linear algebra.
//!
//! `scripts/golden_regression.py` computes the same with statsmodels, linearmodels and semopy, for the tests.

mod corrections;
mod draws;
mod effects;
mod errors;
mod estimate;
mod groups;
mod linear;
mod mediation;
mod poisson;
mod sample;
#[cfg(test)]
mod tests;

pub use corrections::{benjamini_hochberg, holm};
pub use draws::Intervals;
pub use effects::Effects;
pub use errors::{Count, Errors};
pub use estimate::Estimate;
pub use groups::Groups;
pub use linear::{Fit, Quality, linear};
pub use mediation::{Collinear, Kind, Order, System, Variables, kinds};
pub use poisson::{informative, poisson};
pub use sample::Sample;
