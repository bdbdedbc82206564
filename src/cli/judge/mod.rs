//! `ppo-train judge`: a run's hooks afterwards; a file of traces; two files of judged ones.

mod compare;
mod traces;

use super::common::{print, print_json, self_contained, whole_model_of};
use anyhow::{Error, Result, bail};
use clap::Args;
use compare::{agree, differ};
use ppo_train::checkpoint::{Lock, RunFolder};
use ppo_train::hooks::schedule::{Job, due, names};
use ppo_train::hooks::{Outcome, identity, saved, work};
use ppo_train::metrics::{Logs, Metrics};
use ppo_train::plan::{self, Plan};
use ppo_train::run::signals;
use ppo_train::stats::Figure;
use ppo_train::terminal::{self, figure, interval, table};
use ppo_train::{BadInput, Stopped, bad};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use traces::Traces;

/// Let a run's hooks judge its checkpoints, as they do beside training. What is judged already is shown as it is.
///
/// Example: ppo-train judge checkpoints/quickstart --steps 0,44 --set hooks.persona.traces=64
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Judge {
    /// The run folder.
    #[arg(required_unless_present_any = ["agree", "differ", "traces"])]
    run: Option<PathBuf>,
    /// The steps to judge, whatever the schedule says (default: those that have a checkpoint, on each hook's own
    /// schedule); 0 is the model that PPO starts from.
    #[arg(long, value_delimiter = ',')]
    steps: Option<Vec<usize>>,
    /// The hooks (default: all that the recipe has).
    #[arg(long = "hook", value_name = "NAME")]
    hooks: Vec<String>,
    /// Judge again what is judged already.
    #[arg(long)]
    again: bool,
    /// Write the results into the folder `hooks` of DIR rather than of the run; of --traces, into DIR itself.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Override a key of the run's recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Say how far two judges of the same traces agree, ICC(3,1) by category: two files `traces.jsonl` that they wrote,
    /// or the folders of these.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "run")]
    agree: Option<Vec<PathBuf>>,
    /// Say how the figures of two sets of judged traces differ, as they are and at matched length: files or folders as
    /// for --agree, such as those of two steps or two arms. Of different judges it is refused.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["run", "agree"])]
    differ: Option<Vec<PathBuf>>,
    #[command(flatten)]
    traces: Traces,
    /// Print JSON: a list of results.
    #[arg(long)]
    json: bool,
    /// As a run starts it: at low priority, and ending with it.
    #[arg(long, hide = true)]
    beside: bool,
}

impl Judge {
    pub fn run(self) -> Result<()> {
        if self.beside {
            ppo_train::hooks::yield_to_training();
        }
        if let Some([first, second]) = self.agree.as_deref() {
            return agree([first, second], self.json);
        }
        if let Some([first, second]) = self.differ.as_deref() {
            return differ([first, second], self.json);
        }
        if self.traces.are_wanted() {
            return self.traces.run(&self.sets, self.out.as_deref(), self.json);
        }
        let dir = self.run.as_deref().unwrap_or(Path::new(""));
        let run = RunFolder::new(dir);
        if !run.recipe().is_file() {
            return Err(bad!("{} is not the folder of a run: there is no recipe.toml in it", dir.display()));
        }
        let sets = [self_contained(&run.start()), self.sets.clone()].concat();
        let plan = plan::load(&run.recipe(), &sets, Some(dir))?;
        let out = self.out.as_deref().map_or_else(|| run.clone(), RunFolder::new);
        let stop = signals::watch()?.0;
        let (mut all, mut failed, mut new) = (vec![], vec![], vec![]);
        let jobs = self.jobs(&plan, &run)?;
        for job in &jobs {
            let damage = job.damage(&out).filter(|_| !self.again);
            if let Some(damage) = &damage {
                terminal::warn(&format!("note: {damage}; it is made anew"));
            }
            let known = job.has_result(&out) && damage.is_none() && !self.again;
            let made = if known { self.known(&plan, &out, job) } else { self.work(&plan, &run, &out, (job, &stop)) };
            match made {
                Ok(outcome) => {
                    if !self.json {
                        show(&outcome)?;
                    }
                    if !known {
                        new.push(outcome.clone());
                    }
                    all.push(outcome);
                }
                Err(error) if jobs.len() == 1 || error.is::<Stopped>() => return Err(error),
                Err(error) => {
                    terminal::warn(&format!("warning: hook {job} failed: {error:#}"));
                    failed.push((job, error));
                }
            }
        }
        if self.out.is_none() && !self.beside {
            record(&plan, &run, &new)?;
        }
        if self.json {
            print_json(&serde_json::to_value(all)?)?;
        }
        failures(&failed, jobs.len())
    }

    /// What is judged already, if it is what would be judged now.
    fn known(&self, plan: &Plan, out: &RunFolder, job: &Job) -> Result<Outcome> {
        let outcome = Outcome::read(out, job)?;
        let differs = identity(plan, job).map(|now| outcome.differs(&now));
        match differs {
            Ok(parts) if !parts.is_empty() && !self.sets.is_empty() => Err(bad!(
                "{job} is judged already, but not with the same {}: --again judges it anew, and --out DIR keeps both",
                parts.join(" and ")
            )),
            Ok(parts) if !parts.is_empty() => {
                let parts = parts.join(" and ");
                terminal::warn(&format!("note: {job} was not judged with the same {parts}; --again judges it anew"));
                Ok(outcome)
            }
            Err(error) if !self.sets.is_empty() => Err(error),
            _ => Ok(outcome),
        }
    }

    fn work(
        &self,
        plan: &Plan,
        run: &RunFolder,
        out: &RunFolder,
        (job, stop): (&Job, &Arc<AtomicBool>),
    ) -> Result<Outcome> {
        // Beside training a checkpoint has just been written; afterwards it may be old.
        if let (false, Some(checkpoint)) = (self.beside, run.complete(job.step)) {
            whole_model_of(checkpoint.path(), &["recipe.toml"])?;
        }
        work(plan, run, out, job, stop)
    }

    fn jobs(&self, plan: &Plan, run: &RunFolder) -> Result<Vec<Job>> {
        let known = names(&plan.recipe.hooks);
        if known.is_empty() {
            return Err(bad!(
                "the run's recipe has no hooks to judge with; give it some, such as --set hooks.persona.traces=64"
            ));
        }
        for name in &self.hooks {
            identity(plan, &Job { step: 0, hook: name.clone() })?;
        }
        let wanted = |job: &Job| self.hooks.is_empty() || self.hooks.contains(&job.hook);
        let steps = saved(run);
        if steps.is_empty() {
            return Err(bad!("{} has no checkpoint", run.path().display()));
        }
        let last = plan.recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
        let of = |step: usize| known.iter().map(|hook| Job { step, hook: hook.clone() }).collect::<Vec<_>>();
        let jobs: Vec<Job> = match &self.steps {
            Some(steps) => steps.iter().flat_map(|step| of(*step)).filter(wanted).collect(),
            None => steps.iter().flat_map(|step| due(&plan.recipe.hooks, *step, last)).filter(wanted).collect(),
        };
        if jobs.is_empty() {
            return Err(bad!("nothing is due at the steps that have a checkpoint: name some with --steps"));
        }
        Ok(jobs)
    }
}

/// Adds new results to the logs of a run, unless a process is writing them: then they are in the run folder alone, as
/// they are in either case.
fn record(plan: &Plan, run: &RunFolder, new: &[Outcome]) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let _lock = match Lock::take(run.path()) {
        Ok(lock) => lock,
        Err(error) => {
            terminal::warn(&format!("note: metrics.jsonl and TensorBoard do not get these figures: {error}"));
            return Ok(());
        }
    };
    let logging = &plan.recipe.logging;
    let logs = Logs { tensorboard: logging.tensorboard, jsonl: logging.jsonl };
    let mut metrics = Metrics::extend(run.path(), logs, terminal::warn)?;
    new.iter().for_each(|outcome| metrics.write(&outcome.record()));
    metrics.flush();
    Ok(())
}

/// An error that names what failed, if anything did; bad input if all of it was.
fn failures(failed: &[(&Job, Error)], all: usize) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = failed.iter().map(|(job, error)| format!("\n  {job}: {error:#}")).collect();
    let what = format!("{} of {} failed:{}", failed.len(), terminal::counted(all, "hook"), each.concat());
    if failed.iter().all(|(_, error)| error.is::<BadInput>()) {
        return Err(bad!("{what}"));
    }
    bail!(what)
}

fn show(outcome: &Outcome) -> Result<()> {
    print(format_args!("hook {} at step {}: {}", outcome.hook, outcome.step, outcome.summary))?;
    let row = |f: &Figure| {
        let interval = f.interval.map_or(String::new(), interval);
        vec![f.name.clone(), figure(f.value), interval]
    };
    let rows: Vec<_> = outcome.figures.iter().map(row).collect();
    print(table(&["figure", "value", "95 % interval"], &rows))?;
    outcome.notes.iter().try_for_each(|note| print(format_args!("note: {note}")))
}
