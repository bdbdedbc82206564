//! The work of a hook, which sees a checkpoint's folder and the run's recipe alone: in a process beside training, or
//! afterwards by `ppo-train judge`, with the same result.

use super::external;
use super::outcome::Outcome;
use super::schedule::{Job, names};
use crate::bad;
use crate::checkpoint::{RunFolder, write_folder};
use crate::plan::Plan;
use crate::recipe::spelling::nearest;
use anyhow::{Context, Result};

/// Does a job for a run and puts its result into the folder of `out`, which may be another one than the run's.
///
/// # Errors
/// Bad input: a hook that the recipe does not have, a step without a checkpoint. Those of the hook.
pub fn work(plan: &Plan, run: &RunFolder, out: &RunFolder, job: &Job) -> Result<Outcome> {
    let hooks = &plan.recipe.hooks;
    let checkpoint = run.complete(job.step).ok_or_else(|| {
        let saved: Vec<String> = saved(run).iter().map(usize::to_string).collect();
        bad!("{} has no checkpoint of step {}, but of {}", run.path().display(), job.step, saved.join(", "))
    })?;
    let mut outcome = None;
    write_folder(&job.folder(out), |folder| {
        let made = match hooks.external.get(&job.hook) {
            Some(external) => external::call(external, job, run.path(), checkpoint.path())?,
            None => {
                let names = names(hooks);
                let near = nearest(&job.hook, names.iter().map(String::as_str));
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let all = names.join(", ");
                return Err(bad!("the recipe has no hook `{}`{hint}\nits hooks are: {all}", job.hook));
            }
        };
        made.write(folder)?;
        outcome = Some(made);
        Ok(())
    })?;
    outcome.context("no result")
}

/// The steps of a run that have a checkpoint, its start as step 0.
pub fn saved(run: &RunFolder) -> Vec<usize> {
    let start = run.complete(0).map(|_| 0);
    let steps = run.checkpoints().unwrap_or_default();
    start.into_iter().chain(steps.into_iter().map(|checkpoint| checkpoint.step)).collect()
}

/// Makes this process one that works beside training: it gives way to training, and ends with the run that started it.
pub fn yield_to_training() {
    // Neither matters if the system refuses it.
    let _ = rustix::process::nice(10);
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}
