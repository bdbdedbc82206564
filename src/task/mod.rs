//! What is to be learnt: problems, what of them the prompt shows, and the grade of a response.
//!
//! A task knows text alone: no tokens, no tensors, no model.

pub mod countdown;
pub mod expression;
pub mod files;
pub mod reward;
pub mod solver;

pub use reward::{Grade, Verdict};

use crate::BadInput;
use crate::recipe::{Recipe, TaskKind};

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

/// A set of problems with a rule that grades responses. An `index` is below `len` of its split.
pub trait Task: Send + Sync {
    /// As it appears in metric names.
    fn name(&self) -> &'static str;

    fn len(&self, split: Split) -> usize;

    /// Variables of the prompt template, a JSON object.
    fn variables(&self, split: Split, index: usize) -> serde_json::Value;

    /// Grades a response. `prompt_opens_think`: whether the prompt ended inside an open `<think>`.
    fn grade(&self, split: Split, index: usize, response: &str, prompt_opens_think: bool) -> Grade;

    /// A whole response that must earn the full reward, for the preflight; none where the problem has no solution.
    fn known_right(&self, split: Split, index: usize, prompt_opens_think: bool) -> Option<String>;

    /// A whole response in the right layout that must earn no accuracy, for the preflight.
    fn known_wrong(&self, split: Split, index: usize, prompt_opens_think: bool) -> String;

    /// The task as Countdown, which has a solver that can write traces.
    fn countdown(&self) -> Option<&countdown::CountdownTask> {
        None
    }
}

/// The task of a recipe: its problems generated, or read from its files.
///
/// # Errors
/// `BadInput`: a file that cannot be read or holds a bad row, or a recipe that asks for more distinct problems than there
/// are.
pub fn build(recipe: &Recipe) -> anyhow::Result<Box<dyn Task>> {
    match recipe.task.kind {
        TaskKind::Countdown => Ok(Box::new(countdown::CountdownTask::new(recipe).map_err(bad_input)?)),
    }
}

/// Marks an error as the user's to mend, its causes in one message.
pub(crate) fn bad_input(error: anyhow::Error) -> BadInput {
    BadInput(format!("{error:#}"))
}
