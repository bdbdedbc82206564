//! The command line: one struct a command, and the few lines that carry it out.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ppo_train::BadInput;
use ppo_train::analysis::Comparison;
use ppo_train::checkpoint;
use ppo_train::metrics::console;
use ppo_train::model::{Head, ModelConfig, Policy, Weights};
use ppo_train::recipe::{self, Decoding, Plan};
use ppo_train::rng::{self, Purpose};
use ppo_train::rollout::{Engine, Sampling, Stop};
use ppo_train::task::Split;
use ppo_train::text::Tokenizer;
use ppo_train::train::{self, evaluate::evaluate, learner, text::Text};
use std::io::Write;
use std::path::{Path, PathBuf};

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
    /// Example: ppo-train plan recipes/quickstart.toml --set ppo.steps=100
    #[command(verbatim_doc_comment)]
    Plan {
        recipe: PathBuf,
        #[command(flatten)]
        overrides: Overrides,
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
    Generate {
        /// A Hugging Face folder.
        model: PathBuf,
        #[arg(long)]
        prompt: String,
        #[arg(long, default_value_t = 256)]
        max_tokens: usize,
        /// 0 takes the most probable token each time.
        #[arg(long, default_value_t = 0.0)]
        temperature: f64,
        #[arg(long, default_value_t = 1)]
        samples: usize,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print JSON: one entry a sample, with ids and log-probs.
        #[arg(long)]
        json: bool,
    },
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
        Some(Command::Plan { recipe, overrides, json }) => {
            let plan = load(&recipe, &overrides)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&recipe::json(&plan))?);
            } else {
                print!("{}", recipe::report(&plan));
            }
            Ok(())
        }
        Some(Command::Eval { checkpoint, split, decoding, problems, json }) => {
            eval(&checkpoint, split.into(), decoding.into(), problems, json)
        }
        Some(Command::Generate { model, prompt, max_tokens, temperature, samples, seed, json }) => {
            let sampling = if temperature == 0.0 {
                Sampling::greedy()
            } else {
                Sampling { temperature, greedy: false, ..Sampling::greedy() }
            };
            generate(&model, &prompt, max_tokens, sampling, samples, seed, json)
        }
        Some(Command::Export { checkpoint, dir, critic }) => export(&checkpoint, &dir, critic),
        Some(Command::Compare { runs, metric, svg, json }) => {
            let comparison = Comparison::read(&runs, metric.as_deref())?;
            if json {
                println!("{}", serde_json::to_string_pretty(&comparison.json())?);
            } else {
                let head = ["run", comparison.metric.as_str(), "at the end", "change"];
                println!("{}", console::table(&head, &comparison.rows()));
            }
            svg.map_or(Ok(()), |file| comparison.draw(&file))
        }
        Some(Command::Data { recipe, overrides, split, traces, count, file }) => {
            data(&load(&recipe, &overrides)?, split.into(), traces, count, file.as_deref())
        }
    }
}

fn load(recipe: &Path, overrides: &Overrides) -> Result<Plan> {
    recipe::load(recipe, &overrides.sets, overrides.out.as_deref())
}

fn eval(checkpoint: &Path, split: Split, decoding: Decoding, problems: usize, json: bool) -> Result<()> {
    let model = model_of(checkpoint);
    let recipe = [checkpoint.join("recipe.toml"), checkpoint.join("../recipe.toml")].into_iter().find(|p| p.exists());
    let recipe = recipe.ok_or_else(|| {
        BadInput(format!(
            "{} is no checkpoint of a run: there is no recipe.toml in it or beside it",
            checkpoint.display()
        ))
    })?;
    let plan = recipe::load(&recipe, &[], None)?;
    let text = Text::new(&plan)?;
    let device = learner::device(&plan.recipe.device.device)?;
    let policy = Policy::new(&plan.config, learner::weights_of(&plan, &model, device)?, learner::longest(&plan));
    let result = evaluate(&policy, &plan, &text, split, problems, decoding)?;
    if json {
        let rows: Vec<_> = (0..result.prompts.len())
            .map(|i| {
                serde_json::json!({
                    "index": i,
                    "reward": result.rollouts.scores[i],
                    "accuracy": result.rollouts.grades[i].accuracy,
                    "format": result.rollouts.grades[i].format,
                    "verdict": result.rollouts.grades[i].verdict.to_string(),
                    "response": result.rollouts.texts[i],
                })
            })
            .collect();
        let all = serde_json::json!({
            "problems": rows.len(), "accuracy": result.accuracy, "format": result.format, "reward": result.reward,
            "response_length": result.length, "clip_ratio": result.cut, "rows": rows,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!(
            "{} problems of {split:?}: accuracy {:.1} %, format {:.1} %, reward {:.3}, {:.1} tokens a response, {:.1} % cut",
            result.prompts.len(),
            100.0 * result.accuracy,
            100.0 * result.format,
            result.reward,
            result.length,
            100.0 * result.cut
        );
    }
    Ok(())
}

/// The actor's folder of a checkpoint; that of the warm start is one itself.
fn model_of(checkpoint: &Path) -> PathBuf {
    let inner = checkpoint.join("model");
    if inner.exists() { inner } else { checkpoint.to_path_buf() }
}

fn export(checkpoint: &Path, dir: &Path, critic: bool) -> Result<()> {
    let bad = |message: String| anyhow::Error::from(BadInput(message));
    let model = model_of(checkpoint);
    let (source, head) = match critic {
        true => (checkpoint.join("critic"), Head::Value),
        false => (model.clone(), Head::Language),
    };
    if dir.exists() {
        return Err(bad(format!("{} exists already: name a folder that does not", dir.display())));
    }
    // What can be read whole is whole.
    let config = ModelConfig::from_dir(&model).map_err(|e| bad(format!("{e:#}")))?;
    Weights::load(&source, &config, head, tch::Kind::Float, tch::Device::Cpu).map_err(|e| bad(format!("{e:#}")))?;
    checkpoint::export(&source, dir)?;
    println!("{}", dir.display());
    Ok(())
}

fn generate(
    model: &Path,
    prompt: &str,
    max_tokens: usize,
    sampling: Sampling,
    samples: usize,
    seed: u64,
    json: bool,
) -> Result<()> {
    let config = ModelConfig::from_dir(model).map_err(|e| BadInput(format!("{e:#}")))?;
    let tokenizer = Tokenizer::from_dir(model)?;
    let ids = tokenizer.encode_prompt(prompt)?;
    let positions = (ids.len() + max_tokens) as i64;
    if ids.is_empty() || positions > config.max_position_embeddings {
        let limit = config.max_position_embeddings;
        let message = format!("a prompt of {} tokens and {max_tokens} new ones do not fit 1 to {limit}", ids.len());
        return Err(BadInput(message).into());
    }
    let weights = Weights::load(model, &config, Head::Language, tch::Kind::Float, learner::device("auto")?);
    let weights = weights.map_err(|e| BadInput(format!("{e:#}")))?;
    let policy = Policy::new(&config, weights, positions);
    let stop = Stop { tokens: config.eos_token_ids.clone(), max_tokens };
    let vocabulary = tokenizer.vocab_size().min(config.vocab_size);
    let engine = Engine { policy: &policy, sampling, stop, vocabulary, batch: 0 };
    let stream = |_, sample: usize| rng::stream(seed, Purpose::Rollout, 0, sample as u64);
    for response in engine.generate(&[ids], samples, stream, |_| ()) {
        let text = tokenizer.decode_text(&response.ids)?;
        if json {
            let entry = serde_json::json!({
                "text": text, "ids": response.ids, "log_probs": response.log_probs, "terminated": response.terminated,
            });
            println!("{entry}");
        } else {
            println!("{text}");
        }
    }
    Ok(())
}

fn data(plan: &Plan, split: Split, traces: bool, count: usize, file: Option<&Path>) -> Result<()> {
    let text = Text::new(plan)?;
    let mut out: Box<dyn Write> = match file {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
    };
    if traces {
        let Some(sft) = &plan.recipe.sft else {
            return Err(BadInput("the recipe has no [sft] section, so no traces".into()).into());
        };
        for trace in train::sft::traces(plan, sft, &text, 0, count)? {
            writeln!(out, "{}", serde_json::json!({"prompt": trace.prompt, "response": trace.response}))?;
        }
    } else {
        for index in 0..count.min(text.task.len(split)) {
            writeln!(out, "{}", text.task.variables(split, index))?;
        }
    }
    out.flush()?;
    Ok(())
}
