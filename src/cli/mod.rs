//! The command line: what each command is told.

mod commands;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use commands::{Generation, Target, compare, data, eval, export, generate, load, plan};
use ppo_train::BadInput;
use ppo_train::recipe::Decoding;
use ppo_train::task::Split;
use ppo_train::train;
use std::path::PathBuf;

/// Trains language models by PPO on verifiable tasks, as a recipe says.
///
/// Example: ppo-train recipes/quickstart.toml --set seed=2 --out checkpoints/second
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args)]
struct RunArgs {
    /// The experiment, a TOML file.
    recipe: Option<PathBuf>,
    /// Continue the run in the output folder from its newest checkpoint.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Args)]
struct Overrides {
    /// Override a key of the recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The run folder (default: checkpoints/NAME).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a recipe and print what it would do and need, without doing it.
    ///
    /// Example: ppo-train plan recipes/conversation_sft.toml --memory 80
    #[command(verbatim_doc_comment)]
    Plan {
        recipe: PathBuf,
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        target: Target,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure a checkpoint of a run on held-out problems.
    ///
    /// Example: ppo-train eval checkpoints/quickstart/step_000060 --split test --decoding sampled
    #[command(verbatim_doc_comment)]
    Eval {
        /// A step's folder of a run; the recipe lies in it.
        checkpoint: PathBuf,
        #[arg(long, default_value = "test")]
        split: SplitName,
        #[arg(long, default_value = "greedy")]
        decoding: DecodingName,
        /// The first so many problems (0: all).
        #[arg(long, default_value_t = 0)]
        problems: usize,
        /// Print JSON: the means, and one entry a problem.
        #[arg(long)]
        json: bool,
    },
    /// Continue a prompt with a model.
    ///
    /// Example: ppo-train generate checkpoints/quickstart/start --prompt $'Numbers: 3 5 7\nTarget: 22\n'
    #[command(verbatim_doc_comment)]
    Generate(Generation),
    /// Write a checkpoint's model as a Hugging Face folder, for transformers or vLLM.
    ///
    /// Example: ppo-train export checkpoints/quickstart/step_000044 exported
    #[command(verbatim_doc_comment)]
    Export {
        /// A step's folder of a run, or its `start`.
        checkpoint: PathBuf,
        /// The folder to write; it must not exist.
        dir: PathBuf,
        /// Write the critic, a token classifier with one label, instead of the actor.
        #[arg(long)]
        critic: bool,
    },
    /// Lay one metric of several runs side by side, as a table and as curves.
    ///
    /// Example: ppo-train compare checkpoints/quickstart-1 checkpoints/quickstart-2 --svg curves.svg
    #[command(verbatim_doc_comment)]
    Compare {
        /// Run folders.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// A scalar of metrics.jsonl (default: the first validation accuracy).
        #[arg(long)]
        metric: Option<String>,
        /// Draw the curves into this file.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Print JSON, with every point.
        #[arg(long)]
        json: bool,
    },
    /// Write the problems or the warm start's traces of a recipe as JSONL.
    ///
    /// Example: ppo-train data recipes/quickstart.toml --split test --count 5
    #[command(verbatim_doc_comment)]
    Data {
        recipe: PathBuf,
        #[command(flatten)]
        overrides: Overrides,
        #[arg(long, default_value = "train")]
        split: SplitName,
        /// Write prompt and response of the warm start's rows instead of problems.
        #[arg(long)]
        traces: bool,
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// Default: standard output.
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
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

#[derive(Clone, Copy, ValueEnum)]
enum DecodingName {
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

/// Carries out a command line.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => {
            let recipe = cli.run.recipe.ok_or_else(|| BadInput("expected a recipe; see --help".into()))?;
            train::run::run(&load(&recipe, &cli.run.overrides)?, cli.run.resume)
        }
        Some(Command::Plan { recipe, overrides, target, json }) => plan(&load(&recipe, &overrides)?, &target, json),
        Some(Command::Eval { checkpoint, split, decoding, problems, json }) => {
            eval(&checkpoint, split.into(), decoding.into(), problems, json)
        }
        Some(Command::Generate(generation)) => generate(&generation),
        Some(Command::Export { checkpoint, dir, critic }) => export(&checkpoint, &dir, critic),
        Some(Command::Compare { runs, metric, svg, json }) => compare(&runs, metric.as_deref(), svg.as_deref(), json),
        Some(Command::Data { recipe, overrides, split, traces, count, file }) => {
            data(&load(&recipe, &overrides)?, split.into(), traces, count, file.as_deref())
        }
    }
}
