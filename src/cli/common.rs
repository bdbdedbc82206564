//! What several commands share.

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ppo_train::checkpoint::Checkpoint;
use ppo_train::plan::{self, Plan};
use ppo_train::recipe::Decoding;
use ppo_train::task::Split;
use serde_json::Value;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A recipe, and what the command line changes of it.
#[derive(Args)]
pub struct RecipeArgs {
    /// The experiment, a TOML file.
    pub recipe: PathBuf,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Args)]
pub struct Overrides {
    /// Override a key of the recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The run folder (default: checkpoints/NAME).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Overrides {
    pub fn load(&self, recipe: &Path) -> Result<Plan> {
        plan::load(recipe, &self.sets, self.out.as_deref())
    }
}

impl RecipeArgs {
    pub fn load(&self) -> Result<Plan> {
        self.overrides.load(&self.recipe)
    }
}

/// The whole command line, for the command that completes it.
pub static PARSER: OnceLock<clap::Command> = OnceLock::new();

pub const STDOUT: &str = "cannot write to the standard output";

/// Writes a line to the standard output.
///
/// # Errors
/// It cannot be written; where nobody reads any more (a closed pipe), `main` ends quietly.
pub fn print(line: impl Display) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context(STDOUT)
}

/// Writes JSON to the standard output.
///
/// # Errors
/// As `print`.
pub fn print_json(value: &Value) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// The actor's folder in a checkpoint; a run's `start` is one itself.
pub fn model_of(checkpoint: &Path) -> PathBuf {
    let inner = Checkpoint::at(checkpoint).model();
    if inner.exists() { inner } else { checkpoint.to_path_buf() }
}

/// Reads a split's name.
pub fn split() -> impl TypedValueParser<Value = Split> {
    PossibleValuesParser::new(Split::ALL.map(Split::name))
        .try_map(|name| Split::ALL.into_iter().find(|split| split.name() == name).ok_or("no split"))
}

/// Reads the name of a way of decoding.
pub fn decoding() -> impl TypedValueParser<Value = Decoding> {
    PossibleValuesParser::new(Decoding::ALL.map(Decoding::name))
        .try_map(|name| Decoding::ALL.into_iter().find(|way| way.name() == name).ok_or("no way of decoding"))
}
