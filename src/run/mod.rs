//! A run, from its folder to its last line: plan -> environment -> warm start -> PPO -> finish.

mod experiment;
mod health;
mod heartbeat;
mod history;
mod recovery;
mod replay;
mod seeds;
pub mod signals;
#[cfg(test)]
mod tests;
mod warm_start;

pub use experiment::runs;
pub use health::{Fate, Health, health};
pub use heartbeat::{Heartbeat, How};
pub use history::{Sitting, sittings};
pub use replay::{Replay, replay};
pub use seeds::{Seeds, check_seeds, launch_seeds};

use crate::analysis;
use crate::checkpoint::{Checkpoint, Lock, RunFolder, ensure_whole, link_folder, write_file};
use crate::dist::{self, Comm, agree};
use crate::env::Environment;
use crate::hooks;
use crate::metrics::{Logs, Metrics, Stage};
use crate::plan::{Disk, Plan, held, use_device, with_relief};
use crate::recipe::identity::{Difference, MAY_CHANGE, differences};
use crate::recipe::{self, Sft};
use crate::terminal;
use crate::torch::{catching, return_large_blocks, trim_above};
use crate::train::hook::{End, State};
use crate::train::interrupted::Interrupted;
use crate::train::learner::Models;
use crate::train::ppo;
use crate::train::pulse::Pulse;
use crate::train::sft::Done;
use crate::train::stop::Stop;
use crate::train::trainer::{GO_ON, Trainer};
use crate::{Stopped, bad, instead_of_file};
use anyhow::{Context, Result, anyhow};
use heartbeat::Heart;
use recovery::Recovery;
use std::fs;
use std::path::Path;
use warm_start::WarmUp;

/// Runs a plan from its start, or from its folder's newest checkpoint, to the end, together with the other ranks. The
/// first of them writes all files.
///
/// # Errors
/// `BadInput` for what the user can fix, `Stopped` on a signal once a checkpoint is written.
pub fn launch(plan: &Plan, resume: bool, comm: &dyn Comm) -> Result<()> {
    launch_one(plan, resume, (&signals::watch()?, comm), None)
}

/// `launch`, with a given flag to stop it. `shared`: another run whose finished `start` would be this one's too.
fn launch_one(plan: &Plan, resume: bool, with: (&Stop, &dyn Comm), shared: Option<&RunFolder>) -> Result<()> {
    catching(|| run(plan, resume, with, shared)).map_err(|error| with_relief(plan, error))
}

/// Makes the process one that computes as the recipe says.
pub fn use_machine(plan: &Plan) -> Result<()> {
    use_device(&plan.recipe.machine)?;
    if plan.recipe.memory.return_freed {
        return_large_blocks();
    }
    if plan.on_cpu() {
        trim_above(held(plan, dist::processes().unwrap_or(1)));
    }
    let wanted = Some(plan.recipe.machine.threads).filter(|threads| *threads > 0);
    if let Some(threads) = wanted.or_else(|| dist::local().threads()) {
        tch::set_num_threads(threads as i32);
    }
    Ok(())
}

fn run(plan: &Plan, resume: bool, (stop, comm): (&Stop, &dyn Comm), shared: Option<&RunFolder>) -> Result<()> {
    use_machine(plan)?;
    if let Some(missing) = plan.missing_weights() {
        return Err(bad!("{missing}"));
    }
    let pulse = &Pulse::new(stop, comm);
    let env = Environment::of(plan)?;
    env.preflight()?;
    let folder = RunFolder::new(&plan.out);
    if !comm.is_first() {
        // By then what is damaged is out of the way.
        comm.wait()?;
        let found = Recovery::find(plan, &folder, false)?;
        same_for_all(comm, &found, &folder)?;
        return go_on(plan, found, (&env, &folder), pulse, shared);
    }
    let lack = hooks::check(plan)?;
    lack.warnings.iter().for_each(|warning| terminal::warn(&format!("warning: {warning}")));
    if let Some(error) = lack.errors.first() {
        return Err(bad!("{error}"));
    }
    let lock = lock(&folder)?;
    let found = open(plan, &folder, resume)?;
    comm.wait()?;
    same_for_all(comm, &found, &folder)?;
    let heart = Heart::start(&folder, pulse.place(), lock.is_some());
    let ended = catching(|| go_on(plan, found, (&env, &folder), pulse, shared));
    heart.end(&ended);
    ended
}

/// # Errors
/// Not all ranks have found the same in the run's folder.
fn same_for_all(comm: &dyn Comm, found: &Recovery, folder: &RunFolder) -> Result<()> {
    if agree(comm, &found.summary())? {
        return Ok(());
    }
    let shown = folder.path().display();
    Err(anyhow!("the processes do not see the same files in {shown}: all of them must share its file system"))
}

/// Does what is left to do of a run, after what was found in its folder.
fn go_on(
    plan: &Plan,
    found: Recovery,
    (env, folder): (&Environment, &RunFolder),
    pulse: &Pulse,
    shared: Option<&RunFolder>,
) -> Result<()> {
    let comm = pulse.comm();
    let Recovery { checkpoint, start, interrupted, warm_start, .. } = found;
    let all = || Done { steps: plan.recipe.sft.as_ref().map_or(0, Sft::steps), ..Done::default() };
    let warm_start = if start { Some(all()) } else { warm_start };
    let resumed = match (&checkpoint, &warm_start) {
        (Some((_, state)), _) if state.unevaluated => Some((Stage::Ppo, state.step as u64)),
        (Some((_, state)), _) => Some((Stage::Evaluation, state.step as u64)),
        // A step whose figures are not recorded yet is counted among those that are.
        (None, done) => done.as_ref().map(|done| (Stage::Sft, done.steps as u64)),
    };
    // Files are hashed beside the first work, and the line is written by the end of this function.
    let _history = comm.is_first().then(|| history::record(plan, folder, resumed, comm.size()));
    let (checkpoint, state) =
        checkpoint.map_or_else(|| (None, State::first(plan)), |(found, state)| (Some(found), state));
    let logs = Logs { tensorboard: plan.recipe.logging.tensorboard, jsonl: plan.recipe.logging.jsonl };
    let mut metrics = match comm.is_first() {
        true => Metrics::open(folder.path(), logs, resumed, terminal::warn)?,
        false => Metrics::none(),
    };
    let disk = Disk::of(plan);
    if let (None, Some(shortage)) = (resumed, disk.shortage("the run", disk.total())) {
        terminal::warn(&format!("warning: {shortage} in {}", plan.out.display()));
    }

    if let (false, Some(shared), true) = (start, shared, comm.is_first()) {
        ensure_whole(&shared.start(), &[])?;
        link_folder(&shared.start(), &folder.start())?;
        if shared.traces().exists() {
            fs::copy(shared.traces(), folder.traces())?;
        }
    }
    pulse.check()?;
    let done = warm_start.unwrap_or_default();
    let start = WarmUp { plan, env, folder, pulse, done }.policy(&mut metrics)?;
    let Some(ppo) = &plan.recipe.ppo else {
        terminal::print(&format!("the trained model is in {}", folder.start().display()));
        return Ok(());
    };
    pulse.check()?;
    let mut models = Models::new(plan, ppo, start, comm);
    let mut unfinished = None;
    if let Some(checkpoint) = &checkpoint {
        let from = || format!("cannot resume from {}", checkpoint.path().display());
        models.restore(checkpoint).with_context(from)?;
        if interrupted {
            unfinished = Some(Interrupted::load(checkpoint.path(), models.actor.model.device()).with_context(from)?);
        }
    }
    let micro_tokens = ppo.micro_batch_tokens;
    let (interrupted, saving) = (unfinished, None);
    let peak = None;
    let mut trainer =
        Trainer { plan, ppo, env, comm, models, state, interrupted, folder, pulse, micro_tokens, peak, saving };
    let mut hooks = hooks::all(plan, comm);
    ppo::train(&mut trainer, &mut metrics, &mut hooks)?;
    let best = trainer.state.best;
    drop(trainer);
    let mut end = End { plan, folder, metrics: &mut metrics, best, pulse };
    let finished = hooks.iter_mut().try_for_each(|hook| hook.finish(&mut end));
    // The first rank may have waited for hooks, and all end as it does.
    let stopped = match &finished {
        Err(error) if !error.is::<Stopped>() => return finished,
        ended => ended.is_err(),
    };
    if comm.any(stopped)? {
        return Err(Stopped::RUN.into());
    }
    if comm.is_first() { finish(plan, folder, &mut metrics, env.task.name()) } else { Ok(()) }
}

/// Makes the run folder this process's own, until the lock is dropped.
fn lock(folder: &RunFolder) -> Result<Option<Lock>> {
    let out = folder.path();
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let lock = Lock::take(out)?;
    if lock.is_none() {
        let out = out.display();
        terminal::warn(&format!("warning: the file system of {out} has no locks: run only one process there"));
    }
    Ok(lock)
}

/// Prepares the run folder for this plan; returns what to continue from.
fn open(plan: &Plan, folder: &RunFolder, resume: bool) -> Result<Recovery> {
    // A start that failed at once has left nothing worth keeping.
    if let Some(other) = instead_of_file(&folder.metrics()) {
        return Err(bad!(
            "{} is {other}, not a file: choose another folder with --out DIR",
            folder.metrics().display()
        ));
    }
    let records = fs::metadata(folder.metrics()).is_ok_and(|file| file.len() > 0);
    let saved = [folder.start(), folder.unfinished_start().path().to_path_buf()].iter().any(|dir| dir.exists());
    let begun = records || saved || !folder.steps()?.is_empty();
    if begun && !resume {
        return Err(bad!(
            "{} already holds a run: continue it with --resume, or choose another folder with --out DIR",
            plan.out.display()
        ));
    }
    let found = Recovery::find(plan, folder, true)?;
    let checkpoint = found.checkpoint.as_ref().map(|(checkpoint, _)| checkpoint);
    if begun {
        same_experiment(plan, &checkpoint.map_or_else(|| folder.recipe(), Checkpoint::recipe))?;
    }
    if let (Some((_, state)), Some(ppo)) = (&found.checkpoint, &plan.recipe.ppo)
        && let Some(reason) = state.watchdogs.reason_to_stop(&plan.recipe.watch).filter(|_| state.step < ppo.steps)
    {
        return Err(bad!("{}: {reason}\n{GO_ON}", plan.out.display()));
    }
    folder.sweep()?;
    found.apply(folder)?;
    hooks::schedule::forget_after(folder, checkpoint.map_or(0, |checkpoint| checkpoint.step))?;
    write_file(&folder.recipe(), &plan.text)?;
    Ok(found)
}

/// Refuses to continue a run with another recipe, and reports the changes that are allowed.
fn same_experiment(plan: &Plan, before: &Path) -> Result<()> {
    let (allowed, refused): (Vec<_>, Vec<_>) =
        differences(&recipe::stored(before)?, &plan.recipe).into_iter().partition(Difference::is_allowed);
    let list = |all: &[Difference]| all.iter().map(|difference| format!("\n  {difference}")).collect::<String>();
    if !refused.is_empty() {
        let (out, keys) = (plan.out.display(), list(&refused));
        return Err(bad!(
            "{out} holds a run of another recipe, which --resume cannot continue with:{keys}\n\
             set these keys back, or start a separate run with --out DIR (what may change: {})",
            MAY_CHANGE.join(", ")
        ));
    }
    if !allowed.is_empty() {
        terminal::warn(&format!("the run continues with a changed recipe:{}", list(&allowed)));
    }
    Ok(())
}

/// The table of before and after, the curve, and where everything is. A run that has come so far does not fail for its
/// logs.
fn finish(plan: &Plan, folder: &RunFolder, metrics: &mut Metrics, task: &str) -> Result<()> {
    metrics.flush();
    if plan.recipe.logging.jsonl {
        let shown = || -> Result<()> {
            let records = analysis::read_jsonl(&folder.metrics(), terminal::warn)?;
            let rows = analysis::before_and_after(&records, task);
            terminal::print(&terminal::table(&analysis::TITLES, &rows));
            analysis::draw_curve(&records, &folder.curve(), &plan.recipe.name)?;
            terminal::print(&format!("curve         {}", folder.curve().display()));
            Ok(())
        };
        if let Err(error) = shown() {
            terminal::warn(&format!("warning: the run is finished, but what it came to cannot be shown: {error:#}"));
        }
    }
    terminal::print(&format!("TensorBoard   scripts/tensorboard {}", folder.path().display()));
    if let Some(checkpoint) = folder.latest()? {
        terminal::print(&format!("model         {}", checkpoint.model().display()));
    }
    Ok(())
}
