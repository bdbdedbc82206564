//! The names of everything in a run's folder.

use super::folder::is_complete;
use crate::files::PARTIAL;
use crate::metrics;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_path_buf())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run's recipe, overrides merged and defaults written out.
    pub fn recipe(&self) -> PathBuf {
        self.0.join(RECIPE)
    }

    /// The model that PPO starts from, which is also its reference; a Hugging Face folder.
    pub fn start(&self) -> PathBuf {
        self.0.join("start")
    }

    /// What an interrupted warm start has kept: model, optimizer and state, as in a checkpoint.
    pub fn unfinished_start(&self) -> Checkpoint {
        Checkpoint::at(&self.0.join("unfinished_start"))
    }

    /// One record per line; see `metrics`.
    pub fn metrics(&self) -> PathBuf {
        self.0.join(metrics::JSONL)
    }

    /// One evaluation per line, problem by problem; see `metrics::evaluations`.
    pub fn evaluations(&self) -> PathBuf {
        self.0.join(metrics::EVALUATIONS)
    }

    /// What each process that worked on the run has worked with; see `run::history`.
    pub fn history(&self) -> PathBuf {
        self.0.join("history.jsonl")
    }

    /// What the traces of the warm start are like; see `traces::Stats`.
    pub fn traces(&self) -> PathBuf {
        self.0.join("traces.json")
    }

    /// Where the run is, and how it ended; written every few seconds.
    pub fn heartbeat(&self) -> PathBuf {
        self.0.join("heartbeat.json")
    }

    /// The learning curve of a finished run.
    pub fn curve(&self) -> PathBuf {
        self.0.join("curve.svg")
    }

    /// What a step learnt from that came to numbers that are not finite.
    pub fn not_finite(&self, stage: metrics::Stage, step: usize) -> PathBuf {
        self.0.join(format!("not_finite_{}_{step:06}.json", stage.name()))
    }

    /// The checkpoint after a step, whether it exists or not.
    pub fn step(&self, step: usize) -> Checkpoint {
        Checkpoint { step, dir: self.0.join(format!("{STEP}{step:06}")) }
    }

    /// What a run keeps that was stopped in the update of a step, after some of its mini-batches: as in a checkpoint,
    /// and what the rest of the update needs. `step`: the last one that is done.
    pub fn unfinished_step(&self, step: usize) -> Checkpoint {
        Checkpoint { step, dir: self.0.join("unfinished_step") }
    }

    /// The complete checkpoints, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut all = self.steps()?;
        all.retain(|checkpoint| is_complete(&checkpoint.dir));
        Ok(all)
    }

    /// The folders with names of checkpoints, complete or not, oldest first.
    pub fn steps(&self) -> Result<Vec<Checkpoint>> {
        if !self.0.exists() {
            return Ok(vec![]);
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))? {
            let dir = entry?.path();
            // A step has one name: `step_6` is no folder of ours.
            found.extend(self.step_of(&dir).map(|step| self.step(step)).filter(|checkpoint| checkpoint.dir == dir));
        }
        found.sort_by_key(|checkpoint| checkpoint.step);
        Ok(found)
    }

    /// The step that a folder's name says, whatever else the name says.
    pub fn step_of(&self, dir: &Path) -> Option<usize> {
        dir.file_name()?.to_str()?.strip_prefix(STEP)?.parse().ok()
    }

    /// The newest complete checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        Ok(self.checkpoints()?.pop())
    }

    /// The folder of what hooks made of the checkpoint after a step.
    pub fn hooks(&self, step: usize) -> PathBuf {
        self.0.join("hooks").join(format!("{STEP}{step:06}"))
    }

    /// The complete checkpoint after a step, which is the run's start before the first step.
    pub fn complete(&self, step: usize) -> Option<Checkpoint> {
        let checkpoint = if step == 0 { Checkpoint::at(&self.start()) } else { self.step(step) };
        is_complete(&checkpoint.dir).then_some(checkpoint)
    }

    /// Removes all checkpoints except the newest `keep` and those whose step is `wanted`, once a new one is there; then
    /// nothing needs an unfinished step any more.
    pub fn prune(&self, keep: usize, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let mut all = self.checkpoints()?;
        let unfinished = self.unfinished_step(0).dir;
        if unfinished.exists() {
            self.discard(&unfinished)?;
        }
        all.truncate(all.len().saturating_sub(keep));
        for Checkpoint { step, dir } in all {
            if !wanted(step) {
                self.discard(&dir)?;
            }
        }
        Ok(())
    }

    /// Removes a folder; if that is interrupted, `sweep` does the rest.
    pub fn discard(&self, dir: &Path) -> Result<()> {
        let gone = self.0.join(format!("{PARTIAL}{}", name_of(dir)));
        let removed = fs::rename(dir, &gone).and_then(|()| fs::remove_dir_all(&gone));
        removed.with_context(|| format!("cannot remove {}", dir.display()))
    }

    /// Renames a damaged folder, so that nothing takes it for a whole one; returns its new path.
    pub fn set_aside(&self, dir: &Path) -> Result<PathBuf> {
        let name = format!("{DAMAGED}{}", name_of(dir));
        let names = std::iter::once(name.clone()).chain((2..).map(|copy| format!("{name}_{copy}")));
        let mut free = names.map(|name| dir.with_file_name(name)).filter(|path| !path.exists());
        let aside = free.next().context("no name is free")?;
        fs::rename(dir, &aside).with_context(|| format!("cannot rename {}", dir.display()))?;
        File::open(&self.0)?.sync_all()?;
        Ok(aside)
    }

    /// Removes what a killed process left unfinished.
    pub fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL)) {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// In a start: how its model came about.
pub const RECORD: &str = "warm_start.json";
const RECIPE: &str = "recipe.toml";
const STEP: &str = "step_";
const DAMAGED: &str = "damaged_";

fn name_of(dir: &Path) -> std::borrow::Cow<'_, str> {
    dir.file_name().unwrap_or_default().to_string_lossy()
}

/// What is saved of a run after a step.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub step: usize,
    dir: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in a folder that is still being filled, or that a user names.
    pub fn at(dir: &Path) -> Self {
        Self { step: 0, dir: dir.to_path_buf() }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The actor, a Hugging Face folder. A run's `start` is itself such a folder.
    pub fn model(&self) -> PathBuf {
        self.dir.join("model")
    }

    /// The folder of the language model: `model`, or of a run's start the folder itself.
    pub fn language_model(&self) -> PathBuf {
        let inner = self.model();
        if inner.is_dir() { inner } else { self.dir.clone() }
    }

    /// The critic, a Hugging Face folder, if there is one.
    pub fn critic(&self) -> PathBuf {
        self.dir.join("critic")
    }

    pub fn optimizer(&self) -> PathBuf {
        self.dir.join("optimizer.safetensors")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// The run's recipe as it was at that step.
    pub fn recipe(&self) -> PathBuf {
        self.dir.join(RECIPE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_folder;
    use super::*;

    #[test]
    fn incomplete_folders_are_not_checkpoints_and_pruning_keeps_the_best() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::new(dir.path());
        for step in [10, 20, 30, 40] {
            write_folder(run.step(step).path(), |_| Ok(())).unwrap();
        }
        fs::create_dir(run.step(50).path()).unwrap();
        fs::create_dir(dir.path().join(".partial-x")).unwrap();
        fs::write(dir.path().join(".partial-y"), "half a file").unwrap();
        run.sweep().unwrap();
        assert!(!dir.path().join(".partial-x").exists() && !dir.path().join(".partial-y").exists());
        assert_eq!(run.latest().unwrap().unwrap().step, 40);
        run.prune(2, |step| step == 10).unwrap();
        let steps = |found: Vec<Checkpoint>| found.iter().map(|c| c.step).collect::<Vec<_>>();
        assert_eq!(steps(run.checkpoints().unwrap()), [10, 30, 40]);
        assert_eq!(steps(run.steps().unwrap()), [10, 30, 40, 50]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        // Names that only look like those of checkpoints are none.
        fs::rename(run.step(40).path(), dir.path().join("step_40")).unwrap();
        assert_eq!(run.latest().unwrap().unwrap().step, 30);
        for name in ["damaged_step_000030", "damaged_step_000030_2"] {
            write_folder(run.step(30).path(), |_| Ok(())).unwrap();
            assert_eq!(run.set_aside(run.step(30).path()).unwrap(), dir.path().join(name));
        }
        assert_eq!(run.latest().unwrap().unwrap().step, 10);
    }
}
