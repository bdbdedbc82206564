//! `ppo-train sae`: sparse autoencoders over a model's residual stream.

mod contexts;
mod features;
mod shared;
mod train;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Sparse autoencoders: train one on a model's residual stream, count the features that traces activate, show where.
///
/// Example: ppo-train sae features saes/layer7 checkpoints/quickstart/step_000044/model traces.jsonl
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct SaeCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Train(Box<train::Train>),
    Features(Box<features::Features>),
    Contexts(Box<contexts::ContextsCommand>),
}

impl SaeCommand {
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Train(command) => command.run(),
            What::Features(command) => command.run(),
            What::Contexts(command) => command.run(),
        }
    }
}
