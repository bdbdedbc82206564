//! Writes checkpoints, and removes those that are not kept.
//!
//! Decided: a disk that is full or gone costs checkpoints, not the run: what cannot be saved is said, and tried again
//! when the next checkpoint is due. Only where none comes after it, at the last step and when a run is stopped, is that
//! an error. A run that is stopped in the update of a step, after some of its mini-batches, saves these in
//! `unfinished_step`: the weights have moved, and repeating the steps since the last checkpoint could take hours.
//!
//! If less is free than the plan says, there is a warning, and the save is tried all the same: what is free is an
//! estimate (quotas, compression, blocks kept for root, others who clean up), and a checkpoint that fits after all may
//! be the one that is needed. What a failed try has written is removed at once.

use super::schedule::is_wanted;
use crate::checkpoint::{RunFolder, save_critic, save_model, save_parts, tolerate, write_folder, write_text};
use crate::dist::{Offer, offer};
use crate::plan::{Disk, Plan};
use crate::terminal;
use crate::train::hook::{Best, Hook, Moment};
use crate::train::pulse::Phase;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Instant;

/// Every `checkpoints.every` steps and at those to keep for good, when a hook wants to see one, and whenever a run
/// stops. Before the first step the run's `start` serves as one.
pub struct Checkpoint;

impl Hook for Checkpoint {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let (recipe, step) = (&moment.plan.recipe, moment.state.step);
        let kept = &recipe.checkpoints;
        let due = moment.is_due(kept.every) || kept.is_permanent(step) || is_wanted(recipe, moment.folder, step);
        // One that is there was written before its step was evaluated.
        let wanted = step > 0 && (due || moment.folder.complete(step).is_some());
        if of_first(moment, wanted)? { save(moment, moment.last) } else { Ok(()) }
    }

    fn stop(&mut self, moment: &mut Moment) -> Result<()> {
        if let Some(interrupted) = moment.interrupted {
            moment.pulse.enter(Phase::Saving);
            moment.metrics.flush();
            let step = moment.state.step;
            let saved = write(moment, &moment.folder.unfinished_step(step), |dir| interrupted.save(dir));
            return saved.with_context(|| {
                format!("step {} is half done and cannot be saved; {}", step + 1, go_on(moment.folder))
            });
        }
        let wanted = moment.state.step > 0 && moment.folder.complete(moment.state.step).is_none();
        if of_first(moment, wanted)? { save(moment, true) } else { Ok(()) }
    }
}

/// What the first rank wants, which knows its disk.
fn of_first(moment: &Moment, wanted: bool) -> Result<bool> {
    moment.comm.any(moment.comm.is_first() && wanted)
}

/// Saves the step, and removes checkpoints that are not kept. `needed`: none comes after it.
fn save(moment: &mut Moment, needed: bool) -> Result<()> {
    let step = moment.state.step;
    moment.pulse.enter(Phase::Saving);
    if !moment.comm.is_first() {
        return write(moment, &moment.folder.step(step), |_| Ok(()));
    }
    let disk = Disk::of(moment.plan);
    let shortage = disk.shortage("a checkpoint", disk.checkpoint);
    if let Some(shortage) = &shortage {
        terminal::warn(&format!("warning: {shortage} in {}", moment.folder.path().display()));
    }
    // After a power loss the logs shall not end before a checkpoint that is there.
    moment.metrics.flush();
    let started = Instant::now();
    let saved = write(moment, &moment.folder.step(step), |_| Ok(()));
    if needed {
        let room = shortage.map_or(String::new(), |shortage| format!("{shortage}: make room, and "));
        saved.with_context(|| format!("step {step} cannot be saved; {room}{}", go_on(moment.folder)))?;
    } else if !tolerate(saved, &format!("step {step} is not saved; the run goes on, and tries again when it is due"))? {
        return Ok(());
    }
    *moment.saving = Some(started.elapsed().as_secs_f64());
    prune(moment.plan, moment.folder, moment.state.best)
}

/// Writes everything into the folder of a checkpoint; `more` is put there too. The first rank does, and the others give
/// it their parts of the optimizers' state.
fn write(
    moment: &Moment,
    checkpoint: &crate::checkpoint::Checkpoint,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (models, plan) = (moment.models, moment.plan);
    let fill = |dir: &Path, state: &mut Offer| {
        let (checkpoint, source) = (crate::checkpoint::Checkpoint::at(dir), &plan.recipe.model.path);
        save_model(&checkpoint.model(), &models.actor.model.weights, source, &plan.tokenizer_dir)?;
        if let Some(critic) = &models.critic {
            save_critic(&checkpoint.critic(), critic.weights(), source, &plan.tokenizer_dir)?;
        }
        save_parts(&checkpoint.optimizer(), state)?;
        write_text(&checkpoint.recipe(), &plan.text)?;
        write_text(&checkpoint.state(), &serde_json::to_string_pretty(&moment.state)?)?;
        more(dir)
    };
    offer(moment.comm, &models.optimizer_state(), |state| write_folder(checkpoint.path(), |dir| fill(dir, state)))
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
