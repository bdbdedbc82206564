//! The few lines that carry out each command.

use super::Overrides;
use anyhow::{Context, Result};
use clap::Args;
use ppo_train::BadInput;
use ppo_train::analysis::Comparison;
use ppo_train::checkpoint;
use ppo_train::metrics::console;
use ppo_train::model::heads::critic_weights;
use ppo_train::model::{Head, ModelConfig, Policy, Weights};
use ppo_train::recipe::{self, Decoding, Machine, Plan};
use ppo_train::rng::{self, Purpose};
use ppo_train::rollout::{Engine, Sampling, Stop};
use ppo_train::task::Split;
use ppo_train::text::{Tokenizer, chat};
use ppo_train::train::{self, evaluate::evaluate, learner, text::Text};
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

const STDOUT: &str = "cannot write to the standard output";

/// Writes a line to the standard output.
///
/// # Errors
/// It cannot be written; where nobody reads any more (a closed pipe), `main` ends quietly.
fn print(line: impl Display) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context(STDOUT)
}

fn print_json(value: &serde_json::Value) -> Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

pub fn load(recipe: &Path, overrides: &Overrides) -> Result<Plan> {
    recipe::load(recipe, &overrides.sets, overrides.out.as_deref())
}

/// The machine that is planned for.
#[derive(Args)]
pub struct Target {
    /// Devices that share the sequences of a step.
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    devices: usize,
    /// Memory of a device in GiB; says whether the plan fits, and what would make it fit (default: this machine's, for
    /// the CPU).
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
}

/// The plan, and the first prompt as the model will read it.
pub fn plan(plan: &Plan, target: &Target, json: bool) -> Result<()> {
    let known = Machine::of(plan);
    let memory = target.memory.map(|gib| (gib * f64::from(1 << 30)) as u64).or(known.memory);
    let machine = Machine { devices: target.devices, memory };
    // One training problem is enough, and the first is the same however many follow.
    let mut first = plan.clone();
    first.recipe.task.train = 1;
    let prompt = Text::new(&first)?.prompt(Split::Train, 0)?;
    if json {
        let mut all = recipe::json(plan, machine);
        all["first_prompt"] = serde_json::json!({ "text": prompt.text, "tokens": prompt.ids.len(), "ids": prompt.ids });
        print_json(&all)
    } else {
        let report = recipe::report(plan, machine);
        print(format_args!("{report}\nfirst prompt, {} tokens:\n{}", prompt.ids.len(), prompt.text))
    }
}

pub fn eval(checkpoint: &Path, split: Split, decoding: Decoding, problems: usize, json: bool) -> Result<()> {
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
        print_json(&all)
    } else {
        print(format_args!(
            "{} problems of {split:?}: accuracy {:.1} %, format {:.1} %, reward {:.3}, {:.1} tokens per response, \
             {:.1} % cut",
            result.prompts.len(),
            100.0 * result.accuracy,
            100.0 * result.format,
            result.reward,
            result.length,
            100.0 * result.cut
        ))
    }
}

/// The actor's folder of a checkpoint; that of the warm start is one itself.
fn model_of(checkpoint: &Path) -> PathBuf {
    let inner = checkpoint.join("model");
    if inner.exists() { inner } else { checkpoint.to_path_buf() }
}

pub fn export(checkpoint: &Path, dir: &Path, critic: bool) -> Result<()> {
    let bad = |message: String| anyhow::Error::from(BadInput(message));
    let model = model_of(checkpoint);
    if dir.exists() {
        return Err(bad(format!("{} exists already: name a folder that does not", dir.display())));
    }
    // What can be read whole is whole.
    let config = ModelConfig::from_dir(&model).map_err(|e| bad(format!("{e:#}")))?;
    let load = |source: &Path, head| {
        Weights::load(source, &config, head, tch::Kind::Float, tch::Device::Cpu).map_err(|e| bad(format!("{e:#}")))
    };
    let source = if critic { checkpoint.join("critic") } else { model.clone() };
    match (critic, load(&source, Head::ValueOnly)) {
        // A head on the actor's decoder leaves as a model of its own.
        (true, Ok(head)) => {
            let weights = critic_weights(&config, &load(&model, Head::Language)?);
            weights.take(&head);
            checkpoint::write_unmarked(dir, |dir| checkpoint::save_critic(dir, &weights, &model))?;
        }
        _ => {
            load(&source, if critic { Head::Value } else { Head::Language })?;
            checkpoint::export(&source, dir)?;
        }
    }
    print(dir.display())
}

#[derive(Args)]
pub struct Generation {
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
    /// Wrap the prompt as a user's message in the model's chat template.
    #[arg(long)]
    chat: bool,
    /// Print JSON: one entry a sample, with ids and log-probs.
    #[arg(long)]
    json: bool,
}

/// One sample is printed as it comes, several one after the other.
pub fn generate(told: &Generation) -> Result<()> {
    let config = ModelConfig::from_dir(&told.model).map_err(|e| BadInput(format!("{e:#}")))?;
    let tokenizer = Tokenizer::from_dir(&told.model)?;
    let prompt = if told.chat { chat(&told.model, &told.prompt)? } else { told.prompt.clone() };
    let ids = tokenizer.encode_prompt(&prompt)?;
    let positions = (ids.len() + told.max_tokens) as i64;
    if ids.is_empty() || positions > config.max_position_embeddings {
        let (read, new, limit) = (ids.len(), told.max_tokens, config.max_position_embeddings);
        let message = format!("a prompt of {read} tokens and {new} new ones do not fit 1 to {limit}");
        return Err(BadInput(message).into());
    }
    let weights = Weights::load(&told.model, &config, Head::Language, tch::Kind::Float, learner::device("auto")?);
    let weights = weights.map_err(|e| BadInput(format!("{e:#}")))?;
    let policy = Policy::new(&config, weights, positions);
    let greedy = told.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { told.temperature };
    let engine = Engine {
        policy: &policy,
        sampling: Sampling { temperature, greedy, ..Sampling::greedy() },
        stop: Stop { tokens: config.eos_token_ids.clone(), max_tokens: told.max_tokens },
        vocabulary: tokenizer.vocab_size().min(config.vocab_size),
        batch: 0,
    };
    let stream = |_, sample: usize| rng::stream(told.seed, Purpose::Rollout, 0, sample as u64);
    let (mut read, mut shown, mut write) = (0, String::new(), tokenizer.streaming());
    let mut out = std::io::stdout();
    let mut written = Ok(());
    let responses = engine.generate(&[ids], told.samples, stream, |responses| {
        if let ([response], false) = (responses, told.json) {
            // The engine draws known ids only.
            let new: String = response.ids[read..].iter().filter_map(|id| write(*id).ok()).collect();
            if written.is_ok() {
                written = out.write_all(new.as_bytes()).and_then(|()| out.flush());
            }
            (read, shown) = (response.ids.len(), std::mem::take(&mut shown) + &new);
        }
    });
    written.context(STDOUT)?;
    for response in responses {
        let text = tokenizer.decode_text(&response.ids)?;
        if told.json {
            let entry = serde_json::json!({
                "text": text, "ids": response.ids, "log_probs": response.log_probs, "terminated": response.terminated,
            });
            print(entry)?;
        } else {
            print(text.strip_prefix(&shown).unwrap_or(&text))?;
        }
    }
    Ok(())
}

pub fn compare(runs: &[PathBuf], metric: Option<&str>, svg: Option<&Path>, json: bool) -> Result<()> {
    let comparison = Comparison::read(runs, metric)?;
    if json {
        print_json(&comparison.json())?;
    } else {
        let head = ["run", comparison.metric.as_str(), "at the end", "change"];
        print(console::table(&head, &comparison.rows()))?;
    }
    svg.map_or(Ok(()), |file| comparison.draw(file))
}

pub fn data(plan: &Plan, split: Split, traces: bool, count: usize, file: Option<&Path>) -> Result<()> {
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
