//! `ppo-train plan`

use super::common::{RecipeArgs, print, print_json};
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use ppo_train::env::Environment;
use ppo_train::hooks::{self, Lack};
use ppo_train::plan::{self, Devices, Lengths, Machine, cost_json, cost_report, json, report};
use ppo_train::recipe::{
    self,
    identity::{Difference, differences},
};
use ppo_train::task::{Split, settings};
use ppo_train::terminal;
use ppo_train::traces::{self, Prepared};
use ppo_train::{OrBadInput, bad};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Parses an amount of memory.
fn gib(text: &str) -> Result<f64, String> {
    let known = |value: &f64| (1e-3..=1e6).contains(value);
    text.parse().ok().filter(known).ok_or_else(|| "expected a number of GiB from 0.001 to 1000000".to_string())
}

/// Parses a number of processes or machines.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// Parses a number of tokens.
fn tokens() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=1 << 40)
}

/// Check a recipe and print what a run would do and need, without running it.
///
/// Example: ppo-train plan recipes/conversation_sft.toml --memory 80
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Plan for so many processes, each with a GPU of its own or a share of the CPU (docs/clusters.md).
    #[arg(long, value_name = "COUNT", alias = "devices", default_value_t = 1, value_parser = count())]
    processes: usize,
    /// The machines that the processes are on, as many on each.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = count())]
    nodes: usize,
    /// Memory of a GPU in GiB, or, if the device is `cpu`, of a machine, to show whether the plan fits and what would
    /// make it fit (default: the memory of this machine's GPU, or its own if the device is the CPU). With it `auto`
    /// means a GPU, whatever this machine has.
    #[arg(long, value_name = "GIB", value_parser = gib)]
    memory: Option<f64>,
    /// Add the time of a step on 1 to 64 GPUs, computed for a machine: h100, a100, h200, here (its rates are measured),
    /// or a TOML file (docs/clusters.md). With it `auto` means that machine's device.
    #[arg(long, value_name = "MACHINE", num_args = 0..=1, require_equals = true, default_missing_value = "h100")]
    cost: Option<String>,
    /// Tokens of a response on average, for --cost (default: all that it may have).
    #[arg(long, value_name = "COUNT", requires = "cost", value_parser = tokens())]
    response_tokens: Option<u64>,
    /// Print only the keys in which the recipe differs from another one, defaults included. The files of the two alone
    /// are read, not what they name.
    #[arg(long, value_name = "RECIPE")]
    against: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found where a recipe points to.
pub struct Looked {
    pub env: Environment,
    pub lack: Lack,
    /// The rows of the warm start, if they are in a file.
    pub prepared: Option<Prepared>,
}

/// Looks at everything that a run of the plan would read, but for a GPU and the weights themselves.
///
/// # Errors
/// What would end the run at its start, but for what is lacking.
pub fn look(plan: &plan::Plan) -> Result<Looked> {
    plan.check_weights()?.iter().for_each(|note| terminal::warn(note));
    let lack = hooks::check(plan)?;
    let first = settings(&plan.recipe.task).first(&plan.recipe.reward).bad_input()?;
    let env = Environment::new(plan, first)?;
    env.prompt(Split::Train, 0)?;
    env.check_reward()?;
    let prepared = match &plan.recipe.sft {
        Some(sft) if sft.files().is_some() => Some(traces::prepare(plan, sft, &env)?),
        _ => None,
    };
    Ok(Looked { env, lack, prepared })
}

impl Plan {
    /// Prints the plan, and the first prompt as the model will read it.
    pub fn run(self) -> Result<()> {
        if let Some(other) = &self.against {
            return self.differences(other);
        }
        let plan = self.recipe.load()?;
        let Self { processes, nodes, .. } = self;
        if nodes > processes {
            return Err(bad!(
                "{processes} processes cannot be on {nodes} machines: expected --processes COUNT of more"
            ));
        }
        if let Some(missing) = plan.missing_weights() {
            terminal::warn(&format!("note: {missing}"));
        }
        let Looked { env, lack, prepared } = look(&plan)?;
        for missing in lack.errors.iter().chain(&lack.warnings) {
            terminal::warn(&format!("warning: {missing}"));
        }
        let prompt = env.prompt(Split::Train, 0)?;
        let machine = self.cost.as_deref().map(|name| Machine::named(name, &plan)).transpose()?;
        // Memory that is given is that of another machine's GPU.
        let gpus = machine.as_ref().map(|machine| machine.gpu).or(self.memory.map(|_| true));
        let plan = match gpus {
            Some(gpus) => plan.elsewhere(gpus),
            None => plan,
        };
        let memory = self.memory.map(|gib| (gib * f64::from(1 << 30)) as u64).or_else(|| Devices::of(&plan).memory);
        let devices = Devices { processes, nodes, memory };
        let longest = plan.recipe.rollout.max_response_tokens as f64;
        let response = self.response_tokens.map_or(longest, |tokens| tokens as f64);
        if response > longest {
            return Err(bad!("responses of {response} tokens: the recipe allows at most {longest}"));
        }
        let lengths = Lengths { prompt: prompt.ids.len() as f64, response, longest };
        if self.json {
            let mut all = json(&plan, devices);
            if let Some(machine) = &machine {
                all["cost"] = cost_json(&plan, machine, lengths);
            }
            if let Some(prepared) = prepared {
                all["warm_start"]["read"] = prepared.rows.json();
            }
            all["first_prompt"] = json!({ "text": prompt.text, "tokens": prompt.ids.len(), "ids": &*prompt.ids });
            all["ends"] = json!({ "ids": env.ends, "written": env.end, "strings": plan.recipe.rollout.stop });
            return print_json(&all);
        }
        print(report(&plan, devices))?;
        if let Some(machine) = &machine {
            print(cost_report(&plan, machine, lengths))?;
        }
        if let (Some(prepared), Some(sft)) = (&prepared, &plan.recipe.sft) {
            let Prepared { rows, stats } = prepared;
            print(format_args!("{}\n{}", rows.summary(), stats.verdict()))?;
            prepared.check(&plan, sft)?;
        }
        let ends = [env.tokenizer.list(&env.ends)].into_iter();
        let ends = ends.chain(plan.recipe.rollout.stop.iter().map(|string| format!("after {string:?}")));
        let (ends, tokens) = (ends.collect::<Vec<_>>().join(", "), prompt.ids.len());
        print(format_args!("responses end at {ends}\nfirst prompt, {tokens} tokens:\n{}", prompt.text))
    }

    /// Prints the keys in which the recipe differs from `other`, side by side. Values are shown whole, however wide the
    /// table is: two may differ in any of their places.
    fn differences(&self, other: &Path) -> Result<()> {
        let now = self.recipe.read()?;
        let differences = differences(&recipe::stored(other)?, &now);
        if self.json {
            let entry = |d: &Difference| json!({ "key": d.key, "against": d.before, "recipe": d.now });
            return print_json(&differences.iter().map(entry).collect());
        }
        if differences.is_empty() {
            return print("the recipes do not differ");
        }
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
        let rows: Vec<_> = differences.iter().map(|d| vec![d.key.clone(), shown(&d.before), shown(&d.now)]).collect();
        let [against, recipe] = [other, &self.recipe.recipe].map(|path| path.display().to_string());
        print(terminal::table_within(usize::MAX, &["key", &against, &recipe], &rows))
    }
}
