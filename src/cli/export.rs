//! `ppo-train export`

use super::common::{print, whole_model_of};
use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::checkpoint::{Checkpoint, export_critic, export_model};
use std::path::PathBuf;

/// Write a checkpoint's model as a Hugging Face folder, for transformers or vLLM.
///
/// Example: ppo-train export checkpoints/quickstart/step_000044 exported
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Export {
    /// A checkpoint: the folder of a step in a run folder, or its `start`.
    checkpoint: PathBuf,
    /// The folder to write; it must not exist.
    dir: PathBuf,
    /// Write the critic, a token classifier with one label, instead of the actor.
    #[arg(long)]
    critic: bool,
}

impl Export {
    pub fn run(self) -> Result<()> {
        let (dir, parts) = (&self.dir, if self.critic { &["critic"][..] } else { &[] });
        if dir.exists() {
            return Err(bad!("{} already exists: choose a folder that does not", dir.display()));
        }
        let model = whole_model_of(&self.checkpoint, parts)?;
        if self.critic {
            export_critic(&Checkpoint::at(&self.checkpoint).critic(), &model, dir)?;
        } else {
            export_model(&model, dir)?;
        }
        print(dir.display())
    }
}
