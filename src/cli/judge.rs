//! `ppo-train judge`

use super::common::{print, print_json, whole_model_of};
use anyhow::Result;
use clap::Args;
use ppo_train::bad;
use ppo_train::checkpoint::RunFolder;
use ppo_train::hooks::persona::{self, Judged};
use ppo_train::hooks::schedule::{Job, names};
use ppo_train::hooks::{Outcome, saved, work};
use ppo_train::judge::{Agreement, Difference, agreement, differences};
use ppo_train::plan::{self, Plan};
use ppo_train::run::signals;
use ppo_train::stats::{Figure, RESAMPLES};
use ppo_train::terminal::{figure, table};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Let a run's hooks judge its checkpoints, as they do beside training. What is judged already is shown as it is.
///
/// Example: ppo-train judge checkpoints/quickstart --steps 0,44 --set hooks.persona.traces=64
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Judge {
    /// The run folder.
    #[arg(required_unless_present_any = ["agree", "differ"])]
    run: Option<PathBuf>,
    /// The steps to judge (default: all that have a checkpoint); 0 is the model that PPO starts from.
    #[arg(long, value_delimiter = ',')]
    steps: Option<Vec<usize>>,
    /// The hooks (default: all that the recipe has).
    #[arg(long = "hook", value_name = "NAME")]
    hooks: Vec<String>,
    /// Judge again what is judged already.
    #[arg(long)]
    again: bool,
    /// Write the results into the folder `hooks` of DIR rather than of the run.
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
    /// for --agree, such as those of two steps or two arms.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["run", "agree"])]
    differ: Option<Vec<PathBuf>>,
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
        let dir = self.run.as_deref().unwrap_or(Path::new(""));
        let run = RunFolder::new(dir);
        if !run.recipe().is_file() {
            return Err(bad!("{} is not the folder of a run: there is no recipe.toml in it", dir.display()));
        }
        let plan = plan::load(&run.recipe(), &self.sets, Some(dir))?;
        let out = self.out.as_deref().map_or_else(|| run.clone(), RunFolder::new);
        let stop = signals::watch()?.0;
        let mut all = vec![];
        for job in self.jobs(&plan, &run)? {
            let known = if job.is_done(&out) && !self.again { Some(Outcome::read(&out, &job)?) } else { None };
            let outcome = match known {
                Some(outcome) => outcome,
                None => self.work(&plan, &run, &out, (&job, &stop))?,
            };
            if !self.json {
                show(&outcome)?;
            }
            all.push(outcome);
        }
        if self.json { print_json(&serde_json::to_value(all)?) } else { Ok(()) }
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
        let steps = self.steps.clone().unwrap_or_else(|| saved(run));
        if steps.is_empty() {
            return Err(bad!("{} has no checkpoint", run.path().display()));
        }
        let hooks = if self.hooks.is_empty() { &known } else { &self.hooks };
        let of = |step: &usize| hooks.iter().map(|hook| Job { step: *step, hook: hook.clone() }).collect::<Vec<_>>();
        Ok(steps.iter().flat_map(of).collect())
    }
}

fn show(outcome: &Outcome) -> Result<()> {
    print(format_args!("hook {} at step {}: {}", outcome.hook, outcome.step, outcome.summary))?;
    let row = |f: &Figure| {
        let interval = f.interval.map_or(String::new(), |[low, high]| format!("{} to {}", figure(low), figure(high)));
        vec![f.name.clone(), figure(f.value), interval]
    };
    let rows: Vec<_> = outcome.figures.iter().map(row).collect();
    print(table(&["figure", "value", "95 % interval"], &rows))?;
    outcome.notes.iter().try_for_each(|note| print(format_args!("note: {note}")))
}

/// Prints the agreement of two judges.
fn agree(files: [&PathBuf; 2], json: bool) -> Result<()> {
    let [first, second] = [persona::read(files[0])?, persona::read(files[1])?];
    let same = first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| a.text == b.text);
    if !same {
        let [a, b] = files.map(|file| file.display());
        return Err(bad!("{a} and {b} are not about the same traces in the same order"));
    }
    let said = |all: &[Judged]| all.iter().map(|one| one.judgement.clone()).collect::<Vec<_>>();
    let (first, second) = (said(&first), said(&second));
    let [first, second] = [&first, &second].map(|all| all.iter().map(Option::as_ref).collect::<Vec<_>>());
    let found = agreement(&first, &second);
    if json {
        return print_json(&serde_json::to_value(found)?);
    }
    let row = |agreement: &Agreement| {
        let (value, interval) = match &agreement.icc {
            Some(icc) => {
                let interval = icc.low.zip(icc.high).map(|(low, high)| format!("{} to {}", figure(low), figure(high)));
                (figure(icc.value), interval.unwrap_or_default())
            }
            None => (String::new(), agreement.why.clone().unwrap_or_default()),
        };
        vec![agreement.name.clone(), value, interval, agreement.n.to_string()]
    };
    print(table(&["category", "ICC(3,1)", "95 % interval", "traces"], &found.iter().map(row).collect::<Vec<_>>()))
}

/// Prints the differences of two sets of judged traces.
fn differ(files: [&PathBuf; 2], json: bool) -> Result<()> {
    let [first, second] = [persona::read(files[0])?, persona::read(files[1])?];
    // Answers to the same problems are pairs.
    let paired = first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| a.problem == b.problem);
    let [a, b] = [&first, &second].map(|all| all.iter().map(Judged::view).collect::<Vec<_>>());
    let found = differences(&a, &b, paired, RESAMPLES);
    if json {
        return print_json(&serde_json::to_value(found)?);
    }
    let row = |one: &Difference| {
        let matched = one.matched.as_ref().map_or([String::new(), String::new()], |matched| {
            let ends = matched.low.zip(matched.high);
            let interval = ends.map(|(low, high)| format!("{} to {}", figure(low), figure(high)));
            [figure(matched.difference), interval.unwrap_or_default()]
        });
        [vec![one.name.clone(), figure(one.first), figure(one.second)], matched.to_vec()].concat()
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print(table(&["figure", "first", "second", "difference at matched length", "95 % interval"], &rows))
}
