//! What a run and the world outside tell each other while it works: that it shall stop, and where it is.
//!
//! Decided: one question, `goes_on`, between any two short pieces of work (micro-batches, tokens of a rollout, parts of
//! a prefill). It is each rank's own, so that ranks may ask it as often as their work needs; what is half done is then
//! dropped, and at the end of a stage all of them agree in `check`. The same call is the sign of life: what does not
//! ask makes no progress.

use super::stop::Stop;
use crate::Stopped;
use crate::dist::{Comm, Solo};
use crate::metrics::Stage;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    WarmStart,
    Rollout,
    Scoring,
    Update,
    Evaluation,
    Saving,
    Hooks,
}

impl Phase {
    /// Its name among words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WarmStart => "warm start",
            Self::Rollout => "rollout",
            Self::Scoring => "scoring",
            Self::Update => "update",
            Self::Evaluation => "evaluation",
            Self::Saving => "saving",
            Self::Hooks => "hooks",
        }
    }
}

/// Where a run is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub phase: Phase,
    /// What the steps are those of, once there are any.
    pub stage: Option<Stage>,
    /// Steps done.
    pub step: usize,
    /// Steps of the whole stage.
    pub steps: usize,
    /// When it last made progress, in seconds since 1970.
    pub progress: f64,
    /// Names of the warnings that are on.
    pub warnings: Vec<String>,
    /// Where this process began to count steps, and when.
    begun: Option<(usize, Instant)>,
}

impl Place {
    /// Seconds to the last step at the mean pace of this process; none before its first step.
    pub fn left(&self) -> Option<f64> {
        let (first, since) = self.begun?;
        let here = self.step.checked_sub(first).filter(|here| *here > 0)?;
        Some(since.elapsed().as_secs_f64() * self.steps.saturating_sub(self.step) as f64 / here as f64)
    }
}

/// A run at work.
#[derive(Clone)]
pub struct Pulse<'a> {
    stop: Stop,
    comm: &'a dyn Comm,
    place: SharedPlace,
}

/// The place of a run, for somebody who watches it from another thread.
pub type SharedPlace = Arc<Mutex<Place>>;

impl<'a> Pulse<'a> {
    pub fn new(stop: &Stop, comm: &'a dyn Comm) -> Self {
        Self { stop: stop.clone(), comm, place: SharedPlace::default() }
    }

    /// The ranks of the run.
    pub fn comm(&self) -> &'a dyn Comm {
        self.comm
    }

    pub fn place(&self) -> SharedPlace {
        Arc::clone(&self.place)
    }

    /// Whether this process is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_wanted()
    }

    /// Counts some progress; returns whether work goes on. If not, what is half done may be dropped.
    pub fn goes_on(&self) -> bool {
        self.lock().progress = now();
        #[cfg(test)]
        asked::ask(self);
        !self.is_stopping()
    }

    /// Called by all ranks, at the end of a stage and wherever one of them may have stopped.
    ///
    /// # Errors
    /// `Stopped` if any rank is asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.comm.any(!self.goes_on())? { Err(Stopped::RUN.into()) } else { Ok(()) }
    }

    /// Waits while the first rank `waits` for something, and asks it again after each `pause`. The others call this
    /// with it, so that all stop if one of them is asked to. Returns whether the wait is over, and not cut short.
    ///
    /// # Errors
    /// Those of `waits`, on the first rank alone; those of `Comm::sum`.
    pub fn wait_while(&self, pause: Duration, mut waits: impl FnMut() -> Result<bool>) -> Result<bool> {
        let first = self.comm.is_first();
        loop {
            if !self.comm.any(first && waits()?)? {
                return Ok(true);
            }
            if self.comm.any(!self.goes_on())? {
                return Ok(false);
            }
            if first {
                sleep(pause);
            }
        }
    }

    pub fn enter(&self, phase: Phase) {
        let mut place = self.lock();
        (place.phase, place.progress) = (phase, now());
    }

    /// Takes note that so many steps of a stage are done.
    pub fn count(&self, stage: Stage, step: usize, steps: usize) {
        let mut place = self.lock();
        if place.stage != Some(stage) {
            place.begun = Some((step, Instant::now()));
        }
        (place.stage, place.step, place.steps, place.progress) = (Some(stage), step, steps, now());
    }

    /// Takes note of the warnings that are on.
    pub fn warn(&self, warnings: Vec<String>) {
        self.lock().warnings = warnings;
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse<'static> {
    /// That of a process that nobody asks to stop.
    pub fn unwatched() -> Self {
        Self::new(&Stop::default(), &Solo)
    }
}

/// In tests a run can be stopped whenever it asks whether to go on.
#[cfg(test)]
pub mod asked {
    use super::{Phase, Pulse};
    use std::cell::{Cell, RefCell};
    use std::sync::atomic::Ordering;

    thread_local! {
        /// The phases in which runs of this thread have asked, since it was emptied.
        pub static PHASES: RefCell<Vec<Phase>> = const { RefCell::new(vec![]) };
        /// At which of these questions the run is asked to stop.
        pub static STOP_AT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn ask(pulse: &Pulse) {
        let phase = pulse.lock().phase;
        let at = PHASES.with_borrow_mut(|phases| {
            phases.push(phase);
            phases.len() - 1
        });
        if at == STOP_AT.get() {
            pulse.stop.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::threads::Thread;
    use std::sync::atomic::Ordering;

    #[test]
    fn the_end_is_estimated_from_the_steps_of_this_process() {
        let pulse = Pulse::unwatched();
        pulse.count(Stage::Ppo, 90, 100);
        assert_eq!(pulse.lock().left(), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        pulse.count(Stage::Ppo, 92, 100);
        let left = pulse.lock().left().unwrap();
        assert!((0.08..8.0).contains(&left), "two of ten steps took 20 ms: {left}");
        pulse.count(Stage::Ppo, 100, 100);
        assert_eq!(pulse.lock().left(), Some(0.0));
    }

    /// The last of three ranks is asked to stop while the first waits; then the first waits for three pauses.
    #[test]
    fn ranks_wait_together_for_the_first() {
        std::thread::scope(|scope| {
            for comm in Thread::group(3) {
                scope.spawn(move || {
                    let stop = Stop::default();
                    let pulse = Pulse::new(&stop, &comm);
                    let mut asked = 0;
                    let mut wait = |most: usize| {
                        asked = 0;
                        let over = pulse.wait_while(Duration::from_millis(1), || {
                            asked += 1;
                            Ok(asked <= most)
                        });
                        (over.unwrap(), asked)
                    };
                    assert_eq!(wait(3), (true, if comm.is_first() { 4 } else { 0 }));
                    stop.0.store(comm.rank() == 2, Ordering::Relaxed);
                    assert!(!wait(usize::MAX).0);
                });
            }
        });
    }

    #[test]
    fn a_stop_is_seen_at_once_and_by_all() {
        let stop = Stop::default();
        let pulse = Pulse::new(&stop, &Solo);
        pulse.check().unwrap();
        stop.0.store(true, Ordering::Relaxed);
        assert!(!pulse.goes_on() && pulse.check().unwrap_err().is::<Stopped>());
        assert!(pulse.lock().progress > 1.7e9);
    }
}
