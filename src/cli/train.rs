//! `ppo-train RECIPE`

use super::common::Overrides;
use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::run::{self, Seeds};
use std::path::PathBuf;

#[derive(Args)]
pub struct Train {
    /// The recipe: a TOML file that describes the experiment.
    recipe: Option<PathBuf>,
    /// Continue the run in the run folder from its newest checkpoint.
    #[arg(long)]
    resume: bool,
    /// Train with each of these seeds in turn, in the folders OUT-SEED: 1..5 (both included) or 1,4,7. Runs that were
    /// interrupted go on.
    #[arg(long, value_name = "SEEDS", conflicts_with = "resume")]
    seeds: Option<Seeds>,
    #[command(flatten)]
    overrides: Overrides,
}

impl Train {
    pub fn run(self) -> Result<()> {
        let recipe = self.recipe.ok_or_else(|| bad!("expected a recipe; see --help"))?;
        let plan = self.overrides.load(&recipe)?;
        match &self.seeds {
            Some(seeds) => run::launch_seeds(&plan, seeds),
            None => run::launch(&plan, self.resume),
        }
    }
}
