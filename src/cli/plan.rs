//! `ppo-train plan`

use super::common::{RecipeArgs, print, print_json};
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::OrBadInput;
use ppo_train::env::Environment;
use ppo_train::plan::{Devices, json, report};
use ppo_train::task::{Split, settings};
use ppo_train::terminal;
use serde_json::json;

/// Check a recipe and print what a run would do and need, without running it.
///
/// Example: ppo-train plan recipes/conversation_sft.toml --memory 80
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Number of devices that share the sequences of a step.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    devices: usize,
    /// Memory per device in GiB, to show whether the plan fits and what would make it fit (default: this machine's
    /// memory, if the device is the CPU).
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Prints the plan, and the first prompt as the model will read it.
    pub fn run(self) -> Result<()> {
        let plan = self.recipe.load()?;
        let memory = self.memory.map(|gib| (gib * f64::from(1 << 30)) as u64).or(Devices::of(&plan).memory);
        let devices = Devices { count: self.devices, memory };
        if let Some(missing) = plan.missing_weights() {
            terminal::warn(&format!("note: {missing}"));
        }
        let first = settings(&plan.recipe.task).first(&plan.recipe.reward).bad_input()?;
        let prompt = Environment::new(&plan, first)?.prompt(Split::Train, 0)?;
        if self.json {
            let mut all = json(&plan, devices);
            all["first_prompt"] = json!({ "text": prompt.text, "tokens": prompt.ids.len(), "ids": &*prompt.ids });
            return print_json(&all);
        }
        let report = report(&plan, devices);
        print(format_args!("{report}\nfirst prompt, {} tokens:\n{}", prompt.ids.len(), prompt.text))
    }
}
