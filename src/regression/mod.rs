//! Regressions over tables: formulas, the columns that they name, models and mediations, and their report.

mod cell;
mod design;
mod formula;
mod model;
pub mod parse;
mod paths;
mod pieces;
mod report;
mod study;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use model::{Family, Model};
pub use paths::Mediation;
pub use report::markdown;
pub use study::{Correction, Request, Study};
pub use table::{Filter, Named, Source};
pub use words::{Fault, MAX_LENGTH};
