//! Runs hooks beside training: a process at a time, each for one checkpoint. Whatever happens to it, the run goes on.
//!
//! Decided: a process, not a thread, since it may run out of memory or crash, and since what it does is then by
//! construction what `ppo-train judge` does afterwards. Training waits only if the checkpoints of several steps wait
//! to be judged, so that a slow hook cannot fill the disk.

use super::outcome::Outcome;
use super::schedule::{Job, due, pending};
use crate::Stopped;
use crate::checkpoint::RunFolder;
use crate::metrics::Metrics;
use crate::plan::{Plan, WAITING};
use crate::terminal;
use crate::train::hook::{End, Hook, Moment};
use crate::train::pulse::Phase;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process has to end by itself when the run stops.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// The jobs that are due, and the one under way.
#[derive(Default)]
pub struct Beside {
    queue: VecDeque<Job>,
    running: Option<(Job, Child)>,
    /// Whether what an earlier process of this run left to do is in the queue.
    recovered: bool,
}

impl Hook for Beside {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let (plan, run, step) = (moment.plan, moment.folder, moment.state.step);
        let steps = plan.recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
        self.recover(plan, run, step)?;
        if run.complete(step).is_some() {
            self.queue.extend(due(&plan.recipe.hooks, step, steps));
        }
        self.poll(plan, run, moment.metrics)?;
        if self.steps_waiting() > WAITING {
            terminal::warn("training waits for the hooks of earlier checkpoints");
            moment.pulse.enter(Phase::Hooks);
            while self.steps_waiting() > WAITING && moment.pulse.goes_on() {
                sleep(POLL);
                self.poll(plan, run, moment.metrics)?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, _: &mut Moment) -> Result<()> {
        self.end()
    }

    fn finish(&mut self, end: &mut End) -> Result<()> {
        self.recover(end.plan, end.folder, usize::MAX)?;
        let left = |own: &Self| own.queue.len() + usize::from(own.running.is_some());
        if left(self) > 0 {
            end.pulse.enter(Phase::Hooks);
            terminal::print(&format!("waiting for {}", terminal::counted(left(self), "hook")));
        }
        while left(self) > 0 {
            if !end.pulse.goes_on() {
                self.end()?;
                return Err(Stopped::RUN.into());
            }
            self.poll(end.plan, end.folder, end.metrics)?;
            sleep(POLL);
        }
        super::checkpoint::prune(end.plan, end.folder, end.best)
    }
}

impl Beside {
    /// Puts into the queue what an earlier process left to do before `step`, once.
    fn recover(&mut self, plan: &Plan, run: &RunFolder, step: usize) -> Result<()> {
        if !self.recovered {
            self.recovered = true;
            self.queue.extend(pending(&plan.recipe, run)?.into_iter().filter(|job| job.step < step));
        }
        Ok(())
    }

    fn steps_waiting(&self) -> usize {
        let running = self.running.iter().map(|(job, _)| job.step);
        let mut steps: Vec<usize> = self.queue.iter().map(|job| job.step).chain(running).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.len()
    }

    /// Takes note of a process that has ended, and starts the next.
    fn poll(&mut self, plan: &Plan, run: &RunFolder, metrics: &mut Metrics) -> Result<()> {
        if let Some((job, child)) = &mut self.running {
            let Some(status) = child.try_wait().context("a hook is lost")? else { return Ok(()) };
            let job = job.clone();
            self.running = None;
            self.ended(plan, run, metrics, &job, status)?;
        }
        if let Some(job) = self.queue.pop_front() {
            match start(run, &job) {
                Ok(child) => self.running = Some((job, child)),
                Err(error) => self.failed(plan, run, &job, &format!("{error:#}"))?,
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        plan: &Plan,
        run: &RunFolder,
        metrics: &mut Metrics,
        job: &Job,
        status: ExitStatus,
    ) -> Result<()> {
        if !status.success() {
            let log = fs::read_to_string(job.log(run)).unwrap_or_default();
            return self.failed(plan, run, job, &reason(status, &log));
        }
        match Outcome::read(run, job) {
            Ok(outcome) => {
                terminal::print(&format!("hook {} at step {}: {}", job.hook, job.step, outcome.summary));
                metrics.write(&outcome.record());
                Ok(())
            }
            Err(error) => self.failed(plan, run, job, &format!("{error:#}")),
        }
    }

    /// Reports a failure, and queues the job again if it may be tried once more.
    fn failed(&mut self, plan: &Plan, run: &RunFolder, job: &Job, error: &str) -> Result<()> {
        let (hook, step, most) = (&job.hook, job.step, plan.recipe.hooks.attempts);
        let attempts = match job.fail(run, error) {
            Ok(failed) => failed.attempts,
            Err(unwritten) => {
                terminal::warn(&format!("warning: {unwritten:#}"));
                most
            }
        };
        let next = if attempts < most {
            self.queue.push_back(job.clone());
            "it will be tried again".to_string()
        } else {
            format!("the run goes on without it; later: ppo-train judge {} --steps {step}", run.path().display())
        };
        terminal::warn(&format!("warning: hook {hook} at step {step} failed: {error}\n  {next}"));
        Ok(())
    }

    /// Ends the process under way, whose job is then as if it had not begun.
    fn end(&mut self) -> Result<()> {
        let Some((_, mut child)) = self.running.take() else { return Ok(()) };
        terminate(&child);
        let until = Instant::now() + GRACE;
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                break;
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Beside {
    /// A run that fails takes its hooks with it.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Asks a process to end.
fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Starts the process of a job; what it prints goes to the job's log.
fn start(run: &RunFolder, job: &Job) -> Result<Child> {
    fs::create_dir_all(run.hooks(job.step))
        .with_context(|| format!("cannot create {}", run.hooks(job.step).display()))?;
    let log = File::create(job.log(run)).with_context(|| format!("cannot write {}", job.log(run).display()))?;
    let program = std::env::current_exe().context("this program's own path")?;
    Command::new(program)
        .arg("judge")
        .arg(run.path())
        .args(["--steps", &job.step.to_string(), "--hook", &job.hook, "--beside"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start a process")
}

/// Why a process ended, from its status and what it printed.
fn reason(status: ExitStatus, log: &str) -> String {
    if let Some(signal) = status.signal() {
        let memory = if signal == 9 { ", perhaps for want of memory" } else { "" };
        return format!("it was ended by signal {signal}{memory}");
    }
    let error = log.rfind("error: ").map(|at| &log[at + "error: ".len()..]);
    let last = || log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
    error.unwrap_or_else(last).trim().to_string()
}
