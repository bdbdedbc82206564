//! The command line. Each command is a file here and a line below.

mod analyze;
mod bench;
mod common;
mod compare;
mod completions;
mod data;
mod dialogues;
mod eval;
mod export;
mod generate;
mod judge;
mod plan;
mod replay;
mod report;
mod sae;
mod schema;
mod status;
mod submit;
mod train;

pub use common::report;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ppo_train::dist::{is_first, processes};
use ppo_train::recipe::spelling::nearest;
use ppo_train::terminal::counted;
use ppo_train::torch;
use ppo_train::{BadInput, bad};
use std::ffi::OsString;
use std::path::Path;

/// Declares the commands: their names, and the structs that hold their arguments and run them.
macro_rules! commands {
    ($($name:ident($arguments:path)),* $(,)?) => {
        #[derive(Subcommand)]
        enum Command {
            $($name(Box<$arguments>)),*
        }

        impl Command {
            fn run(self) -> Result<()> {
                match self {
                    $(Self::$name(command) => command.run()),*
                }
            }
        }
    };
}

commands! {
    Plan(plan::Plan),
    Eval(eval::Eval),
    Generate(generate::Generate),
    Export(export::Export),
    Compare(compare::Compare),
    Analyze(analyze::Analyze),
    Judge(judge::Judge),
    Report(report::Report),
    Sae(sae::SaeCommand),
    Submit(submit::Submit),
    Status(status::Status),
    Replay(replay::Replay),
    Bench(bench::BenchCommand),
    Data(data::Data),
    Dialogues(dialogues::Dialogues),
    Schema(schema::Schema),
    Completions(completions::Completions),
}

/// Train a language model with PPO on a verifiable task, as described by a recipe.
///
/// Example: ppo-train recipes/quickstart.toml --set seed=2 --out checkpoints/second
#[derive(Parser)]
#[command(name = "ppo-train", verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Train,
}

const EXIT_CODES: &str = "Exit codes:
  0   done
  1   failed, or ended by a second signal
  2   bad input: the recipe, the arguments or a file
  75  stopped by a signal with its work saved: a run goes on with --resume, dialogues with the same command
  101 a mistake of the program: please report what it says";

/// The parser; its version names the libtorch that this build is linked to.
fn parser() -> clap::Command {
    let cuda = match (torch::has_cuda(), tch::Cuda::device_count()) {
        (false, _) => "without CUDA".to_string(),
        (true, 0) => "with CUDA, no GPU found".to_string(),
        (true, gpus) => format!("with CUDA, {} found", counted(gpus as usize, "GPU")),
    };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("PPO_TRAIN_COMMIT"));
    Cli::command().version(format!("{version} (commit {commit}), libtorch {} {cuda}", torch::version()))
}

/// Runs a command line.
///
/// # Errors
/// Those of the command. Parse errors, `--help` and `--version` exit the process here.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    refuse_unknown_command(&arguments).map_err(common::said_once)?;
    let parsed = common::PARSER.get_or_init(parser).clone().try_get_matches_from(arguments);
    let Cli { command, train } = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(parsed) => parsed,
        Err(error) if is_first() => error.exit(),
        Err(error) if error.exit_code() == 0 => return Ok(()),
        Err(error) => return Err(common::said_once(error)),
    };
    match (command, processes()) {
        (None, _) => train.run(),
        (Some(command), None) => command.run(),
        (Some(_), Some(count)) => Err(common::said_once(bad!(
            "this is one of {count} processes, which would all do the same: mpirun and srun divide the work of \
             training alone; start this command without them"
        ))),
    }
}

/// A first word that is not a command and does not look like a file is a mistyped command, not a recipe.
fn refuse_unknown_command(arguments: &[OsString]) -> Result<(), BadInput> {
    let Some(word) = arguments.get(1).and_then(|word| word.to_str()) else { return Ok(()) };
    let parser = Cli::command();
    let known: Vec<&str> = parser.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    if known.contains(&word) || word.is_empty() || word.contains(['-', '.', '/']) || Path::new(word).exists() {
        return Ok(());
    }
    let hint = nearest(word, &known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    Err(BadInput(format!("`{word}` is neither a command nor a recipe{hint}\nthe commands are: {}", known.join(", "))))
}
