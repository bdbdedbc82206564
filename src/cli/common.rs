//! What several commands share.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
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

/// A split by its name.
#[derive(Clone, Copy, ValueEnum)]
pub enum SplitName {
    Train,
    Validation,
    Test,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Split::Train,
            SplitName::Validation => Split::Validation,
            SplitName::Test => Split::Test,
        }
    }
}

/// A way of decoding by its name.
#[derive(Clone, Copy, ValueEnum)]
pub enum DecodingName {
    Greedy,
    Sampled,
}

impl From<DecodingName> for Decoding {
    fn from(name: DecodingName) -> Self {
        match name {
            DecodingName::Greedy => Decoding::Greedy,
            DecodingName::Sampled => Decoding::Sampled,
        }
    }
}
