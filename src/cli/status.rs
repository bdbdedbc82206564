//! `ppo-train status`

use super::common::{Silent, print, print_json};
use anyhow::Result;
use clap::Args;
use ppo_train::run::{Fate, Health, health, runs};
use std::path::PathBuf;

/// Show whether runs are alive, what they are doing, how far they are and how they ended, which warnings are on, and
/// what their hooks are doing.
///
/// Example: ppo-train status checkpoints/quickstart
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Status {
    /// Run folders; OUT for those of `--seeds`, OUT-SEED; a folder for all runs in it.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Print JSON: a list with an entry per run.
    #[arg(long)]
    json: bool,
}

const EXIT_CODES: &str = "Exit codes, the largest of all runs':
  0   running or finished
  2   a folder is not that of a run
  3   stopped: --resume goes on
  4   failed, killed, or halted by a warning";

impl Status {
    pub fn run(self) -> Result<()> {
        let runs = self.runs.iter().map(|path| runs(path)).collect::<Result<Vec<_>>>()?.concat();
        let all = runs.iter().map(health).collect::<Result<Vec<_>>>()?;
        if self.json {
            print_json(&serde_json::to_value(&all)?)?;
        } else {
            all.iter().try_for_each(print)?;
        }
        let code = |health: &Health| match health.state {
            Fate::Running | Fate::Finished => 0,
            Fate::Stopped => 3,
            Fate::Failed | Fate::Killed | Fate::Halted => 4,
        };
        match all.iter().map(code).max() {
            None | Some(0) => Ok(()),
            Some(code) => Err(Silent(code).into()),
        }
    }
}
