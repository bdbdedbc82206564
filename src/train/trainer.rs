//! What a PPO run keeps from step to step.

use super::hook::{Hook, Moment, State};
use super::interrupted::Interrupted;
use super::learner::Models;
use super::pulse::Pulse;
use crate::checkpoint::RunFolder;
use crate::dist::Comm;
use crate::env::Environment;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::recipe::Ppo;
use anyhow::Result;
use std::fmt;

/// A warning of `watch.stop` has ended the run.
#[derive(Debug)]
pub struct Halted(pub String);

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Halted {}

/// What to do about a run that a warning has ended.
pub const GO_ON: &str = "to go on, take the warning out of watch.stop or move its threshold";

/// What PPO trains, and what it trains with.
pub struct Trainer<'a> {
    pub plan: &'a Plan,
    pub ppo: &'a Ppo,
    pub env: &'a Environment,
    pub comm: &'a dyn Comm,
    pub models: Models,
    /// As of the last step that is done.
    pub state: State,
    /// What there is of the next step, if its update was interrupted, in this process or in one before.
    pub interrupted: Option<Interrupted>,
    pub folder: &'a RunFolder,
    pub pulse: &'a Pulse<'a>,
    /// Tokens of a micro-batch: the recipe's, until memory runs out.
    pub micro_tokens: usize,
    /// Operations per second of all processes' devices at their best, once the first step is done; none inside if they
    /// could not be measured.
    pub peak: Option<Option<f64>>,
    /// Seconds that the newest checkpoint took, until a record has them.
    pub saving: Option<f64>,
}

impl Trainer<'_> {
    /// Calls the hooks after the state's step.
    ///
    /// # Errors
    /// Those of a hook; `Stopped` if one of them was interrupted; `Halted` if a warning ends the run here.
    pub fn call(&mut self, hooks: &mut [Box<dyn Hook>], metrics: &mut Metrics) -> Result<()> {
        let mut moment = self.moment(metrics);
        hooks.iter_mut().try_for_each(|hook| hook.after_step(&mut moment))?;
        let last = moment.last;
        match self.state.watchdogs.reason_to_stop(&self.plan.recipe.watch) {
            Some(reason) if !last => {
                let saved = self.folder.step(self.state.step);
                let saved = saved.path().display();
                Err(Halted(format!("{reason}\nits last step is saved in {saved}; {GO_ON}, and use --resume")).into())
            }
            _ => Ok(()),
        }
    }

    /// Calls the hooks of a run that stops before its end.
    ///
    /// # Errors
    /// Those of a hook.
    pub fn leave(&mut self, hooks: &mut [Box<dyn Hook>], metrics: &mut Metrics) -> Result<()> {
        let mut moment = self.moment(metrics);
        hooks.iter_mut().try_for_each(|hook| hook.stop(&mut moment))
    }

    fn moment<'m>(&'m mut self, metrics: &'m mut Metrics) -> Moment<'m> {
        Moment {
            last: self.state.step == self.ppo.steps,
            interrupted: self.interrupted.as_ref(),
            pulse: self.pulse,
            plan: self.plan,
            env: self.env,
            comm: self.comm,
            models: &self.models,
            metrics,
            folder: self.folder,
            state: &mut self.state,
            saving: &mut self.saving,
        }
    }
}
