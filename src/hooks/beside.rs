//! Runs hooks beside training: a process at a time, each for one checkpoint. Whatever happens to it, the run goes on.
//!
//! Decided: a process, not a thread, since it may run out of memory or crash, and since what it does is then by
//! construction what `ppo-train judge` does afterwards. Training waits only if the checkpoints of several steps wait
//! to be judged, so that a slow hook cannot fill the disk.
//!
//! The process is this very program: on Linux the one that is running, also if its file has been replaced or removed
//! meanwhile, so that no other code judges the later checkpoints of a run.

use super::outcome::Outcome;
use super::schedule::{Job, due, pending};
use crate::checkpoint::RunFolder;
use crate::dist::{Comm, apart};
use crate::files::program;
use crate::metrics::Metrics;
use crate::plan::{FAILED, Plan, WAITING};
use crate::terminal;
use crate::train::hook::{End, Hook, Moment};
use crate::train::pulse::Phase;
use crate::{BAD_INPUT, Stopped};
use anyhow::{Context, Result};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process has to end by itself when the run stops.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// What a command's own limit leaves to the process that calls it.
const AROUND: Duration = Duration::from_secs(60);

/// The jobs that are due, and the one under way.
pub struct Beside {
    /// Whether this process runs them; of several ranks the first does.
    runs: bool,
    queue: VecDeque<Waiting>,
    running: Option<Running>,
    /// Whether what an earlier process of this run left to do is in the queue.
    recovered: bool,
}

/// A job, and when it may begin.
struct Waiting {
    job: Job,
    from: Instant,
}

impl Waiting {
    fn new(job: Job) -> Self {
        Self { job, from: Instant::now() }
    }
}

/// A job under way.
struct Running {
    job: Job,
    child: Child,
    begun: Instant,
}

impl Hook for Beside {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        let (plan, run, step) = (moment.plan, moment.folder, moment.state.step);
        if !plan.recipe.hooks.are_beside() {
            return Ok(());
        }
        if self.runs {
            let steps = plan.recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
            self.recover(plan, run, step)?;
            if run.complete(step).is_some() {
                self.queue.extend(due(&plan.recipe.hooks, step, steps).into_iter().map(Waiting::new));
            }
            self.poll(plan, run, moment.metrics)?;
            if self.steps_waiting() > WAITING {
                let all: Vec<String> = self.jobs().map(Job::to_string).collect();
                terminal::warn(&format!("training waits for the hooks of earlier checkpoints: {}", all.join(", ")));
                moment.pulse.enter(Phase::Hooks);
            }
        }
        // Whether they are asked to stop, all ranks ask again later.
        moment.pulse.wait_while(POLL, || {
            self.poll(plan, run, moment.metrics)?;
            Ok(self.steps_waiting() > WAITING)
        })?;
        Ok(())
    }

    fn stop(&mut self, _: &mut Moment) -> Result<()> {
        self.end()
    }

    fn finish(&mut self, end: &mut End) -> Result<()> {
        if self.runs {
            self.recover(end.plan, end.folder, usize::MAX)?;
            if self.jobs().count() > 0 {
                let all: Vec<String> = self.jobs().map(Job::to_string).collect();
                end.pulse.enter(Phase::Hooks);
                terminal::print(&format!("waiting for {}: {}", terminal::counted(all.len(), "hook"), all.join(", ")));
            }
        }
        let done = end.pulse.wait_while(POLL, || {
            self.poll(end.plan, end.folder, end.metrics)?;
            Ok(self.jobs().count() > 0)
        })?;
        if !done {
            self.end()?;
            return Err(Stopped::RUN.into());
        }
        if self.runs { super::checkpoint::prune(end.plan, end.folder, end.best) } else { Ok(()) }
    }
}

impl Beside {
    /// That of this rank.
    pub fn of(comm: &dyn Comm) -> Self {
        Self { runs: comm.is_first(), queue: VecDeque::new(), running: None, recovered: false }
    }

    /// Puts into the queue what an earlier process left to do before `step`, once.
    fn recover(&mut self, plan: &Plan, run: &RunFolder, step: usize) -> Result<()> {
        if !self.recovered {
            self.recovered = true;
            for job in pending(&plan.recipe, run)?.into_iter().filter(|job| job.step < step) {
                if let Some(damage) = job.damage(run) {
                    terminal::warn(&format!("note: {damage}; it is made anew"));
                }
                self.queue.push_back(Waiting::new(job));
            }
        }
        Ok(())
    }

    /// The jobs that are not done.
    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.running.iter().map(|running| &running.job).chain(self.queue.iter().map(|waiting| &waiting.job))
    }

    fn steps_waiting(&self) -> usize {
        self.jobs().map(|job| job.step).collect::<BTreeSet<_>>().len()
    }

    /// Takes note of a process that has ended, or ends one that takes too long, and starts the next.
    fn poll(&mut self, plan: &Plan, run: &RunFolder, metrics: &mut Metrics) -> Result<()> {
        if let Some(Running { job, child, begun }) = &mut self.running {
            let (job, limit) = (job.clone(), limit(plan, job));
            match child.try_wait().context("a hook is lost")? {
                Some(status) => {
                    self.running = None;
                    self.ended(plan, run, metrics, &job, status)?;
                }
                None if begun.elapsed() > limit => {
                    self.end()?;
                    let why = format!("it was stopped after {} s (hooks.timeout)", limit.as_secs());
                    self.failed(plan, run, &job, &why, false)?;
                }
                None => return Ok(()),
            }
        }
        let now = Instant::now();
        let next = self.queue.iter().position(|waiting| waiting.from <= now);
        if let Some(Waiting { job, .. }) = next.and_then(|at| self.queue.remove(at)) {
            match start(run, &job) {
                Ok(child) => self.running = Some(Running { job, child, begun: now }),
                Err(error) => self.failed(plan, run, &job, &format!("{error:#}"), false)?,
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
            let why = format!("{}\n  what it printed is in {}", reason(status, &log), job.log(run).display());
            return self.failed(plan, run, job, &why, status.code() == Some(i32::from(BAD_INPUT)));
        }
        match Outcome::read(run, job) {
            Ok(outcome) => {
                terminal::print(&format!("hook {job}: {}", outcome.summary));
                metrics.write(&outcome.record());
                Ok(())
            }
            Err(error) => self.failed(plan, run, job, &format!("{error:#}"), false),
        }
    }

    /// Reports a failure, and queues the job again, after a pause, if it may be tried once more. `certain`: it would
    /// fail again.
    fn failed(&mut self, plan: &Plan, run: &RunFolder, job: &Job, error: &str, certain: bool) -> Result<()> {
        let hooks = &plan.recipe.hooks;
        let for_good = match job.fail(run, error, hooks.attempts, certain) {
            Ok(failed) => failed.for_good,
            Err(unwritten) => {
                terminal::warn(&format!("warning: {unwritten:#}"));
                true
            }
        };
        let next = if for_good {
            let Job { step, hook } = job;
            format!(
                "the run goes on without it, and keeps the checkpoint until {FAILED} newer ones have failed; \
                 later: ppo-train judge {} --steps {step} --hook {hook}",
                run.path().display()
            )
        } else {
            let pause = Duration::from_secs_f64(hooks.pause);
            self.queue.push_back(Waiting { job: job.clone(), from: Instant::now() + pause });
            format!("it will be tried again in {} s", hooks.pause)
        };
        terminal::warn(&format!("warning: hook {job} failed: {error}\n  {next}"));
        Ok(())
    }

    /// Ends the process under way, whose job is then as if it had not begun.
    fn end(&mut self) -> Result<()> {
        let Some(Running { mut child, .. }) = self.running.take() else { return Ok(()) };
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
    apart(&mut Command::new(program().context("this program's own path is not known")?))
        .arg0("ppo-train")
        .arg("judge")
        .arg(run.path())
        .args(["--steps", &job.step.to_string(), "--hook", &job.hook, "--beside"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| {
            let own = std::env::current_exe().unwrap_or_default();
            format!("cannot start {}, this program, once more", own.display())
        })
}

/// How long the process of a job may take.
fn limit(plan: &Plan, job: &Job) -> Duration {
    let hooks = &plan.recipe.hooks;
    let own = hooks.external.get(&job.hook).map(|external| Duration::from_secs(external.timeout) + AROUND);
    own.unwrap_or_else(|| Duration::from_secs(hooks.timeout))
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
