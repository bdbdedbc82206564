//! The work of a hook, which sees a checkpoint's folder and the run's recipe alone: in a process beside training, or
//! afterwards by `ppo-train judge`, with the same result.

use super::external;
use super::judges::{check_key, panel};
use super::outcome::Outcome;
use super::schedule::{DISTINCT, Job, PERSONA, TRANSFER, names};
use super::{distinct, persona, transfer};
use crate::bad;
use crate::checkpoint::{Checkpoint, RunFolder, write_folder};
use crate::dist::Solo;
use crate::model::Policy;
use crate::plan::{Plan, use_device};
use crate::recipe::Hooks;
use crate::recipe::spelling::nearest;
use crate::train::pulse::Pulse;
use crate::train::stop::Stop;
use anyhow::{Context, Result};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Device;

/// Does a job for a run and puts its result into the folder of `out`, which may be another one than the run's. `stop`:
/// set by a signal.
///
/// # Errors
/// Bad input: a hook that the recipe does not have, a step without a checkpoint. Those of the hook.
pub fn work(plan: &Plan, run: &RunFolder, out: &RunFolder, job: &Job, stop: &Arc<AtomicBool>) -> Result<Outcome> {
    let plan = &with_batch(plan);
    let hooks = &plan.recipe.hooks;
    let checkpoint = run.complete(job.step).ok_or_else(|| {
        let all = listed(&saved(run).iter().map(usize::to_string).collect::<Vec<_>>());
        bad!("{} has no checkpoint of step {}; it has {all}", run.path().display(), job.step)
    })?;
    let pulse = Pulse::new(&Stop(Arc::clone(stop)), &Solo);
    let mut outcome = None;
    write_folder(&job.folder(out), |folder| {
        let here = (job, folder);
        let made = match (job.hook.as_str(), hooks.external.get(&job.hook)) {
            (_, Some(external)) => external::call(external, job, run.path(), &checkpoint, stop)?,
            (PERSONA, _) if let Some(persona) = &hooks.persona => {
                check_key(&persona.judge)?;
                let answers = out.hooks(0).with_file_name("answers");
                let open = || panel(&persona.judge, &answers, device(plan)?, stop);
                persona::judge(plan, persona, (policy(plan, &checkpoint)?, &pulse), open, here)?
            }
            (TRANSFER, _) if let Some(transfer) = &hooks.transfer => {
                transfer::evaluate_on(plan, transfer, (&policy(plan, &checkpoint)?, &pulse), here)?
            }
            (DISTINCT, _) if let Some(settings) = &hooks.distinct => {
                check_key(&settings.judge)?;
                let answers = out.hooks(0).with_file_name("answers");
                let open = || panel(&settings.judge, &answers, device(plan)?, stop);
                let here = (job, out, folder);
                distinct::look(plan, settings, (&policy(plan, &checkpoint)?, &pulse), open, here)?
            }
            _ => return Err(unknown(&plan.recipe.hooks, &job.hook)),
        };
        made.write(folder)?;
        outcome = Some(made);
        Ok(())
    })?;
    outcome.context("no result")
}

/// What the result of a job would depend on besides the checkpoint, without doing it.
///
/// # Errors
/// Bad input: a hook that the recipe does not have; a template, prompts or a body that cannot be used.
pub fn identity(plan: &Plan, job: &Job) -> Result<Value> {
    let hooks = &plan.recipe.hooks;
    match (job.hook.as_str(), hooks.external.get(&job.hook)) {
        (_, Some(external)) => Ok(external::identity(external)),
        (PERSONA, _) if let Some(persona) = &hooks.persona => persona::identity(plan, persona),
        (TRANSFER, _) if let Some(transfer) = &hooks.transfer => transfer::identity(plan, transfer),
        (DISTINCT, _) if let Some(settings) = &hooks.distinct => distinct::identity(plan, settings),
        _ => Err(unknown(hooks, &job.hook)),
    }
}

fn unknown(hooks: &Hooks, name: &str) -> anyhow::Error {
    let names = names(hooks);
    let near = nearest(name, names.iter().map(String::as_str));
    let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    bad!("the recipe has no hook `{name}`{hint}\nits hooks are: {}", names.join(", "))
}

/// Names in a row: "0, 3 and 4".
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_string(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The plan, decoding as many sequences at a time as hooks may.
fn with_batch(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.recipe.rollout.batch = plan.recipe.hooks.batch;
    plan
}

/// The actor of a checkpoint, on the hooks' device.
fn policy(plan: &Plan, checkpoint: &Checkpoint) -> Result<Policy> {
    let threads = plan.recipe.hooks.threads;
    if threads > 0 {
        tch::set_num_threads(threads as i32);
    }
    Ok(Policy::new(&plan.config, plan.weights(&checkpoint.language_model(), device(plan)?)?))
}

/// The hooks' device.
fn device(plan: &Plan) -> Result<Device> {
    use_device(&plan.recipe.hooks_machine())
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
