//! Steering, measured: a direction in the residual stream, what it is added with, and what that changes in the answers
//! to held-out problems (arXiv:2601.10825 steers along a feature of a sparse autoencoder).
//!
//! `direction` is where directions come from, `stream` what is read in the residual stream for them, `scale` what a
//! strength means, `conditions` who answers what, and `report` what it says. The addition itself is the engine's
//! (`rollout::Steering`).

mod conditions;
mod direction;
mod measures;
mod report;
mod scale;
mod stream;

pub use conditions::{Answers, Condition, Setting};
pub use direction::Direction;
pub use measures::Values;
pub use report::{Report, described, markdown};
pub use scale::{Scale, Unit};
pub use stream::{difference_of_means, mean_norm, passages};
