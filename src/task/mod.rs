//! What is to be learnt: problems, what of them the prompt shows, and the grade of a response.
//!
//! A task knows text alone: no tokens, no tensors, no model.

pub mod countdown;
mod grade;
mod interface;
pub mod layout;

pub use grade::{Grade, grade};
pub use interface::{Split, Task, Verdict};

use crate::OrBadInput;
use crate::recipe::{self, Recipe};

/// The task of a recipe: its problems generated, or read from its files.
///
/// # Errors
/// `BadInput`: a file that cannot be read or holds a bad row, or a recipe that asks for more distinct problems than there
/// are.
pub fn build(recipe: &Recipe) -> anyhow::Result<Box<dyn Task>> {
    match &recipe.task {
        recipe::Task::Countdown(settings) => {
            Ok(Box::new(countdown::CountdownTask::new(settings, &recipe.reward).bad_input()?))
        }
    }
}
