//! Writes checkpoints, and removes those that are not kept.

use super::schedule::is_wanted;
use crate::checkpoint::{RunFolder, save_critic, save_model, save_tensors, write_folder};
use crate::plan::Plan;
use crate::train::hook::{Best, Hook, Moment};
use anyhow::Result;
use std::fs;
use std::time::Instant;

/// Every `checkpoints.every` steps, when a hook wants to see one, and whenever a run stops. Before the first step the
/// run's `start` serves as one.
pub struct Checkpoint;

impl Hook for Checkpoint {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let (recipe, step) = (&moment.plan.recipe, moment.state.step);
        let due = moment.is_due(recipe.checkpoints.every) || is_wanted(recipe, moment.folder, step);
        if step == 0 || !(due || moment.stopping) {
            return Ok(());
        }
        let started = Instant::now();
        let models = moment.models;
        write_folder(moment.folder.step(step).path(), |dir| {
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
        prune(moment.plan, moment.folder, moment.state.best)
    }
}

/// Removes the checkpoints that are neither new nor the best, nor still to be judged.
///
/// # Errors
/// One cannot be removed.
pub fn prune(plan: &Plan, run: &RunFolder, best: Option<Best>) -> Result<()> {
    let kept = &plan.recipe.checkpoints;
    let best = best.filter(|_| kept.keep_best).map(|best| best.step);
    run.prune(kept.keep_last, |step| Some(step) == best || is_wanted(&plan.recipe, run, step))
}
