//! What happens between two steps, outside the loop: evaluating, saving, judging. The loop has a list of hooks and does
//! not know what they do; a hook sees a `Moment` and not the loop.

use super::interrupted::Interrupted;
use super::learner::Models;
use super::operations::Counted;
use super::pulse::Pulse;
use super::watch::Watchdogs;
use crate::checkpoint::RunFolder;
use crate::dist::Comm;
use crate::env::Environment;
use crate::metrics::{Metrics, Record};
use crate::plan::Plan;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Something done after steps, on its own schedule.
pub trait Hook {
    /// Called after each step, and once before the first, as step 0.
    ///
    /// # Errors
    /// What should end the run.
    fn after_step(&mut self, moment: &mut Moment) -> Result<()>;

    /// Called once when training stops before its end, between two steps or within one.
    ///
    /// # Errors
    /// What should be said in place of the reason to stop.
    fn stop(&mut self, _: &mut Moment) -> Result<()> {
        Ok(())
    }

    /// Called once when training is over and its memory free, also by a run that is resumed after its last step.
    ///
    /// # Errors
    /// What should end the program with an error; `Stopped` on a signal.
    fn finish(&mut self, _: &mut End) -> Result<()> {
        Ok(())
    }
}

/// A run after its last step.
pub struct End<'a> {
    pub plan: &'a Plan,
    pub folder: &'a RunFolder,
    pub metrics: &'a mut Metrics,
    pub best: Option<Best>,
    pub pulse: &'a Pulse<'a>,
}

/// A run between two steps.
pub struct Moment<'a> {
    /// What a checkpoint would save. Hooks may record the best step in it.
    pub state: &'a mut State,
    /// Whether the last step is done.
    pub last: bool,
    /// What there is of the next step, if that is interrupted.
    pub interrupted: Option<&'a Interrupted>,
    /// For hooks that take long or wait.
    pub pulse: &'a Pulse<'a>,
    pub plan: &'a Plan,
    pub env: &'a Environment,
    pub comm: &'a dyn Comm,
    pub models: &'a Models,
    pub metrics: &'a mut Metrics,
    pub folder: &'a RunFolder,
    /// Seconds that the newest checkpoint took, until they are in a step's record.
    pub saving: &'a mut Option<f64>,
}

impl Moment<'_> {
    /// Whether something done every `every` steps (0: only before the first and after the last) is due.
    pub fn is_due(&self, every: usize) -> bool {
        self.last || self.state.step.is_multiple_of(every)
    }
}

/// What a resumed run needs besides weights and optimizers; `state.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// PPO steps done.
    pub step: usize,
    /// The KL coefficient, which adapts if the recipe says so.
    pub kl_coefficient: f64,
    pub best: Option<Best>,
    /// What warnings are decided by.
    #[serde(default)]
    pub watchdogs: Watchdogs,
    /// Whether the evaluation of this step, if one is due, is still to be done; a run that is stopped in it is resumed
    /// there.
    #[serde(default)]
    pub unevaluated: bool,
    /// None of a run that an earlier build began, which did not count them.
    #[serde(default)]
    pub tokens: Option<TokenCount>,
}

/// Tokens of all steps so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct TokenCount {
    /// Of prompts and responses, each prompt once per sample.
    pub read: u64,
    /// Of responses.
    pub written: u64,
}

impl TokenCount {
    /// Adds those of a step.
    pub fn add(&mut self, step: &Counted) {
        self.read = self.read.saturating_add(step.read as u64);
        self.written = self.written.saturating_add(step.written as u64);
    }

    pub fn record(self, record: &mut Record) {
        record.set("training/total_tokens", self.read as f64);
        record.set("training/response_tokens", self.written as f64);
    }
}

impl State {
    /// That of a run before its first step.
    pub fn first(plan: &Plan) -> Self {
        let kl_coefficient = plan.recipe.ppo.as_ref().map_or(0.0, |ppo| ppo.kl_coef);
        Self { kl_coefficient, unevaluated: true, tokens: Some(TokenCount::default()), ..Self::default() }
    }

    /// Checks a state that was read from the checkpoint of a step.
    ///
    /// # Errors
    /// It is of another step, or has a value that no run has.
    pub fn check(&self, step: usize) -> Result<()> {
        ensure!(self.step == step, "it is of step {}, and not of step {step}", self.step);
        let coefficient = self.kl_coefficient;
        ensure!(coefficient.is_finite() && coefficient >= 0.0, "kl_coefficient is {coefficient}, expected at least 0");
        if let Some(best) = self.best {
            ensure!(best.step <= step, "the best step is {}, after step {step}", best.step);
            ensure!((0.0..=1.0).contains(&best.accuracy), "the best accuracy is {}, not from 0 to 1", best.accuracy);
        }
        self.watchdogs.check(step)
    }
}

/// The best evaluation so far, by accuracy with the recipe's first decoding mode.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Best {
    pub step: usize,
    pub accuracy: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_were_not_counted_are_unknown() {
        let counted = State { tokens: Some(TokenCount { read: 3, written: 2 }), ..State::default() };
        let mut json = serde_json::to_value(&counted).unwrap();
        let read = |json: &serde_json::Value| serde_json::from_value::<State>(json.clone()).unwrap().tokens;
        assert_eq!(read(&json), counted.tokens);
        json.as_object_mut().unwrap().remove("tokens");
        assert_eq!(read(&json), None);
    }

    #[test]
    fn a_state_is_that_of_its_step() {
        let best = |step, accuracy| Some(Best { step, accuracy });
        let state = |step, kl_coefficient, best| State { step, kl_coefficient, best, ..State::default() };
        for whole in [state(6, 0.0, None), state(6, 0.1, best(6, 1.0)), state(6, 1e9, best(0, 0.0))] {
            whole.check(6).unwrap();
        }
        for (damaged, what) in [
            (state(5, 0.1, None), "it is of step 5, and not of step 6"),
            (state(usize::MAX, 0.1, None), "and not of step 6"),
            (state(6, -5.0, None), "kl_coefficient is -5"),
            (state(6, f64::NAN, None), "kl_coefficient is NaN"),
            (state(6, f64::INFINITY, None), "kl_coefficient is inf"),
            (state(6, 0.1, best(7, 0.5)), "the best step is 7"),
            (state(6, 0.1, best(2, f64::NAN)), "the best accuracy is NaN"),
        ] {
            let error = damaged.check(6).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
