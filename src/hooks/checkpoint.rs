//! Writes checkpoints, and removes those that are not kept.

use crate::checkpoint::{save_critic, save_model, save_tensors, write_folder};
use crate::train::hook::{Hook, Moment};
use anyhow::Result;
use std::fs;
use std::time::Instant;

/// Every `checkpoints.every` steps, and whenever a run stops. Before the first step the run's `start` serves as one.
pub struct Checkpoint;

impl Hook for Checkpoint {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let recipe = &moment.plan.recipe;
        let wanted = moment.stopping || moment.is_due(recipe.checkpoints.every);
        if moment.state.step == 0 || !wanted {
            return Ok(());
        }
        let started = Instant::now();
        let models = moment.models;
        write_folder(moment.folder.step(moment.state.step).path(), |dir| {
            let (checkpoint, source) = (crate::checkpoint::Checkpoint::at(dir), &recipe.model.path);
            save_model(&checkpoint.model(), &models.actor.model.weights, source, &moment.plan.tokenizer_dir)?;
            if let Some(critic) = &models.critic {
                save_critic(&checkpoint.critic(), critic.weights(), source, &moment.plan.tokenizer_dir)?;
            }
            save_tensors(&checkpoint.optimizer(), &models.optimizer_state())?;
            fs::write(checkpoint.recipe(), &moment.plan.text)?;
            fs::write(checkpoint.state(), serde_json::to_string_pretty(&moment.state)?)?;
            Ok(())
        })?;
        *moment.saving = Some(started.elapsed().as_secs_f64());
        let best = moment.state.best.filter(|_| recipe.checkpoints.keep_best).map(|best| best.step);
        moment.folder.prune(recipe.checkpoints.keep_last, best)
    }
}
