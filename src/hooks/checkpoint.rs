//! Writes checkpoints, and removes those that are not kept.
//!
//! Decided: a disk that is full or gone costs checkpoints, not the run: what cannot be saved is said, and tried again
//! when the next checkpoint is due. Only where none comes after it, at the last step and when a run is stopped, is that
//! an error. If less is free than the plan says, there is a warning, and the save is tried all the same: what is free
//! is an estimate (quotas, compression, blocks kept for root, others who clean up), and a checkpoint that fits after
//! all may be the one that is needed. What a failed try has written is removed at once.

use super::schedule::is_wanted;
use crate::checkpoint::{RunFolder, save_critic, save_model, save_tensors, tolerate, write_folder, write_text};
use crate::plan::{Disk, Plan};
use crate::terminal;
use crate::train::hook::{Best, Hook, Moment};
use anyhow::{Context, Result};
use std::time::Instant;

/// Every `checkpoints.every` steps and at those to keep for good, when a hook wants to see one, and whenever a run
/// stops. Before the first step the run's `start` serves as one.
pub struct Checkpoint;

impl Hook for Checkpoint {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let (recipe, step) = (&moment.plan.recipe, moment.state.step);
        let kept = &recipe.checkpoints;
        let due = moment.is_due(kept.every) || kept.is_permanent(step) || is_wanted(recipe, moment.folder, step);
        if step == 0 || !(due || moment.stopping) {
            return Ok(());
        }
        let disk = Disk::of(moment.plan);
        let shortage = disk.shortage("a checkpoint", disk.checkpoint);
        if let Some(shortage) = &shortage {
            terminal::warn(&format!("warning: {shortage} in {}", moment.folder.path().display()));
        }
        // After a power loss the logs shall not end before a checkpoint that is there.
        moment.metrics.flush();
        let started = Instant::now();
        let saved = save(moment);
        if moment.last || moment.stopping {
            let room = shortage.map_or(String::new(), |shortage| format!("{shortage}: make room, and "));
            saved.with_context(|| format!("step {step} cannot be saved; {room}{}", go_on(moment.folder)))?;
        } else if !tolerate(
            saved,
            &format!("step {step} is not saved; the run goes on, and tries again when it is due"),
        )? {
            return Ok(());
        }
        *moment.saving = Some(started.elapsed().as_secs_f64());
        prune(moment.plan, moment.folder, moment.state.best)
    }
}

fn save(moment: &Moment) -> Result<()> {
    let (models, plan) = (moment.models, moment.plan);
    write_folder(moment.folder.step(moment.state.step).path(), |dir| {
        let (checkpoint, source) = (crate::checkpoint::Checkpoint::at(dir), &plan.recipe.model.path);
        save_model(&checkpoint.model(), &models.actor.model.weights, source, &plan.tokenizer_dir)?;
        if let Some(critic) = &models.critic {
            save_critic(&checkpoint.critic(), critic.weights(), source, &plan.tokenizer_dir)?;
        }
        save_tensors(&checkpoint.optimizer(), &models.optimizer_state())?;
        write_text(&checkpoint.recipe(), &plan.text)?;
        write_text(&checkpoint.state(), &serde_json::to_string_pretty(&moment.state)?)
    })
}

/// What a run that ends without a checkpoint continues from.
fn go_on(run: &RunFolder) -> String {
    match run.latest() {
        Ok(Some(newest)) => format!("--resume goes on from {}", newest.path().display()),
        _ => format!("--resume goes on from {}", run.start().display()),
    }
}

/// Removes the checkpoints that are neither new nor the best nor for good, nor still to be judged. One that cannot be
/// removed stays, with a warning.
///
/// # Errors
/// None that the disk is to blame for.
pub fn prune(plan: &Plan, run: &RunFolder, best: Option<Best>) -> Result<()> {
    let kept = &plan.recipe.checkpoints;
    let best = best.filter(|_| kept.keep_best).map(|best| best.step);
    let wanted = |step| Some(step) == best || kept.is_permanent(step) || is_wanted(&plan.recipe, run, step);
    tolerate(run.prune(kept.keep_last, wanted), "old checkpoints stay").map(drop)
}
