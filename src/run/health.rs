//! How far a run has come, read from its folder by somebody who may be another process.

use crate::checkpoint::{Lock, RunFolder, is_complete};
use crate::hooks::schedule::{Job, due};
use crate::hooks::{Outcome, saved};
use crate::metrics::{Stage, jsonl};
use crate::recipe;
use crate::terminal::counted;
use anyhow::Result;
use serde::Serialize;
use std::fmt;

/// What there is to know about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    pub run: String,
    /// `running`, `finished`, or `stopped` before its end.
    pub state: &'static str,
    /// The process that holds the run, if one does.
    pub process: Option<String>,
    /// The newest step in the logs, or of the newest checkpoint.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The step of the newest checkpoint.
    pub saved: Option<usize>,
    /// Accuracy at the newest evaluation, and its step.
    pub accuracy: Option<(u64, f64)>,
    /// Names of the warnings that were on at the newest step in the logs.
    pub warnings: Vec<String>,
    pub hooks: Vec<HookHealth>,
}

/// What has come of a hook at a step.
#[derive(Clone, Debug, Serialize)]
pub struct HookHealth {
    pub hook: String,
    pub step: usize,
    /// `done`, `waiting`, or `failed`.
    pub state: &'static str,
    pub attempts: usize,
    pub error: Option<String>,
    /// Of a hook that is done: what its result is not about, and why.
    pub missing: Option<String>,
}

/// Reads the state of the run in a folder.
///
/// # Errors
/// Bad input: its recipe cannot be read.
pub fn health(folder: &RunFolder) -> Result<Health> {
    let recipe = recipe::stored(&folder.recipe())?;
    // Logs that cannot be read are as if there were none: what a checkpoint holds counts.
    let records = jsonl::read(&folder.metrics(), |_| ()).unwrap_or_default();
    let logged = records.iter().filter(|record| record.stage == Stage::Ppo).map(|record| record.step).max();
    let saved_steps = saved(folder);
    let newest = saved_steps.iter().copied().filter(|step| *step > 0).max();
    let steps = recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
    let process = Lock::holder(folder.path());
    let trained = newest == Some(steps) || steps == 0 && is_complete(&folder.start());
    // An evaluation's first accuracy is that of the recipe's first decoding mode.
    let is_accuracy = |name: &str| name.starts_with("val/") && name.ends_with("/accuracy");
    let accuracy = records.iter().rev().find_map(|record| {
        let (_, accuracy) = record.scalars().find(|(name, _)| is_accuracy(name))?;
        Some((record.step, accuracy))
    });
    let hook = |job: Job| {
        let failed = job.failed(folder);
        let state = match (&failed, job.is_done(folder)) {
            (_, true) => "done",
            (Some(_), _) => "failed",
            (None, false) => "waiting",
        };
        let attempts = failed.as_ref().map_or(0, |failed| failed.attempts);
        let missing =
            if state == "done" { Outcome::read(folder, &job).ok().and_then(|found| found.missing) } else { None };
        let error = failed.map(|failed| failed.error);
        HookHealth { hook: job.hook, step: job.step, state, attempts, error, missing }
    };
    let warnings = records.iter().rfind(|record| record.stage == Stage::Ppo).into_iter().flat_map(|record| {
        let on = record.scalars().filter(|(_, value)| *value > 0.0);
        on.filter_map(|(name, _)| Some(name.strip_prefix("watch/")?.to_string()))
    });
    let begun = logged.unwrap_or(0).max(newest.unwrap_or(0) as u64);
    let judged = (0..=begun as usize).flat_map(|step| due(&recipe.hooks, step, steps));
    Ok(Health {
        run: folder.path().display().to_string(),
        state: match (&process, trained) {
            (Some(_), _) => "running",
            (None, true) => "finished",
            (None, false) => "stopped",
        },
        process,
        step: begun,
        steps: steps as u64,
        saved: newest,
        accuracy,
        warnings: warnings.collect(),
        hooks: judged.map(hook).collect(),
    })
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.run, self.state)?;
        if let Some(process) = &self.process {
            write!(f, " ({process})")?;
        }
        write!(f, ", step {} of {}", self.step, self.steps)?;
        match self.saved {
            Some(step) => write!(f, ", saved at step {step}")?,
            None => write!(f, ", no checkpoint yet")?,
        }
        if let Some((step, accuracy)) = self.accuracy {
            write!(f, ", accuracy {:.1} % at step {step}", 100.0 * accuracy)?;
        }
        if !self.warnings.is_empty() {
            write!(f, "\n  {} on: {}", counted(self.warnings.len(), "warning"), self.warnings.join(", "))?;
        }
        let count = |state: &str| self.hooks.iter().filter(|hook| hook.state == state).count();
        if !self.hooks.is_empty() {
            write!(f, "\n  {}: {} done", counted(self.hooks.len(), "hook"), count("done"))?;
            for state in ["waiting", "failed"] {
                if count(state) > 0 {
                    write!(f, ", {} {state}", count(state))?;
                }
            }
        }
        for hook in self.hooks.iter().filter(|hook| hook.state == "failed") {
            let error = hook.error.as_deref().unwrap_or_default();
            write!(f, "\n  {} at step {} failed {}: {error}", hook.hook, hook.step, counted(hook.attempts, "time"))?;
        }
        for hook in &self.hooks {
            if let Some(missing) = &hook.missing {
                write!(f, "\n  {} at step {}: {missing}", hook.hook, hook.step)?;
            }
        }
        Ok(())
    }
}
