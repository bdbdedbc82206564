//! `ppo-train status`

use super::common::{print, print_json};
use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::checkpoint::RunFolder;
use ppo_train::run::{Health, health};
use std::path::PathBuf;

/// Show how far runs have come, and what their hooks are doing.
///
/// Example: ppo-train status checkpoints/*
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Status {
    /// Run folders.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Print JSON: a list with an entry per run.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> Result<()> {
        let mut all = vec![];
        for path in &self.runs {
            let folder = RunFolder::new(path);
            if !folder.recipe().is_file() {
                return Err(bad!("{} is not the folder of a run: there is no recipe.toml in it", path.display()));
            }
            all.push(health(&folder)?);
        }
        if self.json {
            return print_json(&serde_json::to_value(all)?);
        }
        all.iter().try_for_each(|health: &Health| print(health))
    }
}
