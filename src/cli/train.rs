//! `ppo-train RECIPE`

use super::common::{Overrides, report, said_once};
use anyhow::{Error, Result};
use clap::Args;
use ppo_train::dist::{self, Comm, Elsewhere};
use ppo_train::run::{self, Seeds};
use ppo_train::torch::catching;
use ppo_train::train::trainer::Halted;
use ppo_train::{Stopped, bad, terminal};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// How long the others wait for the first rank, which may have found the same and says so for all, once it has ended
/// its hooks.
const FIRST: Duration = Duration::from_secs(8);
/// How long they wait for the one that knows why.
const KNOWING: Duration = Duration::from_secs(20);

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
        let comm = dist::join().map_err(said_once)?;
        if !comm.is_first() {
            terminal::be_silent();
        }
        match catching(|| self.train(&*comm)) {
            // All ranks come to these ends together, and the first may still be writing.
            Err(error) if comm.size() == 1 || error.is::<Stopped>() || error.is::<Halted>() => Err(error),
            // The others would wait for a rank that fails: it ends them all.
            Err(error) => fail(&*comm, &error),
            ended => ended,
        }
    }

    fn train(&self, comm: &dyn Comm) -> Result<()> {
        let recipe = self.recipe.as_ref().ok_or_else(|| bad!("expected a recipe; see --help"))?;
        let plan = self.overrides.load(recipe)?;
        match &self.seeds {
            Some(seeds) => run::launch_seeds(&plan, seeds, comm),
            None => run::launch(&plan, self.resume, comm),
        }
    }
}

/// Says why this rank has failed, and ends all of them.
fn fail(comm: &dyn Comm, error: &Error) -> ! {
    if error.is::<Elsewhere>() {
        sleep(KNOWING);
    }
    if !comm.is_first() {
        sleep(FIRST);
        terminal::say(&format!("error on rank {}: {error:#}", comm.rank()));
    }
    comm.abort(report(error))
}
