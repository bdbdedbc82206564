//! One recipe with several seeds, a run after the other.

use super::{launch_one, same_experiment, signals};
use crate::checkpoint::{Checkpoint, Lock, RunFolder, is_complete};
use crate::dist::Comm;
use crate::hooks::schedule::pending;
use crate::plan::Plan;
use crate::recipe::identity::differences;
use crate::recipe::{self, Recipe};
use crate::train::hook::State;
use crate::{Stopped, bad, json, terminal};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Seeds in the order in which they run: `1..5`, both included, or `1,4,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: u64 = 1000;
        let seed = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("`{text}` is not a seed"));
        let seeds = match text.split_once("..") {
            None => text.split(',').map(seed).collect::<Result<Vec<_>, _>>()?,
            Some((first, last)) => {
                let (first, last) = (seed(first)?, seed(last.trim_start_matches('='))?);
                if last < first || last - first >= MOST {
                    return Err(format!("expected a range such as 1..5, of at most {MOST} seeds"));
                }
                (first..=last).collect()
            }
        };
        match seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed)) {
            Some((_, twice)) => Err(format!("the seed {twice} is there twice")),
            None => Ok(Self(seeds)),
        }
    }
}

/// Runs `plan` with each of the seeds, in the run folders `OUT-SEED`. Finished runs are left as they are, and a run
/// that was interrupted goes on. Where the seed does not reach the warm start, the first run's is shared.
///
/// # Errors
/// Those of the first run that fails, with its seed.
pub fn launch_seeds(plan: &Plan, seeds: &Seeds, comm: &dyn Comm) -> Result<()> {
    let stop = signals::watch()?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for seed in &seeds.0 {
        let plan = with_seed(plan, *seed)?;
        let folder = RunFolder::new(&plan.out);
        let out = plan.out.display();
        if folder.recipe().exists() {
            same_experiment(&plan, &folder.recipe())?;
        }
        // The first rank looks, since it is the one that writes.
        if comm.any(comm.is_first() && is_finished(&plan, &folder)?)? {
            terminal::print(&format!("seed {seed}: finished in {out}"));
        } else {
            let shared =
                folders.iter().find(|other| shares_start(&plan.recipe, other)).map(|other| RunFolder::new(other));
            let begins = match shared.as_ref().filter(|_| !is_complete(&folder.start())) {
                Some(other) => format!(", which begins with {}", other.start().display()),
                None => String::new(),
            };
            terminal::print(&format!("seed {seed}: {out}{begins}"));
            launch_one(&plan, true, (&stop, comm), shared.as_ref()).map_err(|error| match error.is::<Stopped>() {
                true => Stopped("the same command goes on").into(),
                false => error.context(format!("the run of seed {seed}")),
            })?;
        }
        folders.push(plan.out);
    }
    Ok(())
}

/// Whether runs of `plan` with these seeds could begin, or go on where they were interrupted; changes nothing.
///
/// # Errors
/// Bad input: a folder `OUT-SEED` with a run of another recipe, or one that is under way.
pub fn check_seeds(plan: &Plan, seeds: &Seeds) -> Result<()> {
    for seed in &seeds.0 {
        let plan = with_seed(plan, *seed)?;
        let folder = RunFolder::new(&plan.out);
        if folder.recipe().exists() {
            same_experiment(&plan, &folder.recipe())?;
        }
        if let Some(process) = Lock::holder(&plan.out) {
            return Err(bad!("the run in {} is under way ({process}): stop it first", plan.out.display()));
        }
    }
    Ok(())
}

fn with_seed(plan: &Plan, seed: u64) -> Result<Plan> {
    let mut plan = plan.clone();
    plan.recipe.seed = seed;
    plan.text = toml::to_string(&plan.recipe).context("the recipe cannot be written as TOML")?;
    let name = plan.out.file_name().unwrap_or_default().to_string_lossy();
    plan.out = plan.out.with_file_name(format!("{name}-{seed}"));
    Ok(plan)
}

/// Whether the run in a folder has come to its end.
fn is_finished(plan: &Plan, folder: &RunFolder) -> Result<bool> {
    match &plan.recipe.ppo {
        None => Ok(is_complete(&folder.start())),
        Some(ppo) => {
            let is_last = |checkpoint: &Checkpoint| {
                let of_step = |state: State| state.check(checkpoint.step).is_ok();
                checkpoint.step >= ppo.steps && json::read(&checkpoint.state()).is_ok_and(of_step)
            };
            let trained = folder.latest()?.as_ref().is_some_and(is_last);
            Ok(trained && pending(&plan.recipe, folder)?.is_empty())
        }
    }
}

/// Whether the run in `other` is one of this recipe with another seed, or with changes that a resumed run may have, and
/// has a start that the seed does not reach.
fn shares_start(recipe: &Recipe, other: &Path) -> bool {
    let reached = recipe.model.random_weights || recipe.sft.as_ref().is_some_and(|sft| sft.seed.is_none());
    let folder = RunFolder::new(other);
    let same = |before: &Recipe| differences(before, recipe).iter().all(|d| d.key == "seed" || d.is_allowed());
    !reached && is_complete(&folder.start()) && recipe::stored(&folder.recipe()).is_ok_and(|before| same(&before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_a_list() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(seeds("1..5").unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(seeds("1..=2").unwrap(), [1, 2]);
        assert_eq!(seeds("7, 1,3").unwrap(), [7, 1, 3]);
        assert_eq!(seeds("4").unwrap(), [4]);
        for (text, message) in [
            ("", "`` is not a seed"),
            ("1..", "`` is not a seed"),
            ("5..1", "expected a range"),
            ("1..100000", "at most 1000 seeds"),
            ("1,2,1", "the seed 1 is there twice"),
            ("-1", "`-1` is not a seed"),
        ] {
            let error = seeds(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
