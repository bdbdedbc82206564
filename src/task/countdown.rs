//! Countdown: make a target of some numbers with `+ - * /`, every number used exactly once.
//!
//! Generated problems follow the public set (Countdown-Tasks-3to4): the target is drawn first, evenly, then numbers until
//! they reach it, which is why targets come out flat and small numbers are commoner than large ones. Test problems are
//! drawn first, then validation, then training, and no problem twice, in whatever order its numbers stand: the splits are
//! disjoint, and the same for any number of training problems.

use super::reward::{self, Grade};
use super::{Split, Task, files, solver};
use crate::recipe::{self, Recipe, Reward};
use crate::rng::{ChaCha8Rng, Purpose, stream};
use anyhow::{Result, bail, ensure};
use rand::RngExt;
use serde_json::json;
use std::collections::HashSet;

/// Numbers in the order they are shown, and what to make of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    pub nums: Vec<i64>,
    pub target: i64,
}

impl Problem {
    /// The same for all orders of the same numbers.
    fn canonical(&self) -> Self {
        let mut nums = self.nums.clone();
        nums.sort_unstable();
        Self { nums, target: self.target }
    }
}

/// The problems of the three splits and the rules of their reward.
pub struct CountdownTask {
    /// In the order of `Split::ALL`.
    problems: [Vec<Problem>; 3],
    reward: Reward,
}

impl CountdownTask {
    /// Generates the recipe's problems, or reads its files (all three splits or none).
    ///
    /// # Errors
    /// A bad file, or more problems asked for than there are distinct solvable ones.
    pub fn new(recipe: &Recipe) -> Result<Self> {
        let task = &recipe.task;
        let problems = match (&task.train_file, &task.validation_file, &task.test_file) {
            (None, None, None) => generate(task, task.seed)?,
            (Some(train), Some(validation), Some(test)) => [
                files::read_problems(train, task.train)?,
                files::read_problems(validation, task.validation)?,
                files::read_problems(test, task.test)?,
            ],
            _ => bail!("task: train_file, validation_file and test_file are named together or not at all"),
        };
        Ok(Self { problems, reward: recipe.reward.clone() })
    }

    pub fn problem(&self, split: Split, index: usize) -> &Problem {
        &self.problems[split as usize][index]
    }
}

impl Task for CountdownTask {
    fn name(&self) -> &'static str {
        "countdown"
    }

    fn len(&self, split: Split) -> usize {
        self.problems[split as usize].len()
    }

    /// `{"numbers": [5, 7, 12], "target": 67}`.
    fn variables(&self, split: Split, index: usize) -> serde_json::Value {
        let Problem { nums, target } = self.problem(split, index);
        json!({ "numbers": nums, "target": target })
    }

    fn grade(&self, split: Split, index: usize, response: &str, prompt_opens_think: bool) -> Grade {
        let Problem { nums, target } = self.problem(split, index);
        reward::grade(response, nums, *target, &self.reward, prompt_opens_think)
    }

    /// The solver's answer. A problem from a file may have no solution, and then this response earns the format reward
    /// alone.
    fn known_right(&self, split: Split, index: usize, prompt_opens_think: bool) -> Option<String> {
        let solution = solver::solve(self.problem(split, index), i64::MAX)?;
        Some(monologue(&solution.sums(), &solution.expression(), prompt_opens_think))
    }

    /// The sum of the numbers, and one more where that is the target.
    fn known_wrong(&self, split: Split, index: usize, prompt_opens_think: bool) -> String {
        let Problem { nums, target } = self.problem(split, index);
        let mut terms: Vec<_> = nums.iter().map(i64::to_string).collect();
        if nums.iter().sum::<i64>() == *target {
            terms.push("1".into());
        }
        monologue("a guess", &terms.join("+"), prompt_opens_think)
    }

    fn countdown(&self) -> Option<&CountdownTask> {
        Some(self)
    }
}

fn monologue(thought: &str, answer: &str, prompt_opens_think: bool) -> String {
    let open = if prompt_opens_think { "" } else { "<think>" };
    format!("{open}\n{thought}\n</think>\n<answer>{answer}</answer>")
}

/// Draws of the numbers for one target before another target is drawn.
const DRAWS_A_TARGET: usize = 1000;
/// Targets drawn for one problem, and the solver's steps for it, before the generator gives up. A problem of the public
/// set takes some ten draws and a thousand steps.
const TARGETS_A_PROBLEM: usize = 50;
const VISITS_A_PROBLEM: usize = 50_000_000;

/// The problems of the three splits, in the order of `Split::ALL`.
fn generate(task: &recipe::Task, seed: u64) -> Result<[Vec<Problem>; 3]> {
    let [lowest, highest] = task.targets;
    ensure!(!task.numbers.is_empty(), "task.numbers is empty: expected counts of numbers, such as [3, 4]");
    for &count in &task.numbers {
        let most = solver::MAX_NUMBERS;
        ensure!((1..=most).contains(&count), "task.numbers = {:?}: expected counts from 1 to {most}", task.numbers);
    }
    let limit = files::MAX_NUMBER;
    ensure!(
        (1..=limit).contains(&task.max_number),
        "task.max_number = {}: expected a number from 1 to {limit}",
        task.max_number
    );
    ensure!(0 <= lowest && lowest <= highest && highest <= limit, "task.targets = [{lowest}, {highest}] is no range");

    let mut seen = HashSet::new();
    let mut problems = [vec![], vec![], vec![]];
    for (split, count) in [(Split::Test, task.test), (Split::Validation, task.validation), (Split::Train, task.train)] {
        let mut rng = stream(seed, Purpose::Problems, split as u64, 0);
        for made in 0..count {
            let size = task.numbers[rng.random_range(0..task.numbers.len())];
            let Some(problem) = draw(task, size, &mut rng, &mut seen) else {
                bail!(
                    "too few distinct problems of {size} numbers: after {} problems in all, {made} of {count} in the {} \
                     split, none is met that is new and solvable; ask for fewer, or widen task.max_number ({}) or \
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

/// A solvable problem of `count` numbers that is not in `seen`, and now is.
fn draw(task: &recipe::Task, count: usize, rng: &mut ChaCha8Rng, seen: &mut HashSet<Problem>) -> Option<Problem> {
    let mut visits = VISITS_A_PROBLEM;
    (0..TARGETS_A_PROBLEM).find_map(|_| {
        let target = rng.random_range(task.targets[0]..=task.targets[1]);
        (0..DRAWS_A_TARGET).find_map(|_| {
            let nums = (0..count).map(|_| rng.random_range(1..=task.max_number)).collect();
            let problem = Problem { nums, target };
            solver::solve_within(&problem, i64::MAX, &mut visits)?;
            seen.insert(problem.canonical()).then_some(problem)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(task: &str, reward: &str) -> Recipe {
        let text = format!("name = 't'\nmodel.path = 'm'\n[task]\nkind = 'countdown'\n{task}\n[reward]\n{reward}");
        toml::from_str(&text).unwrap()
    }

    fn task(lines: &str) -> CountdownTask {
        CountdownTask::new(&recipe(lines, "")).unwrap()
    }

    #[test]
    fn generated_problems_are_as_the_recipe_says_solvable_and_disjoint() {
        let task = task("train = 600\nvalidation = 100\ntest = 100");
        let mut seen = HashSet::new();
        let mut of_three = 0;
        for split in Split::ALL {
            for index in 0..task.len(split) {
                let problem = task.problem(split, index);
                assert!((10..=100).contains(&problem.target));
                assert!(problem.nums.iter().all(|number| (1..=99).contains(number)));
                assert!(solver::solve(problem, i64::MAX).is_some());
                assert!(seen.insert(problem.canonical()), "{problem:?} twice");
                of_three += usize::from(problem.nums.len() == 3);
            }
        }
        assert_eq!(seen.len(), 800);
        assert!((340..460).contains(&of_three), "{of_three} of 800 have three numbers");
    }

    #[test]
    fn more_training_problems_change_none_of_the_others() {
        let (few, many) =
            (task("train = 10\nvalidation = 20\ntest = 5"), task("train = 50\nvalidation = 20\ntest = 5"));
        for split in Split::ALL {
            let common = few.len(split);
            assert_eq!(few.problems[split as usize], many.problems[split as usize][..common]);
        }
    }

    #[test]
    fn a_space_that_is_too_small_is_named() {
        for space in ["numbers = [2]\nmax_number = 4", "numbers = [7]\nmax_number = 1\ntargets = [99, 100]"] {
            let recipe = recipe(&format!("train = 10\nvalidation = 1\ntest = 1\n{space}"), "");
            let error = CountdownTask::new(&recipe).err().unwrap().to_string();
            assert!(error.contains("too few distinct problems") && error.contains("task.max_number ("), "{error}");
        }
    }

    #[test]
    fn known_answers_score_as_known_under_all_rules_and_prompts() {
        for rules in ["", "rules = 'tinyzero'", "dialogue_format = true", "allow_equals = false"] {
            let recipe = recipe("train = 40\nvalidation = 1\ntest = 1\nmax_number = 9\ntargets = [6, 20]", rules);
            let task = CountdownTask::new(&recipe).unwrap();
            for (index, opened) in (0..40).flat_map(|index| [(index, false), (index, true)]) {
                let grade = |response: String| task.grade(Split::Train, index, &response, opened);
                let right = grade(task.known_right(Split::Train, index, opened).unwrap());
                assert_eq!((right.accuracy, right.format, right.reward(&recipe.reward)), (1.0, 1.0, 1.0));
                let wrong = grade(task.known_wrong(Split::Train, index, opened));
                assert_eq!((wrong.accuracy, wrong.format), (0.0, 1.0));
            }
        }
    }
}
