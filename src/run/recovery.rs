//! What a run goes on from: the newest checkpoint whose files are the ones that were written. Damaged folders before it
//! are renamed, so that no later start takes them for whole ones, and left for the user to look at.
//!
//! Decided: everything is read and compared before anything of the run is changed. A damaged start is made anew only if
//! nothing was built upon it: the model that the KL is measured against shall be the one of the steps before.

use crate::checkpoint::{Checkpoint, RunFolder, Verdict, is_complete, verify};
use crate::plan::Plan;
use crate::recipe::Sft;
use crate::train::hook::State;
use crate::train::sft::Done;
use crate::{bad, json, terminal};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// What is wrong with a folder without its mark.
const UNMARKED: &str = "COMPLETE: it is missing";

/// What there is to go on from.
#[derive(Default)]
pub struct Recovery {
    /// The newest whole checkpoint, with its state.
    pub checkpoint: Option<(Checkpoint, State)>,
    /// Whether the run's `start` is there, and whole.
    pub start: bool,
    /// Whether that holds the beginning of the next step's update too.
    pub interrupted: bool,
    /// What an interrupted warm start has kept.
    pub warm_start: Option<Done>,
    /// Whether files are compared with their checksums.
    verified: bool,
    /// Folders that are damaged, newest first, and how.
    damaged: Vec<(PathBuf, String)>,
    /// Folders of which a removal was interrupted, or that nothing needs any more.
    leftover: Vec<PathBuf>,
}

impl Recovery {
    /// Looks at what is in a run's folder, and changes nothing. Without `verified`, folders that are complete are taken
    /// for whole: another rank has verified them.
    ///
    /// # Errors
    /// Bad input: no checkpoint is whole and there is no start to begin from, or the start of a whole one is damaged. A
    /// file that may not be read.
    pub fn find(plan: &Plan, folder: &RunFolder, verified: bool) -> Result<Self> {
        let mut found = Self { verified, ..Self::default() };
        let mut steps = folder.steps()?;
        while let Some(checkpoint) = steps.pop() {
            match found.state(&checkpoint)? {
                Ok(state) => {
                    found.checkpoint = Some((checkpoint, state));
                    break;
                }
                Err(what) => found.damaged.push((checkpoint.path().to_path_buf(), what)),
            }
        }
        found.unfinished_step(folder)?;
        // Only checkpoints that are older than a complete one and not to be kept are ever removed, and earlier versions
        // began with the mark.
        let best = found.checkpoint.as_ref().and_then(|(_, state)| state.best).map(|best| best.step);
        for checkpoint in steps.into_iter().rev().filter(|checkpoint| !is_complete(checkpoint.path())) {
            let path = checkpoint.path().to_path_buf();
            if plan.recipe.checkpoints.is_permanent(checkpoint.step) || best == Some(checkpoint.step) {
                found.damaged.push((path, UNMARKED.into()));
            } else {
                found.leftover.push(path);
            }
        }

        let begun = found.checkpoint.is_some() || !found.damaged.is_empty();
        found.start(plan, &folder.start(), begun)?;
        let kept = folder.unfinished_start();
        if found.start {
            found.leftover.extend(kept.path().exists().then(|| kept.path().to_path_buf()));
        } else if kept.path().exists() {
            match found.steps_kept(plan, &kept)? {
                Ok(done) => found.warm_start = Some(done),
                Err(what) => found.damaged.push((kept.path().to_path_buf(), what)),
            }
        }
        Ok(found)
    }

    /// What there is, in numbers.
    pub fn summary(&self) -> [i64; 4] {
        let step = self.checkpoint.as_ref().map_or(-1, |(checkpoint, _)| checkpoint.step as i64);
        let warm_start = self.warm_start.as_ref().map_or(-1, |done| done.steps as i64);
        [step, self.start.into(), self.interrupted.into(), warm_start]
    }

    /// Renames what is damaged, removes what is left over, and says so.
    ///
    /// # Errors
    /// The folder cannot be changed.
    pub fn apply(&self, folder: &RunFolder) -> Result<()> {
        for (path, what) in &self.damaged {
            let aside = folder.set_aside(path)?;
            let (shown, aside) = (path.display(), aside.display());
            terminal::warn(&format!("warning: {shown} is damaged, and is called {aside} now: {what}"));
        }
        if !self.damaged.is_empty() {
            let from = match (&self.checkpoint, self.start, &self.warm_start) {
                (Some((checkpoint, _)), ..) => format!("goes on from {}", checkpoint.path().display()),
                (None, true, _) => format!("does PPO anew, from {}", folder.start().display()),
                (None, false, Some(done)) => format!("goes on after {} steps of its warm start", done.steps),
                (None, false, None) => "begins anew".into(),
            };
            terminal::warn(&format!("the run {from}"));
        }
        for path in &self.leftover {
            folder.discard(path)?;
            terminal::warn(&format!("{} is removed: nothing needs it any more", path.display()));
        }
        Ok(())
    }

    /// The state in a checkpoint, or what is wrong with it.
    fn state(&self, checkpoint: &Checkpoint) -> Result<Result<State, String>> {
        let path = checkpoint.path();
        if let Err(what) = self.whole(path)? {
            return Ok(Err(what));
        }
        // One without checksums may lack files.
        for file in [checkpoint.recipe(), checkpoint.optimizer(), checkpoint.model().join("config.json")] {
            if !file.is_file() {
                let name = file.strip_prefix(path).unwrap_or(&file);
                return Ok(Err(format!("{}: it is missing", name.display())));
            }
        }
        let state = json::read::<State>(&checkpoint.state()).and_then(|state| {
            let name = || format!("in {}", checkpoint.state().display());
            state.check(checkpoint.step).with_context(name).map(|()| state)
        });
        Ok(state.map_err(|error| format!("{error:#}")))
    }

    /// Looks at what a run kept that was stopped in an update: it is gone on from if no checkpoint is newer.
    fn unfinished_step(&mut self, folder: &RunFolder) -> Result<()> {
        let path = folder.unfinished_step(0).path().to_path_buf();
        if !path.exists() {
            return Ok(());
        }
        let step = json::read::<State>(&folder.unfinished_step(0).state()).map_or(0, |state| state.step);
        let unfinished = folder.unfinished_step(step);
        let newest = self.checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.step);
        match self.state(&unfinished)? {
            Ok(_) if step < newest => self.leftover.push(path),
            Ok(state) => {
                self.checkpoint = Some((unfinished, state));
                self.interrupted = true;
            }
            Err(what) => self.damaged.push((path, what)),
        }
        Ok(())
    }

    /// Looks at the run's start; `begun`: there are checkpoints of PPO.
    fn start(&mut self, plan: &Plan, start: &Path, begun: bool) -> Result<()> {
        let what = match start.exists() {
            true => self.whole(start)?.err(),
            false if begun => Some("it is missing".to_string()),
            false => return Ok(()),
        };
        let Some(what) = what else {
            self.start = true;
            return Ok(());
        };
        if !begun {
            self.damaged.push((start.to_path_buf(), what));
            return Ok(());
        }
        let (start, out) = (start.display(), plan.out.display());
        let why = match &self.checkpoint {
            Some((checkpoint, _)) => format!(
                "{} is whole, but {start}, the model that the run started from, is damaged: {what}",
                checkpoint.path().display()
            ),
            None => {
                let all = self.damaged.iter().map(|(path, what)| format!("\n  {}: {what}", path.display()));
                format!("{out} has no whole checkpoint, and no start either: {what}{}", all.collect::<String>())
            }
        };
        Err(bad!("{why}\nput {start} back from a copy, or start a separate run with --out DIR"))
    }

    /// What an interrupted warm start has kept, or what is wrong with it.
    fn steps_kept(&self, plan: &Plan, kept: &Checkpoint) -> Result<Result<Done, String>> {
        if let Err(what) = self.whole(kept.path())? {
            return Ok(Err(what));
        }
        let read = || -> Result<Done> {
            let done: Done = json::read(&kept.state())?;
            let all = plan.recipe.sft.as_ref().map_or(0, Sft::steps);
            ensure!(done.steps <= all, "state.json is of step {} of a warm start of {all}", done.steps);
            Ok(done)
        };
        Ok(read().map_err(|error| format!("{error:#}")))
    }

    /// Whether a folder is complete and has the files that were written, or what is wrong with it.
    fn whole(&self, path: &Path) -> Result<Result<(), String>> {
        if !is_complete(path) {
            return Ok(Err(UNMARKED.into()));
        }
        if !self.verified {
            return Ok(Ok(()));
        }
        Ok(match verify(path, &[])? {
            Verdict::Whole => Ok(()),
            Verdict::Damaged(what) => Err(what),
            Verdict::Unchecked => {
                let shown = path.display();
                terminal::warn(&format!("note: {shown} was written without checksums: its files cannot be checked"));
                Ok(())
            }
        })
    }
}
