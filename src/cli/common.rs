//! What several commands share.

use anyhow::{Context, Error, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ppo_train::checkpoint::{Checkpoint, RunFolder, ensure_whole};
use ppo_train::dist::is_first;
use ppo_train::plan::{self, Plan};
use ppo_train::recipe::{self, Decoding, Recipe};
use ppo_train::task::Split;
use ppo_train::terminal;
use ppo_train::{BAD_INPUT, BadInput, Stopped, bad};
use serde_json::Value;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;
use tch::Kind;

/// A recipe and the overrides given on the command line.
#[derive(Args)]
pub struct RecipeArgs {
    /// The recipe: a TOML file that describes the experiment.
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

    /// The recipe alone, without the checks of a plan: the model and the files that it names may be missing.
    ///
    /// # Errors
    /// Bad input: a file that cannot be read or is not a recipe, or an override that does not fit it.
    pub fn read(&self) -> Result<Recipe> {
        let (recipe, sources) = recipe::read(&self.recipe, &self.overrides.sets)?;
        sources.notes.iter().for_each(|note| terminal::warn(note));
        Ok(recipe)
    }
}

/// How long a process waits for the launcher to end it, once the first has ended.
const ENDED: Duration = Duration::from_secs(8);

/// A command that has said everything, and ends with this exit code.
#[derive(Debug)]
pub struct Silent(pub u8);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Silent {}

/// An error that all processes of `mpirun` or `srun` find before they know each other: the first of them says it, which
/// ends the others.
pub fn said_once(error: impl Into<Error>) -> Error {
    if is_first() {
        return error.into();
    }
    sleep(ENDED);
    Silent(BAD_INPUT).into()
}

/// Says why a command has failed; returns its exit code.
pub fn report(error: &Error) -> u8 {
    // `ppo-train plan RECIPE | head`: the reader has seen enough.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return 0;
    }
    if let Some(Silent(code)) = error.downcast_ref() {
        return *code;
    }
    terminal::warn(&format!("error: {error:#}"));
    match error {
        e if e.is::<BadInput>() => BAD_INPUT,
        e if e.is::<Stopped>() => 75,
        _ => 1,
    }
}

/// The command-line parser, which `completions` needs.
pub static PARSER: OnceLock<clap::Command> = OnceLock::new();

pub const STDOUT: &str = "cannot write to standard output";

/// Writes a line to standard output, harmless to a terminal.
///
/// # Errors
/// It cannot be written; if the reader is gone (a closed pipe), `main` exits quietly.
pub fn print(line: impl Display) -> Result<()> {
    writeln!(std::io::stdout(), "{}", terminal::harmless(&line.to_string())).context(STDOUT)
}

/// JSON in which the control characters above ASCII are spelt out too.
fn without_controls(json: &str) -> String {
    let spelt = |c: char| if c.is_control() && c != '\n' { format!("\\u{:04x}", c as u32) } else { c.into() };
    json.chars().map(spelt).collect()
}

/// Writes JSON to standard output.
///
/// # Errors
/// Same as `print`.
pub fn print_json(value: &Value) -> Result<()> {
    print(without_controls(&serde_json::to_string_pretty(value)?))
}

/// The same in one line.
///
/// # Errors
/// Same as `print`.
pub fn print_json_line(value: &Value) -> Result<()> {
    print(without_controls(&value.to_string()))
}

/// The actor's folder in a checkpoint; a run's `start` is itself a model folder.
///
/// # Errors
/// Bad input: a whole run's folder, with its newest step named.
pub fn model_of(checkpoint: &Path) -> Result<PathBuf> {
    let inner = Checkpoint::at(checkpoint).model();
    if inner.exists() {
        return Ok(inner);
    }
    let run = RunFolder::new(checkpoint);
    if let Some(newest) = run.latest()? {
        let (run, step) = (checkpoint.display(), newest.path().display());
        return Err(bad!("{run} is the folder of a run: name one of its steps, such as {step}"));
    }
    Ok(checkpoint.to_path_buf())
}

/// The actor's folder in a checkpoint, once its files are known to be those that were saved, and so the checkpoint's
/// other `parts`.
///
/// # Errors
/// Bad input: as `model_of`; a checkpoint that is not complete; a damaged file, which is named.
pub fn whole_model_of(checkpoint: &Path, parts: &[&str]) -> Result<PathBuf> {
    let model = model_of(checkpoint)?;
    let parts = if model == checkpoint { vec![] } else { [&["model"], parts].concat() };
    ensure_whole(checkpoint, &parts)?;
    Ok(model)
}

/// The recipe of a checkpoint's run.
///
/// # Errors
/// Bad input: there is none.
pub fn recipe_of(checkpoint: &Path) -> Result<PathBuf> {
    let recipes = [Checkpoint::at(checkpoint).recipe(), RunFolder::new(&checkpoint.join("..")).recipe()];
    recipes.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let shown = checkpoint.display();
        bad!(
            "{shown} is not a checkpoint of a run: there is no recipe.toml in it or beside it; name a recipe with \
             --recipe"
        )
    })
}

/// Overrides that take shape and tokenizer from a checkpoint's own model folder, if it has both: what the recipe names
/// may be gone or have changed.
pub fn self_contained(model: &Path) -> Vec<String> {
    let own = |key: &str| format!("{key}={}", Value::from(model.display().to_string()));
    let whole = ["config.json", "tokenizer.json"].iter().all(|file| model.join(file).is_file());
    if whole { vec![own("model.path"), own("model.tokenizer")] } else { vec![] }
}

/// Parses the name of a split.
pub fn split() -> impl TypedValueParser<Value = Split> {
    PossibleValuesParser::new(Split::ALL.map(Split::name))
        .try_map(|name| Split::ALL.into_iter().find(|split| split.name() == name).ok_or("not a split"))
}

/// Parses a sampling temperature, with the bounds that a recipe's has.
pub fn temperature(text: &str) -> Result<f64, String> {
    let known = |value: &f64| *value == 0.0 || (0.001..=100.0).contains(value);
    text.parse().ok().filter(known).ok_or_else(|| "expected 0, or a number from 0.001 to 100".to_string())
}

/// Parses the name of a precision.
pub fn precision() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(["float32", "bfloat16"])
        .map(|name| if name == "float32" { Kind::Float } else { Kind::BFloat16 })
}

/// Parses the name of a decoding mode.
pub fn decoding() -> impl TypedValueParser<Value = Decoding> {
    PossibleValuesParser::new(Decoding::ALL.map(Decoding::name))
        .try_map(|name| Decoding::ALL.into_iter().find(|way| way.name() == name).ok_or("not a decoding mode"))
}
