//! `ppo-train eval`

use super::common::{decoding, print, print_json, split, whole_model_of};
use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::checkpoint::{Checkpoint, RunFolder};
use ppo_train::env::Environment;
use ppo_train::model::Policy;
use ppo_train::plan;
use ppo_train::recipe::Decoding;
use ppo_train::task::Split;
use ppo_train::train::evaluate::evaluate;
use std::path::PathBuf;

/// Evaluate a run's checkpoint on held-out problems.
///
/// Example: ppo-train eval checkpoints/quickstart/step_000044 --split test --decoding sampled
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Eval {
    /// A checkpoint: the folder of a step in a run folder.
    checkpoint: PathBuf,
    /// The split to evaluate on.
    #[arg(long, default_value = "test", value_parser = split())]
    split: Split,
    /// The most probable token each time, or a sample at temperature 1.
    #[arg(long, default_value = "greedy", value_parser = decoding())]
    decoding: Decoding,
    /// Number of problems, from the first one on (0: all).
    #[arg(long, default_value_t = 0)]
    problems: usize,
    /// Print JSON: the means, and one entry per problem.
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let folder = &self.checkpoint;
        let model = whole_model_of(folder, &["recipe.toml"])?;
        let recipes = [Checkpoint::at(folder).recipe(), RunFolder::new(&folder.join("..")).recipe()];
        let recipe = recipes.into_iter().find(|path| path.exists()).ok_or_else(|| {
            let shown = folder.display();
            bad!("{shown} is not a checkpoint of a run: there is no recipe.toml in it or beside it")
        })?;
        let plan = plan::load(&recipe, &[], None)?;
        let env = Environment::of(&plan)?;
        let weights = plan.weights(&model, plan.device()?)?;
        let policy = Policy::new(&plan.config, weights);
        let result = evaluate(&policy, &plan, &env, self.split, self.problems, self.decoding)?;
        if self.json {
            return print_json(&result.json());
        }
        print(result.sentence(self.split))
    }
}
