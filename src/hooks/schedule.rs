//! Which hooks run beside training, at which steps, and what has come of them. All of it is read from the run folder,
//! so that a resumed run, `judge` and `status` see the same:
//!
//! - `RUN/hooks/step_000040/NAME/`: what a hook made of that checkpoint, complete or absent;
//! - `RUN/hooks/step_000040/NAME.failed.json`: that it failed, how often, and why;
//! - `RUN/hooks/step_000040/NAME.log`: what it printed.

use crate::checkpoint::{RunFolder, is_complete, write_file};
use crate::json;
use crate::recipe::{Hooks, Recipe};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// The judge of personas, by the name of its section.
pub const PERSONA: &str = "persona";
/// The evaluation on another task, by the name of its section.
pub const TRANSFER: &str = "transfer";

/// One hook at one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub step: usize,
    pub hook: String,
}

/// How often a job failed, and why the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failed {
    pub attempts: usize,
    pub error: String,
}

impl Job {
    /// The folder of its result.
    pub fn folder(&self, run: &RunFolder) -> PathBuf {
        run.hooks(self.step).join(&self.hook)
    }

    pub fn log(&self, run: &RunFolder) -> PathBuf {
        run.hooks(self.step).join(format!("{}.log", self.hook))
    }

    fn failed_file(&self, run: &RunFolder) -> PathBuf {
        run.hooks(self.step).join(format!("{}.failed.json", self.hook))
    }

    pub fn is_done(&self, run: &RunFolder) -> bool {
        is_complete(&self.folder(run))
    }

    /// The failures so far, unless it has succeeded since.
    pub fn failed(&self, run: &RunFolder) -> Option<Failed> {
        if self.is_done(run) { None } else { json::read(&self.failed_file(run)).ok() }
    }

    /// Counts one more failure.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn fail(&self, run: &RunFolder, error: &str) -> Result<Failed> {
        let attempts = self.failed(run).map_or(0, |failed| failed.attempts) + 1;
        let failed = Failed { attempts, error: error.to_string() };
        write_file(&self.failed_file(run), serde_json::to_string_pretty(&failed)?)?;
        Ok(failed)
    }
}

/// The hooks of a recipe by name, each with its schedule: `every`, and further steps.
fn schedules(hooks: &Hooks) -> impl Iterator<Item = (&str, usize, &[usize])> {
    let persona = hooks.persona.iter().map(|hook| (PERSONA, hook.every, hook.steps.as_slice()));
    let transfer = hooks.transfer.iter().map(|hook| (TRANSFER, hook.every, hook.steps.as_slice()));
    let external = hooks.external.iter().map(|(name, hook)| (name.as_str(), hook.every, hook.steps.as_slice()));
    persona.chain(transfer).chain(external)
}

/// The names of a recipe's hooks.
pub fn names(hooks: &Hooks) -> Vec<String> {
    schedules(hooks).map(|(name, ..)| name.to_string()).collect()
}

/// The hooks that are due after a step of a run of `steps`.
pub fn due(hooks: &Hooks, step: usize, steps: usize) -> Vec<Job> {
    let due = schedules(hooks)
        .filter(|(_, every, more)| step == steps || step.is_multiple_of(*every) || more.contains(&step));
    due.map(|(name, ..)| Job { step, hook: name.to_string() }).collect()
}

/// The jobs of a run that are not done and have a checkpoint to judge, oldest first.
///
/// # Errors
/// The run folder cannot be read.
pub fn pending(recipe: &Recipe, run: &RunFolder) -> Result<Vec<Job>> {
    let Some(ppo) = &recipe.ppo else { return Ok(vec![]) };
    let start = run.complete(0).map(|_| 0);
    let saved = run.checkpoints()?.into_iter().map(|checkpoint| checkpoint.step);
    let jobs = start.into_iter().chain(saved).flat_map(|step| due(&recipe.hooks, step, ppo.steps));
    Ok(jobs.filter(|job| !job.is_done(run)).collect())
}

/// Whether the checkpoint of a step is still to be judged.
pub fn is_wanted(recipe: &Recipe, run: &RunFolder, step: usize) -> bool {
    let steps = recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
    due(&recipe.hooks, step, steps).iter().any(|job| !job.is_done(run))
}

/// Removes what hooks made of steps that a resumed run will do again.
///
/// # Errors
/// A folder cannot be removed.
pub fn forget_after(run: &RunFolder, step: usize) -> Result<()> {
    let folder = run.hooks(0);
    let Some(all) = folder.parent().filter(|all| all.is_dir()) else { return Ok(()) };
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if path.file_name() > run.hooks(step).file_name() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_folder;

    fn hooks(text: &str) -> Hooks {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn hooks_are_due_on_their_schedules() {
        let hooks = hooks(
            "[persona]\nevery = 20\nsteps = [5]\n[external.score]\ncommand = [\"true\"]\n[external.b]\n\
             command = [\"true\"]\nevery = 15",
        );
        let at = |step| due(&hooks, step, 50).into_iter().map(|job| job.hook).collect::<Vec<_>>();
        assert_eq!(at(0), ["persona", "b", "score"]);
        assert_eq!(at(5), ["persona"]);
        assert_eq!(at(15), ["b"]);
        assert_eq!(at(20), ["persona"]);
        assert_eq!(at(50), ["persona", "b", "score"]);
        assert!(at(7).is_empty());
    }

    #[test]
    fn failures_are_counted_until_the_job_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::new(dir.path());
        let job = Job { step: 40, hook: "score".into() };
        fs::create_dir_all(run.hooks(40)).unwrap();
        assert_eq!(job.failed(&run), None);
        job.fail(&run, "no reply").unwrap();
        assert_eq!(job.fail(&run, "no memory").unwrap(), Failed { attempts: 2, error: "no memory".into() });
        write_folder(&job.folder(&run), |_| Ok(())).unwrap();
        assert!(job.is_done(&run) && job.failed(&run).is_none());
        fs::create_dir_all(run.hooks(50)).unwrap();
        forget_after(&run, 40).unwrap();
        assert!(run.hooks(40).exists() && !run.hooks(50).exists());
    }
}
