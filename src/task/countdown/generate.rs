//! Problems like those of the public set (Countdown-Tasks-3to4): the target is drawn first, uniformly, then numbers
//! until they can reach it, which makes targets uniform and small numbers more common than large ones. Test problems
//! are drawn first, then validation, then training, and no problem twice, whatever the order of its numbers: the splits
//! are disjoint, and more training problems leave the others as they are.

use super::problem::Problem;
use super::solver;
use crate::recipe::Countdown;
use crate::rng::{ChaCha8Rng, Purpose, stream};
use crate::task::Split;
use anyhow::{Result, bail};
use rand::RngExt;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// How many numbers a generated problem may have.
pub const COUNTS: RangeInclusive<usize> = 2..=6;

/// Draws of the numbers for one target before another target is drawn.
const DRAWS_PER_TARGET: usize = 1000;
/// Targets drawn for one problem, and the solver's steps for it, before the generator gives up. A problem of the public
/// set takes about ten draws and a thousand steps.
const TARGETS_PER_PROBLEM: usize = 50;
const VISITS_PER_PROBLEM: usize = 50_000_000;

/// The problems of the three splits, in the order of `Split::ALL`, for a section [task] that the plan has checked.
///
/// # Errors
/// The recipe asks for more problems than there are distinct solvable ones.
pub fn generate(task: &Countdown) -> Result<[Vec<Problem>; 3]> {
    let [lowest, highest] = task.targets;
    let mut seen = HashSet::new();
    let mut problems = [vec![], vec![], vec![]];
    for (split, count) in [(Split::Test, task.test), (Split::Validation, task.validation), (Split::Train, task.train)] {
        let mut rng = stream(task.seed, Purpose::Problems, split as u64, 0);
        for made in 0..count {
            let size = task.numbers[rng.random_range(0..task.numbers.len())];
            let Some(problem) = draw(task, size, &mut rng, &mut seen) else {
                bail!(
                    "too few distinct problems of {size} numbers: after {} problems, {made} of {count} in the {} \
                     split, no new solvable one was found; ask for fewer, or widen task.max_number ({}) or \
                     task.targets ([{lowest}, {highest}])",
                    seen.len(),
                    split.name(),
                    task.max_number,
                );
            };
            problems[split as usize].push(problem);
        }
    }
    Ok(problems)
}

/// A solvable problem of `count` numbers that was not in `seen`, and is added to it.
fn draw(task: &Countdown, count: usize, rng: &mut ChaCha8Rng, seen: &mut HashSet<Problem>) -> Option<Problem> {
    let mut visits = VISITS_PER_PROBLEM;
    (0..TARGETS_PER_PROBLEM).find_map(|_| {
        let target = rng.random_range(task.targets[0]..=task.targets[1]);
        (0..DRAWS_PER_TARGET).find_map(|_| {
            let nums = (0..count).map(|_| rng.random_range(1..=task.max_number)).collect();
            let problem = Problem { nums, target };
            solver::solve_within(&problem, i64::MAX, &mut visits)?;
            seen.insert(problem.canonical()).then_some(problem)
        })
    })
}
