//! `ppo-train bench`

use super::common::{print, print_json};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::bench::{Bench, Measured, Tokens, Work, grow};
use ppo_train::checkpoint::write_file;
use ppo_train::env::Environment;
use ppo_train::model::ModelConfig;
use ppo_train::plan::{self, Plan};
use ppo_train::recipe;
use ppo_train::run::use_machine;
use ppo_train::task::{Split, settings};
use ppo_train::terminal::{self, counted, figure, size};
use ppo_train::torch::Machine;
use ppo_train::{OrBadInput, bad, read_text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Measure a PPO step on this machine: rollouts, scoring and updates, on random weights and made-up tokens.
///
/// Of a recipe, or of a model's config.json with the shapes given here. One step is done before those that count; the
/// figures are medians. The ceiling is the fastest matrix product of the same precision in the same process.
///
/// Example: ppo-train bench recipes/smollm2_135m.toml --json > before.json
/// Example: ppo-train bench --config models/smollm2-135m-instruct/config.json --prompts 16 --samples 4
/// Example: ppo-train bench recipes/smollm2_135m.toml --grow --steps 1 --svg growth.svg
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct BenchCommand {
    /// The recipe whose step is measured.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    recipe: Option<PathBuf>,
    /// A model's config.json, in place of a recipe.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the recipe, such as machine.precision; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Prompts per step (default: the recipe's, or 32).
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    prompts: Option<usize>,
    /// Responses per prompt (default: the recipe's, or 1).
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    samples: Option<usize>,
    /// Tokens per prompt, or a range such as 50..100 (default: those of the recipe's first prompt, or 96).
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<Tokens>,
    /// Tokens per response, or a range such as 10..256 (default: the recipe's most, or 64).
    #[arg(long, value_name = "TOKENS")]
    response_tokens: Option<Tokens>,
    /// Steps to measure.
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    steps: usize,
    /// Show what each kind of operation takes, from one more step.
    #[arg(long)]
    profile: bool,
    /// Print how many times faster this is than another measurement, a file written with --json.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Measure how the time grows, from a quarter of the prompts, of the response tokens and of the model to all.
    #[arg(long, conflicts_with_all = ["profile", "against"])]
    grow: bool,
    /// Draw the growth.
    #[arg(long, value_name = "FILE", requires = "grow")]
    svg: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Longest config.json or measurement, in bytes.
const LONGEST: u64 = 16 << 20;

/// The recipe of a step without one: nothing but the model matters.
const BARE: &str = "name = \"bench\"\nmodel.path = \"model\"\ntask.kind = \"countdown\"\n[ppo]\n";

impl BenchCommand {
    pub fn run(self) -> Result<()> {
        let against = self.against.as_deref().map(read_measurement).transpose()?;
        let (plan, work) = match (&self.recipe, &self.config) {
            (Some(recipe), _) => self.of_recipe(recipe)?,
            (None, Some(config)) => self.of_config(config)?,
            (None, None) => return Err(bad!("expected a recipe, or --config FILE")),
        };
        use_machine(&plan)?;
        let machine = Machine::here(&plan.recipe.machine.device);
        if self.grow {
            return self.growth(&plan, work, &machine);
        }
        let mut bench = Bench::new(&plan, work)?;
        let mut steps = 0;
        let measured = bench.measure(self.steps, |clock| {
            let what = if steps == 0 { "warm-up".to_string() } else { format!("step {steps} of {}", self.steps) };
            terminal::warn(&format!("{what}: {}", terminal::seconds(clock.total())));
            steps += 1;
        })?;
        let spent = if self.profile { Some(bench.profile()?) } else { None };
        if self.json {
            let mut all = measured.json();
            all.insert("work".into(), json!(work.to_string()));
            all.insert("shapes".into(), bench.shapes());
            all.insert("machine".into(), serde_json::to_value(machine)?);
            all.extend(spent.map(|spent| ("profile".into(), spent.json())));
            return print_json(&Value::Object(all));
        }
        print(format_args!("{work}; {}, {}", counted(machine.threads, "thread"), machine.processor))?;
        print(measured.table(against.as_ref()))?;
        print(summary(&measured))?;
        if let Some(spent) = spent {
            print(spent.table())?;
        }
        Ok(())
    }

    fn growth(&self, plan: &Plan, work: Work, machine: &Machine) -> Result<()> {
        let growth = grow(plan, work, self.steps, terminal::warn)?;
        if let Some(path) = &self.svg {
            write_file(path, growth.svg()?).with_context(|| format!("cannot write {}", path.display())).bad_input()?;
        }
        if self.json {
            let machine = serde_json::to_value(machine)?;
            return print_json(&json!({ "work": work.to_string(), "growth": growth.json(), "machine": machine }));
        }
        print(format_args!("{work}; {}, {}", counted(machine.threads, "thread"), machine.processor))?;
        print(growth.table())
    }

    fn of_recipe(&self, recipe: &Path) -> Result<(Plan, Work)> {
        let plan = plan::load(recipe, &self.sets, None)?;
        let first = settings(&plan.recipe.task).first(&plan.recipe.reward).bad_input()?;
        let prompt = Environment::new(&plan, first)?.prompt(Split::Train, 0)?.ids.len();
        let work = self.work(&plan.recipe.rollout, prompt);
        Ok((plan, work))
    }

    fn of_config(&self, path: &Path) -> Result<(Plan, Work)> {
        let text = read_text(path, LONGEST).with_context(|| format!("cannot read {}", path.display())).bad_input()?;
        let config = ModelConfig::from_json(&text).with_context(|| path.display().to_string()).bad_input()?;
        let (mut recipe, _) = recipe::read_text("bench", BARE, &self.sets)?;
        let rollout = &mut recipe.rollout;
        (rollout.prompts_per_step, rollout.samples_per_prompt) = (32, 1);
        rollout.max_response_tokens = 64;
        let work = self.work(rollout, 96);
        let sequences = work.prompts * work.samples;
        if let Some(ppo) = &mut recipe.ppo {
            (ppo.mini_batch, ppo.critic_mini_batch) = (sequences, None);
        }
        let tokenizer_dir = PathBuf::new();
        Ok((Plan { recipe, text: String::new(), config, tokenizer_dir, out: PathBuf::new() }, work))
    }

    fn work(&self, rollout: &recipe::Rollout, prompt_tokens: usize) -> Work {
        Work {
            prompts: self.prompts.unwrap_or(rollout.prompts_per_step),
            samples: self.samples.unwrap_or(rollout.samples_per_prompt),
            prompt_tokens: self.prompt_tokens.unwrap_or(Tokens::exactly(prompt_tokens)),
            response_tokens: self.response_tokens.unwrap_or(Tokens::exactly(rollout.max_response_tokens)),
        }
    }
}

fn summary(measured: &Measured) -> String {
    let held = |place: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{}{place}", size(bytes)));
    let gpu = held(" of the GPU", measured.peak.gpu);
    let host = held(if gpu.is_some() { " on the host" } else { "" }, measured.peak.host);
    let held: Vec<String> = gpu.into_iter().chain(host).collect();
    let peak = if held.is_empty() { String::new() } else { format!("; the most memory held: {}", held.join(", ")) };
    format!("ceiling: {} GFLOP/s in matrix products{peak}", figure(measured.gemm / 1e9))
}

/// # Errors
/// Bad input: not a file of `--json`.
fn read_measurement(path: &Path) -> Result<Value> {
    let text = read_text(path, LONGEST).with_context(|| format!("cannot read {}", path.display())).bad_input()?;
    let value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string()).bad_input()?;
    match value["stages"].is_object() {
        true => Ok(value),
        false => Err(bad!("{} is not a measurement: expected what `ppo-train bench --json` prints", path.display())),
    }
}
