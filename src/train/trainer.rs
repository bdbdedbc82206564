//! What a PPO run keeps from step to step.

use super::hook::{Hook, Moment, State};
use super::learner::Models;
use super::stop::Stop;
use crate::Stopped;
use crate::checkpoint::RunFolder;
use crate::dist::Comm;
use crate::env::Environment;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::recipe::Ppo;
use anyhow::{Result, bail};

/// What to do about a run that a warning has ended.
pub const GO_ON: &str = "to go on, take the warning out of watch.stop or move its threshold";

/// What PPO trains, and what it trains with.
pub struct Trainer<'a> {
    pub plan: &'a Plan,
    pub ppo: &'a Ppo,
    pub env: &'a Environment,
    pub comm: &'a dyn Comm,
    pub models: Models,
    pub state: State,
    pub folder: &'a RunFolder,
    pub stop: &'a Stop,
    /// Tokens of a micro-batch: the recipe's, until memory runs out.
    pub micro_tokens: usize,
    /// Seconds that the newest checkpoint took, until a record has them.
    pub saving: Option<f64>,
}

impl Trainer<'_> {
    /// Calls the hooks after the state's step.
    ///
    /// # Errors
    /// Those of a hook; `Stopped` if the run is to end here; a warning that ends it.
    pub fn call(&mut self, hooks: &mut [Box<dyn Hook>], metrics: &mut Metrics) -> Result<()> {
        let last = self.state.step == self.ppo.steps;
        let halt = self.state.watchdogs.reason_to_stop(&self.plan.recipe.watch).filter(|_| !last);
        let mut moment = Moment {
            last,
            // Asked once, so that all hooks and ranks see the same; a later signal counts for the next step.
            stopping: self.comm.any(self.stop.is_wanted())? || halt.is_some(),
            stop: self.stop,
            plan: self.plan,
            env: self.env,
            comm: self.comm,
            models: &self.models,
            metrics,
            folder: self.folder,
            state: &mut self.state,
            saving: &mut self.saving,
        };
        for hook in hooks {
            hook.after_step(&mut moment)?;
        }
        if let Some(reason) = halt {
            let saved = self.folder.step(self.state.step);
            bail!("{reason}\nits last step is saved in {}; {GO_ON}, and use --resume", saved.path().display());
        }
        if moment.stopping { Err(Stopped::RUN.into()) } else { Ok(()) }
    }
}
