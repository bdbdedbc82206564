//! What a task is: sets of problems, and whether an answer is right.

use crate::BadInput;
use crate::recipe::{Reward, SolverData, Sources};
use crate::rng::ChaCha8Rng;

/// The disjoint sets of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

/// What a task says about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub right: bool,
    /// Why, in a few words.
    pub reason: String,
}

/// What a task is whose every answer is one of a few classes; a class is its place among their names.
#[derive(Clone, Copy)]
pub struct Classes<'a> {
    pub names: &'static [&'static str],
    /// The class of each problem of each split, in the order of `Split::ALL`.
    pub truth: [&'a [usize]; 3],
    /// The class that the text of an answer names; none if it names no class, or several.
    pub named: fn(&str) -> Option<usize>,
}

/// The section [task] of a recipe, for one kind of task.
pub trait Settings {
    /// Problems of each split, in the order of `Split::ALL`.
    fn sizes(&self) -> [usize; 3];

    /// Where the problems come from and what they are like, in a line of the plan.
    fn describe(&self) -> String;

    /// Checks the keys against each other; their single bounds are checked already.
    ///
    /// # Errors
    /// The first combination that cannot be, with its place in the recipe.
    fn check(&self, _: &Sources) -> Result<(), BadInput> {
        Ok(())
    }

    /// Whether the task has a solver that writes traces for a warm start.
    fn has_solver(&self) -> bool {
        false
    }

    /// The task with all its problems.
    ///
    /// # Errors
    /// A file that cannot be read or has a bad row; more problems than there are.
    fn build(&self, reward: &Reward) -> anyhow::Result<Box<dyn Task>>;

    /// A task with the first training problem at least, to look at: `build`, unless there is a faster way.
    ///
    /// # Errors
    /// As `build`.
    fn first(&self, reward: &Reward) -> anyhow::Result<Box<dyn Task>> {
        self.build(reward)
    }
}

/// A set of problems with a rule that judges answers. An `index` is below `len` of its split.
pub trait Task: Send + Sync {
    /// As it appears in metric names.
    fn name(&self) -> &'static str;

    fn len(&self, split: Split) -> usize;

    /// Variables of the prompt template, a JSON object.
    fn variables(&self, split: Split, index: usize) -> serde_json::Value;

    /// Whether the text of an answer is right.
    fn judge(&self, split: Split, index: usize, answer: &str) -> Verdict;

    /// The text of a right answer, for the preflight; none if the problem has no solution.
    fn right_answer(&self, split: Split, index: usize) -> Option<String>;

    /// The text of a wrong answer, for the preflight.
    fn wrong_answer(&self, split: Split, index: usize) -> String;

    /// The classes, if the task is to tell a few apart: evaluations then show which are taken for which.
    fn classes(&self) -> Option<Classes<'_>> {
        None
    }

    /// A response to training problem `index` that the task's own solver writes, for a warm start, with `more` wrong
    /// tries than its search made, as far as there are so many; `rng` is a stream of `Purpose::Traces`. None if the
    /// task has no solver.
    fn trace(&self, _index: usize, _solver: &SolverData, _more: usize, _rng: &mut ChaCha8Rng) -> Option<String> {
        None
    }
}

/// The variables of a prompt for people: `{"numbers": [3, 5], "target": 8}` as `numbers 3 5, target 8`.
pub fn in_words(variables: &serde_json::Value) -> String {
    use serde_json::Value;
    match variables {
        Value::Object(map) => map.iter().map(|(k, v)| format!("{k} {}", in_words(v))).collect::<Vec<_>>().join(", "),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(" "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
