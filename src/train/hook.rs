//! What happens between two steps, beside the loop: evaluating, saving, judging. The loop knows a list of hooks and
//! nothing of what they do; a hook sees a `Moment` and nothing of the loop.

use super::learner::Models;
use super::stop::Stop;
use crate::checkpoint::RunFolder;
use crate::env::Environment;
use crate::metrics::Metrics;
use crate::plan::Plan;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Something that is done after steps, on its own schedule.
pub trait Hook {
    /// Called after each step, and once before the first, as step 0.
    ///
    /// # Errors
    /// What should end the run.
    fn after_step(&mut self, moment: &mut Moment) -> Result<()>;
}

/// A run between two steps.
pub struct Moment<'a> {
    /// PPO steps done.
    pub step: usize,
    /// Whether that was the last.
    pub last: bool,
    pub plan: &'a Plan,
    pub env: &'a Environment,
    pub models: &'a Models,
    pub metrics: &'a mut Metrics,
    pub folder: &'a RunFolder,
    /// The best evaluation so far.
    pub best: &'a mut Option<Best>,
    /// Seconds that the newest checkpoint took, until a step's record has them.
    pub saving: &'a mut Option<f64>,
    pub(super) stop: &'a Stop,
    pub(super) stopping: bool,
}

impl Moment<'_> {
    /// Whether something that is done every so many steps (0: at the ends alone) is due.
    pub fn is_due(&self, every: usize) -> bool {
        self.last || self.step.is_multiple_of(every)
    }

    /// Whether the run stops at this step. Once a hook has been told so, the run does; a signal that comes later is the
    /// next step's.
    pub fn is_stopping(&mut self) -> bool {
        self.stopping |= self.stop.is_wanted();
        self.stopping
    }
}

/// The best evaluation so far, by accuracy of the recipe's first way of decoding.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Best {
    pub step: usize,
    pub accuracy: f64,
}

/// What a resumed run has to know besides weights and optimizers; `state.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// PPO steps done.
    pub step: usize,
    pub kl_coefficient: f64,
    pub best: Option<Best>,
}
