//! `ppo-train replay`

use super::common::{print, print_json, self_contained};
use anyhow::{Result, anyhow};
use clap::Args;
use ppo_train::checkpoint::RunFolder;
use ppo_train::run::replay;
use ppo_train::terminal::{self, counted};
use std::path::PathBuf;

/// Repeat one step of a run from the checkpoint before it, and compare every figure and text with what was recorded.
///
/// The run folder is not changed. Exit code 0: equal to the last bit, as promised of the same build, machine and number
/// of threads. Exit code 1: a table of what differs.
///
/// Example: ppo-train replay checkpoints/quickstart --step 1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Replay {
    /// The folder of a run.
    run: PathBuf,
    /// The step to repeat; the run must have the checkpoint of the step before it.
    #[arg(long)]
    step: usize,
    /// Override a key of the recipe, such as machine.device; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub fn run(self) -> Result<()> {
        let folder = RunFolder::new(&self.run);
        let sets = [self_contained(&folder.start()), self.sets].concat();
        let replay = replay(&folder, self.step, &sets)?;
        let (step, run) = (replay.step, &replay.run);
        if !replay.elsewhere.is_empty() {
            let list = replay.elsewhere.join(", ");
            terminal::warn(&format!("note: the step was done elsewhere, so that it need not be equal: {list}"));
        }
        let equal = replay.differences.is_empty();
        if self.json {
            print_json(&serde_json::to_value(&replay)?)?;
        } else if equal {
            print(format_args!("step {step} of {run} is equal to the last bit: {}", replay.compared()))?;
        } else {
            print(replay.table())?;
        }
        if equal {
            return Ok(());
        }
        let found = counted(replay.differences.len(), "difference");
        Err(anyhow!("step {step} of {run} is not repeated: {found} in {}", replay.compared()))
    }
}
