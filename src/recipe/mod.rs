//! Recipes: raw TOML -> checked plan -> printed report.
//!
//! Decided: only a `Plan` runs, and a plan holds nothing that the checks have not seen. Whatever is wrong with a recipe
//! is one `BadInput` message with the place in the file or the override, what was expected, and the nearest right name.

mod check;
mod fit;
pub mod identity;
mod memory;
mod plan;
mod raw;
mod read;
mod report;
mod source;
mod spelling;

pub use fit::{Fit, Machine, fit};
pub use memory::{Part, Phase, estimate, on_host, peak, total};
pub use plan::Plan;
pub use raw::*;
pub use report::{json, report};

use anyhow::Result;
use std::path::Path;

/// Reads a recipe, applies the overrides `KEY=VALUE` of `sets` in order, and checks it. `out` is the run folder
/// (default: `checkpoints/NAME`).
///
/// # Errors
/// `BadInput` for the first thing found wrong: one message that shows its line.
pub fn load(path: &Path, sets: &[String], out: Option<&Path>) -> Result<Plan> {
    let (recipe, sources) = read::read(path, sets)?;
    Ok(Plan::check(recipe, &sources, out)?)
}

/// A recipe as it was written out by a run, without its checks: the model it names may be gone.
///
/// # Errors
/// Bad input: a file that cannot be read or is no recipe.
pub fn stored(path: &Path) -> Result<Recipe> {
    Ok(read::read(path, &[])?.0)
}

#[cfg(test)]
mod tests;
