//! What is to be learnt: problems, which part of them the prompt shows, and the grade of a response.
//!
//! A task knows only text: no tokens, no tensors, no model. CONTRIBUTING.md says how to add one.

pub mod countdown;
mod grade;
mod interface;
#[cfg(test)]
#[path = "../../tests/toy/larger.rs"]
mod larger;
pub mod layout;
pub mod politifact;
mod splits;

pub use grade::{Grade, grade};
pub use interface::{Classes, Settings, Split, Task, Verdict, in_words};

use crate::recipe;

/// The settings of a recipe's task.
pub fn settings(task: &recipe::Task) -> &dyn Settings {
    match task {
        recipe::Task::Countdown(settings) => settings,
        recipe::Task::Politifact(settings) => settings,
        #[cfg(test)]
        recipe::Task::Larger(settings) => settings,
    }
}
