//! `ppo-train export`

use super::common::{model_of, print};
use anyhow::Result;
use clap::Args;
use ppo_train::BadInput;
use ppo_train::checkpoint::{self, Checkpoint};
use ppo_train::model::heads::critic_weights;
use ppo_train::model::{Head, ModelConfig, Weights};
use std::path::{Path, PathBuf};

/// Write a checkpoint's model as a Hugging Face folder, for transformers or vLLM.
///
/// Example: ppo-train export checkpoints/quickstart/step_000044 exported
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Export {
    /// A step's folder of a run, or its `start`.
    checkpoint: PathBuf,
    /// The folder to write; it must not exist.
    dir: PathBuf,
    /// Write the critic, a token classifier with one label, instead of the actor.
    #[arg(long)]
    critic: bool,
}

impl Export {
    pub fn run(self) -> Result<()> {
        let (dir, model) = (&self.dir, model_of(&self.checkpoint));
        let bad = |message: String| anyhow::Error::from(BadInput(message));
        if dir.exists() {
            return Err(bad(format!("{} exists already: name a folder that does not", dir.display())));
        }
        // What can be read whole is whole.
        let config = ModelConfig::from_dir(&model).map_err(|e| bad(format!("{e:#}")))?;
        let load = |source: &Path, head| {
            Weights::load(source, &config, head, tch::Kind::Float, tch::Device::Cpu).map_err(|e| bad(format!("{e:#}")))
        };
        let source = if self.critic { Checkpoint::at(&self.checkpoint).critic() } else { model.clone() };
        match (self.critic, load(&source, Head::ValueOnly)) {
            // A head on the actor's decoder leaves as a model of its own.
            (true, Ok(head)) => {
                let weights = critic_weights(&config, &load(&model, Head::Language)?);
                weights.take(&head);
                checkpoint::write_unmarked(dir, |dir| checkpoint::save_critic(dir, &weights, &model))?;
            }
            _ => {
                load(&source, if self.critic { Head::Value } else { Head::Language })?;
                checkpoint::export(&source, dir)?;
            }
        }
        print(dir.display())
    }
}
