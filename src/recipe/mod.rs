//! Recipes: TOML in, `Recipe` out.
//!
//! Any error in a recipe is one `BadInput` message with the place in the file or the override, what was expected, and
//! the closest valid name. Whether its values make sense together is for the plan to check.

pub mod document;
pub mod identity;
mod keys;
mod read;
mod renamed;
pub mod schema;
pub mod shape;
mod source;
pub mod spelling;

pub use keys::*;
pub use read::{read, read_keys, read_text};
pub use source::Sources;

use anyhow::Result;
use std::path::Path;

/// A recipe as a run wrote it out, without the checks of a plan: the model it names may be gone.
///
/// # Errors
/// Bad input: a file that cannot be read or is not a recipe.
pub fn stored(path: &Path) -> Result<Recipe> {
    Ok(read(path, &[])?.0)
}
