//! How far a run has come, read from its folder by somebody who may be another process.

use super::heartbeat::{Heartbeat, How};
use crate::checkpoint::{Lock, RunFolder, is_complete};
use crate::hooks::schedule::{Job, due};
use crate::hooks::{Outcome, saved};
use crate::metrics::{Stage, jsonl};
use crate::recipe;
use crate::terminal::{counted, seconds};
use crate::train::pulse::{Phase, now};
use anyhow::Result;
use serde::Serialize;
use std::fmt;

/// Seconds without progress that are worth a word.
const QUIET: f64 = 60.0;

/// What has become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Running,
    Finished,
    /// By a signal, or before it trained; `--resume` goes on.
    Stopped,
    /// By a warning of `watch.stop`.
    Halted,
    Failed,
    /// Its process is gone without a word: killed, or the machine is.
    Killed,
}

impl Fate {
    /// Its name among words.
    fn words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Halted => "halted",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }
}

/// What there is to know about a run. Times are in seconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    pub run: String,
    pub state: Fate,
    /// Why it failed or was halted.
    pub message: Option<String>,
    /// The process that holds the run, if one does.
    pub process: Option<String>,
    /// What it is doing, or did last.
    pub phase: Option<Phase>,
    /// The steps of the warm start that are done, and all of them, while it is under way.
    pub warm_start: Option<[usize; 2]>,
    /// The newest step in the logs, or of the newest checkpoint.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// When it last made progress.
    pub progress: Option<f64>,
    /// When what it is doing, the warm start or PPO, is estimated to end.
    pub ends: Option<f64>,
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
        // Whoever asks often is not to wait for results to be read.
        let state = match (&failed, job.has_result(folder)) {
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
    // A process that has only just begun has not written yet.
    let is_its = |beat: &Heartbeat| process.as_ref().is_none_or(|process| *process == beat.name());
    let beat = Heartbeat::read(folder).filter(is_its);
    let state = match beat.as_ref().map(|beat| (beat, beat.ended.as_ref())) {
        _ if process.is_some() => Fate::Running,
        Some((_, Some(ended))) => match ended.how {
            How::Done => Fate::Finished,
            How::Stopped => Fate::Stopped,
            How::Halted => Fate::Halted,
            How::Failed => Fate::Failed,
        },
        Some((beat, None)) if beat.may_live(false) => Fate::Running,
        Some((_, None)) => Fate::Killed,
        // A run of an earlier version.
        None if trained => Fate::Finished,
        None => Fate::Stopped,
    };
    let running = beat.as_ref().filter(|_| state == Fate::Running);
    let warm_start = running.filter(|beat| beat.stage.as_deref() == Some(Stage::Sft.name()));
    let begun = logged.unwrap_or(0).max(newest.unwrap_or(0) as u64);
    let judged = (0..=begun as usize).flat_map(|step| due(&recipe.hooks, step, steps));
    Ok(Health {
        run: folder.path().display().to_string(),
        state,
        message: beat.as_ref().and_then(|beat| beat.ended.as_ref()?.message.clone()).filter(|_| process.is_none()),
        process: process.or_else(|| running.map(Heartbeat::name)),
        phase: beat.as_ref().map(|beat| beat.phase),
        warm_start: warm_start.map(|beat| [beat.step, beat.steps]),
        progress: beat.as_ref().map(|beat| beat.progress),
        ends: running.and_then(|beat| beat.ends),
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
        write!(f, "{}: {}", self.run, self.state.words())?;
        if let Some(process) = &self.process {
            write!(f, " ({process})")?;
        }
        if let (Fate::Running | Fate::Killed, Some(phase)) = (self.state, self.phase) {
            write!(f, ", {}{}", if self.state == Fate::Killed { "in its " } else { "" }, phase.words())?;
        }
        if let Some([step, steps]) = self.warm_start {
            write!(f, " {step} of {steps}")?;
        }
        write!(f, ", step {} of {}", self.step, self.steps)?;
        if let Some(ends) = self.ends {
            write!(f, ", about {} left", seconds((ends - now()).max(0.0)))?;
        }
        let ago = self.progress.map(|progress| now() - progress);
        match (self.state, ago) {
            (Fate::Running, Some(ago)) if ago > QUIET => write!(f, ", no progress for {}", seconds(ago))?,
            (Fate::Running | Fate::Finished, _) | (_, None) => {}
            (_, Some(ago)) => write!(f, ", {} ago", seconds(ago.max(0.0)))?,
        }
        match self.saved {
            Some(step) => write!(f, ", saved at step {step}")?,
            None => write!(f, ", no checkpoint yet")?,
        }
        if let Some((step, accuracy)) = self.accuracy {
            write!(f, ", accuracy {:.1} % at step {step}", 100.0 * accuracy)?;
        }
        if let Some(message) = &self.message {
            let text = message.replace('\n', "\n  ");
            // A terminal would obey control characters.
            let shown: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
            write!(f, "\n  {shown}")?;
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
