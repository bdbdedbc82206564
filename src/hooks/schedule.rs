//! Which hooks run beside training, at which steps, and what has come of them. All of it is read from the run folder,
//! so that a resumed run, `judge` and `status` see the same:
//!
//! - `RUN/hooks/step_000040/NAME/`: what a hook made of that checkpoint, complete or absent;
//! - `RUN/hooks/step_000040/NAME.failed.json`: that it failed, how often, and why;
//! - `RUN/hooks/step_000040/NAME.log`: what it printed.

use crate::checkpoint::{RunFolder, Verdict, is_complete, verify, write_file};
use crate::json;
use crate::plan::FAILED;
use crate::recipe::{Hooks, Recipe};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// The judge of personas, by the name of its section.
pub const PERSONA: &str = "persona";
/// The evaluation on another task, by the name of its section.
pub const TRANSFER: &str = "transfer";
/// As `PERSONA`.
pub const DISTINCT: &str = "distinct";

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
    /// Whether the run does not try again: as often as it may, or nothing would be different.
    #[serde(default)]
    pub for_good: bool,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} at step {}", self.hook, self.step)
    }
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

    /// Whether it has a result, whatever has become of that since.
    pub fn has_result(&self, run: &RunFolder) -> bool {
        is_complete(&self.folder(run))
    }

    /// What has become of the files of its result, if they are not what was written: it is to be done anew.
    pub fn damage(&self, run: &RunFolder) -> Option<String> {
        let folder = self.folder(run);
        match self.has_result(run).then(|| verify(&folder, &[])) {
            Some(Ok(Verdict::Damaged(what))) => Some(format!("{} is damaged: {what}", folder.display())),
            // What may not be read is said by who reads it.
            _ => None,
        }
    }

    /// Whether it has a result that is whole; all of it is read for that.
    pub fn is_done(&self, run: &RunFolder) -> bool {
        self.has_result(run) && self.damage(run).is_none()
    }

    /// The failures so far, unless it has succeeded since.
    pub fn failed(&self, run: &RunFolder) -> Option<Failed> {
        if self.has_result(run) { None } else { json::read(&self.failed_file(run)).ok() }
    }

    /// Counts one more failure. The last one is the `most`th, or the first that is `certain` to come again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn fail(&self, run: &RunFolder, error: &str, most: usize, certain: bool) -> Result<Failed> {
        let attempts = self.failed(run).map_or(0, |failed| failed.attempts) + 1;
        let failed = Failed { attempts, error: error.to_string(), for_good: certain || attempts >= most };
        write_file(&self.failed_file(run), serde_json::to_string_pretty(&failed)?)?;
        Ok(failed)
    }
}

/// The hooks of a recipe by name, each with its schedule: `every`, and further steps.
fn schedules(hooks: &Hooks) -> impl Iterator<Item = (&str, usize, &[usize])> {
    let persona = hooks.persona.iter().map(|hook| (PERSONA, hook.every, hook.steps.as_slice()));
    let transfer = hooks.transfer.iter().map(|hook| (TRANSFER, hook.every, hook.steps.as_slice()));
    let external = hooks.external.iter().map(|(name, hook)| (name.as_str(), hook.every, hook.steps.as_slice()));
    let distinct = hooks.distinct.iter().map(|hook| (DISTINCT, hook.every, hook.steps.as_slice()));
    persona.chain(transfer).chain(distinct).chain(external)
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

/// Whether the checkpoint of a step is kept for hooks: one is still to judge it, or has failed for good, and fewer than
/// `FAILED` newer checkpoints are kept for that reason alone.
pub fn is_wanted(recipe: &Recipe, run: &RunFolder, step: usize) -> bool {
    let steps = recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
    let left = |step| {
        let mut left = due(&recipe.hooks, step, steps);
        // Training waits for this at each save: results are not read, as they are where jobs are `pending`.
        left.retain(|job| !job.has_result(run));
        left
    };
    let for_good = |jobs: &[Job]| jobs.iter().all(|job| job.failed(run).is_some_and(|failed| failed.for_good));
    let own = left(step);
    if own.is_empty() || !for_good(&own) {
        return !own.is_empty();
    }
    let saved = run.checkpoints().unwrap_or_default();
    let newer = saved
        .into_iter()
        .map(|saved| left(saved.step))
        .filter(|jobs| jobs.first().is_some_and(|job| job.step > step) && for_good(jobs));
    newer.count() < FAILED
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
        // What is not called as ours are is a user's.
        let later = run.step_of(&path).is_some_and(|own| own > step && path == run.hooks(own));
        if later && path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_folder;
    use std::path::Path;

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
        assert!(!job.fail(&run, "no reply", 3, false).unwrap().for_good);
        let second = job.fail(&run, "no memory", 3, false).unwrap();
        assert_eq!(second, Failed { attempts: 2, error: "no memory".into(), for_good: false });
        assert!(job.fail(&run, "no memory", 3, false).unwrap().for_good);
        assert!(Job { step: 40, hook: "other".into() }.fail(&run, "no such model", 3, true).unwrap().for_good);
        write_folder(&job.folder(&run), |_| Ok(())).unwrap();
        assert!(job.is_done(&run) && job.failed(&run).is_none());
        // One that is no longer what was written is no result.
        write_folder(&job.folder(&run), |dir| Ok(fs::write(dir.join("result.json"), "{}")?)).unwrap();
        assert!(job.is_done(&run));
        fs::write(job.folder(&run).join("result.json"), "[]").unwrap();
        assert!(!job.is_done(&run) && job.has_result(&run) && job.failed(&run).is_none());
        let damage = job.damage(&run).unwrap();
        assert!(damage.ends_with("score is damaged: result.json has other bytes than were written"), "{damage}");
        fs::create_dir_all(run.hooks(50)).unwrap();
        let own = ["tables", "step_5", "step_last", "step_000060.txt"].map(|name| run.hooks(0).with_file_name(name));
        own.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        forget_after(&run, 40).unwrap();
        assert!(run.hooks(40).exists() && !run.hooks(50).exists());
        assert!(own.iter().all(|folder| folder.exists()));
    }

    #[test]
    fn checkpoints_of_hooks_that_failed_for_good_are_few() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::new(dir.path());
        let mut recipe = crate::recipe::stored(Path::new("recipes/smoke.toml")).unwrap();
        recipe.ppo.as_mut().unwrap().steps = 100;
        recipe.hooks = hooks("[external.score]\ncommand = [\"true\"]\nevery = 1");
        for step in 1..=6 {
            write_folder(run.step(step).path(), |_| Ok(())).unwrap();
            fs::create_dir_all(run.hooks(step)).unwrap();
            Job { step, hook: "score".into() }.fail(&run, "no", 1, false).unwrap();
        }
        let kept: Vec<usize> = (1..=6).filter(|step| is_wanted(&recipe, &run, *step)).collect();
        assert_eq!(kept, [4, 5, 6]);
        // One that waits is always kept, and one that is done is not.
        fs::remove_file(run.hooks(1).join("score.failed.json")).unwrap();
        write_folder(&run.hooks(6).join("score"), |_| Ok(())).unwrap();
        let kept: Vec<usize> = (1..=6).filter(|step| is_wanted(&recipe, &run, *step)).collect();
        assert_eq!(kept, [1, 3, 4, 5]);
        // A result counts here without being read, and is done anew where it is damaged.
        write_folder(&run.hooks(6).join("score"), |dir| Ok(fs::write(dir.join("result.json"), "{}")?)).unwrap();
        fs::write(run.hooks(6).join("score/result.json"), "[]").unwrap();
        assert!(!is_wanted(&recipe, &run, 6));
        assert!(pending(&recipe, &run).unwrap().contains(&Job { step: 6, hook: "score".into() }));
    }
}
