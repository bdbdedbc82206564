//! Countdown: make a target from some numbers with `+ - * /`, every number used exactly once.

pub mod expression;
mod files;
mod generate;
mod judge;
mod problem;
mod settings;
pub mod solver;
mod traces;

pub use files::{COLUMNS, problem_of};
pub use generate::COUNTS;
pub use judge::judge;
pub use problem::{MAX_NUMBER, MAX_NUMBERS, Problem};
pub use traces::{MAX_VALUE, SolverOptions, solver_dialogue, solver_trace};

use super::splits::warn_of_shared;
use super::{Split, Task, Verdict};
use crate::recipe::{Countdown, Reward, Rules, SolverData};
use crate::rng::ChaCha8Rng;
use anyhow::{Result, bail};
use serde_json::json;

/// The problems of the three splits and the rules of their reward.
pub struct CountdownTask {
    /// In the order of `Split::ALL`.
    problems: [Vec<Problem>; 3],
    rules: Rules,
    allow_equals: bool,
}

impl CountdownTask {
    /// Generates the recipe's problems, or reads its files (all three splits or none).
    ///
    /// # Errors
    /// A bad file, or more problems asked for than there are distinct solvable ones.
    pub fn new(task: &Countdown, reward: &Reward) -> Result<Self> {
        let problems = match (&task.train_file, &task.validation_file, &task.test_file) {
            (None, None, None) => generate::generate(task)?,
            (Some(train), Some(validation), Some(test)) => [
                files::read_problems(train, task.train, "task.train")?,
                files::read_problems(validation, task.validation, "task.validation")?,
                files::read_problems(test, task.test, "task.test")?,
            ],
            _ => bail!("task: set train_file, validation_file and test_file together or not at all"),
        };
        warn_of_shared(&problems.each_ref().map(|split| split.iter().map(Problem::canonical).collect()));
        Ok(Self { problems, rules: reward.rules, allow_equals: task.allow_equals })
    }

    /// One training problem.
    #[cfg(test)]
    pub fn of(problem: Problem, rules: Rules, allow_equals: bool) -> Self {
        Self { problems: [vec![problem], vec![], vec![]], rules, allow_equals }
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

    fn judge(&self, split: Split, index: usize, answer: &str) -> Verdict {
        judge(answer, self.problem(split, index), self.rules, self.allow_equals)
    }

    /// The solver's. A problem from a file may have no solution.
    fn right_answer(&self, split: Split, index: usize) -> Option<String> {
        Some(solver::solve(self.problem(split, index), i64::MAX)?.expression())
    }

    /// The sum of the numbers, plus 1 if that is the target.
    fn wrong_answer(&self, split: Split, index: usize) -> String {
        let Problem { nums, target } = self.problem(split, index);
        let mut terms: Vec<_> = nums.iter().map(i64::to_string).collect();
        if nums.iter().sum::<i64>() == *target {
            terms.push("1".into());
        }
        terms.join("+")
    }

    fn trace(&self, index: usize, solver: &SolverData, more: usize, rng: &mut ChaCha8Rng) -> Option<String> {
        let SolverData { tries, insight, .. } = *solver;
        let options = SolverOptions { tries, insight, more, max_value: MAX_VALUE };
        Some(solver_trace(self.problem(Split::Train, index), solver.style, &options, rng))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{grade, layout};
    use std::collections::HashSet;

    /// A task with these keys of [task].
    fn build(lines: &str, reward: &Reward) -> Result<CountdownTask> {
        CountdownTask::new(&toml::from_str(lines).unwrap(), reward)
    }

    fn task(lines: &str) -> CountdownTask {
        build(lines, &Reward::default()).unwrap()
    }

    #[test]
    fn generated_problems_follow_the_recipe_are_solvable_and_disjoint() {
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
    fn more_training_problems_do_not_change_the_others() {
        let (few, many) =
            (task("train = 10\nvalidation = 20\ntest = 5"), task("train = 50\nvalidation = 20\ntest = 5"));
        for split in Split::ALL {
            let common = few.len(split);
            assert_eq!(few.problems[split as usize], many.problems[split as usize][..common]);
        }
    }

    #[test]
    fn too_few_possible_problems_are_reported() {
        for space in ["numbers = [2]\nmax_number = 4", "numbers = [7]\nmax_number = 1\ntargets = [99, 100]"] {
            let lines = format!("train = 10\nvalidation = 1\ntest = 1\n{space}");
            let error = build(&lines, &Reward::default()).err().unwrap().to_string();
            assert!(error.contains("too few distinct problems") && error.contains("task.max_number ("), "{error}");
        }
    }

    #[test]
    fn known_answers_are_graded_right_under_all_rules_and_prompts() {
        let lines = "train = 40\nvalidation = 1\ntest = 1\nmax_number = 9\ntargets = [6, 20]";
        for (rules, equals) in [("", true), ("rules = 'tinyzero'", true), ("dialogue_format = true", true), ("", false)]
        {
            let reward: Reward = toml::from_str(rules).unwrap();
            let task = build(&format!("{lines}\nallow_equals = {equals}"), &reward).unwrap();
            for (index, opened) in (0..40).flat_map(|index| [(index, false), (index, true)]) {
                let grade = |answer: &str| {
                    let response = layout::monologue("a thought", answer, opened);
                    grade(&task, (Split::Train, index), &response, &reward, opened)
                };
                let right = grade(&task.right_answer(Split::Train, index).unwrap());
                assert_eq!((right.accuracy, right.format, right.reward), (1.0, 1.0, 1.0));
                let wrong = grade(&task.wrong_answer(Split::Train, index));
                assert_eq!((wrong.accuracy, wrong.format), (0.0, 1.0));
            }
        }
    }
}
