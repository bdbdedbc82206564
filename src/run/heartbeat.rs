//! The sign of life of a run: a small file in its folder that says where it is, and at the end how it ended.
//!
//! Decided: a thread writes it, so that a run that hangs is seen to hang: the file is new, and its last progress old.
//! It is replaced as a whole, so that a reader finds no half of it, but not synced: after a power loss the run is gone
//! anyway. What cannot be written is said once and costs nothing else.

use crate::checkpoint::RunFolder;
use crate::files::replace_file;
use crate::train::pulse::{Phase, Place, SharedPlace, now};
use crate::train::trainer::Halted;
use crate::{Stopped, json, terminal};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process;
use std::sync::PoisonError;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two beats.
const INTERVAL: Duration = Duration::from_secs(3);
/// Seconds after which a process that has not written is gone, where nothing else tells.
const SILENCE: f64 = 60.0;

/// `RUN/heartbeat.json`. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Heartbeat {
    pub process: u32,
    pub host: String,
    /// Whether the process holds a lock of the run folder, which tells others whether it lives.
    pub locked: bool,
    pub phase: Phase,
    /// What the steps are those of: `sft` or `ppo`; none before there are any.
    pub stage: Option<String>,
    /// Steps done.
    pub step: usize,
    /// Steps of the whole stage.
    pub steps: usize,
    pub started: f64,
    /// The last progress, such as a micro-batch or a token.
    pub progress: f64,
    pub written: f64,
    /// When the stage is estimated to end, from the pace of this process.
    pub ends: Option<f64>,
    /// Names of the warnings that are on.
    pub warnings: Vec<String>,
    /// How it ended; none while it lives, or if it was killed.
    pub ended: Option<Ended>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Ended {
    pub how: How,
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The run has come to its end.
    Done,
    /// By a signal, with its work saved.
    Stopped,
    /// By a warning of `watch.stop`, with its work saved.
    Halted,
    Failed,
}

impl Ended {
    fn of(result: &Result<()>) -> Self {
        match result {
            Ok(()) => Self { how: How::Done, message: None },
            Err(error) if error.is::<Stopped>() => Self { how: How::Stopped, message: None },
            Err(error) => {
                let how = if error.is::<Halted>() { How::Halted } else { How::Failed };
                Self { how, message: Some(format!("{error:#}")) }
            }
        }
    }
}

impl Heartbeat {
    fn new(locked: bool) -> Self {
        let now = now();
        Self {
            process: process::id(),
            host: host(),
            locked,
            phase: Phase::Starting,
            stage: None,
            step: 0,
            steps: 0,
            started: now,
            progress: now,
            written: now,
            ends: None,
            warnings: vec![],
            ended: None,
        }
    }

    /// The same process at another place, now.
    fn at(&self, place: &Place) -> Self {
        Self {
            phase: place.phase,
            stage: place.stage.map(|stage| stage.name().to_string()),
            step: place.step,
            steps: place.steps,
            progress: place.progress.max(self.progress),
            written: now(),
            ends: place.left().map(|left| now() + left),
            warnings: place.warnings.clone(),
            ..self.clone()
        }
    }

    /// The newest one of a run, if there is any that can be read.
    pub fn read(folder: &RunFolder) -> Option<Self> {
        json::read(&folder.heartbeat()).ok()
    }

    /// Its process, as the lock of the run folder names it.
    pub fn name(&self) -> String {
        format!("process {} on {}", self.process, self.host)
    }

    /// Whether its process may still be there, as seen from this host; `is_locked`: somebody holds the run's lock.
    pub fn may_live(&self, is_locked: bool) -> bool {
        // Some file systems keep the locks of each host apart.
        let unknown = !self.locked || self.host != host();
        self.ended.is_none() && (is_locked || unknown && now() - self.written < SILENCE)
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The heart of a run that is under way.
pub struct Heart {
    end: Option<Sender<Ended>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Begins to beat.
    pub fn start(folder: &RunFolder, place: SharedPlace, locked: bool) -> Self {
        let path = folder.heartbeat();
        let (end, ended) = channel();
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || {
            let mut heartbeat = Heartbeat::new(locked);
            let mut writes = true;
            loop {
                heartbeat = heartbeat.at(&place.lock().unwrap_or_else(PoisonError::into_inner));
                write(&heartbeat, &path, &mut writes);
                match ended.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    last => {
                        heartbeat = heartbeat.at(&place.lock().unwrap_or_else(PoisonError::into_inner));
                        let panicked = || Ended { how: How::Failed, message: Some("the program panicked".into()) };
                        heartbeat.ended = Some(last.unwrap_or_else(|_| panicked()));
                        return write(&heartbeat, &path, &mut writes);
                    }
                }
            }
        });
        Self { end: Some(end), thread: thread.ok() }
    }

    /// Ends with the run.
    pub fn end(mut self, result: &Result<()>) {
        if let Some(end) = self.end.take() {
            // Without a thread nobody listens.
            let _ = end.send(Ended::of(result));
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(heartbeat: &Heartbeat, path: &Path, writes: &mut bool) {
    // Cannot fail: numbers, texts and lists of them.
    let text = serde_json::to_string_pretty(heartbeat).unwrap_or_default();
    let written = replace_file(path, format!("{text}\n"));
    if let (true, Err(error)) = (*writes, &written) {
        terminal::warn(&format!("warning: the run goes on without a sign of life: {error:#}"));
    }
    *writes = written.is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Stage;
    use crate::train::pulse::Pulse;

    #[test]
    fn a_heart_says_where_a_run_is_and_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let pulse = Pulse::unwatched();
        pulse.count(Stage::Ppo, 3, 9);
        pulse.enter(Phase::Rollout);
        for (result, how, message) in [
            (Ok(()), How::Done, None),
            (Err(Stopped::RUN.into()), How::Stopped, None),
            (Err(Halted("kl_high is on".into()).into()), How::Halted, Some("kl_high is on")),
            (Err(anyhow::anyhow!("no disk").context("step 4")), How::Failed, Some("step 4: no disk")),
        ] {
            Heart::start(&folder, pulse.place(), true).end(&result);
            let beat = Heartbeat::read(&folder).unwrap();
            assert_eq!((beat.phase, beat.stage.as_deref(), beat.step, beat.steps), (Phase::Rollout, Some("ppo"), 3, 9));
            assert_eq!(beat.ended, Some(Ended { how, message: message.map(str::to_string) }));
            assert!(!beat.may_live(true) && beat.process == process::id());
        }
        // A panic drops it.
        drop(Heart::start(&folder, pulse.place(), true));
        let beat = Heartbeat::read(&folder).unwrap();
        assert_eq!(beat.ended.unwrap().message.unwrap(), "the program panicked");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_process_lives_as_long_as_its_lock_or_as_it_writes() {
        let here = Heartbeat::new(true);
        assert!(here.may_live(true) && !here.may_live(false), "the lock tells");
        let old = |beat: &Heartbeat| Heartbeat { written: now() - 2.0 * SILENCE, ..beat.clone() };
        let elsewhere = Heartbeat { host: "elsewhere".into(), ..here.clone() };
        let unlocked = Heartbeat::new(false);
        for beat in [elsewhere, unlocked] {
            assert!(beat.may_live(false) && !old(&beat).may_live(false) && old(&beat).may_live(true));
        }
    }
}
