//! `ppo-train RECIPE`

use super::common::Overrides;
use anyhow::Result;
use clap::Args;
use ppo_train::{bad, run};
use std::path::PathBuf;

#[derive(Args)]
pub struct Train {
    /// The recipe: a TOML file that describes the experiment.
    recipe: Option<PathBuf>,
    /// Continue the run in the run folder from its newest checkpoint.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    overrides: Overrides,
}

impl Train {
    pub fn run(self) -> Result<()> {
        let recipe = self.recipe.ok_or_else(|| bad!("expected a recipe; see --help"))?;
        run::launch(&self.overrides.load(&recipe)?, self.resume)
    }
}
