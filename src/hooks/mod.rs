//! What is done at the steps of a run besides training. A hook is a file here and an entry in the list below.
//! Hooks that run in a process of their own are named in `schedule`, and `work` does what they do.

mod beside;
mod check;
mod checkpoint;
mod command;
pub mod compared;
#[cfg(test)]
#[path = "../../tests/toy/count_steps.rs"]
mod count_steps;
pub mod distinct;
mod evaluation;
mod external;
pub mod found;
mod identity;
pub mod judges;
mod outcome;
pub mod persona;
mod samples;
pub mod schedule;
pub mod transfer;
mod work;

pub use check::{Lack, check};
pub use evaluation::evaluate;
pub use outcome::Outcome;
pub use work::{identity, saved, work, yield_to_training};

use crate::dist::Comm;
use crate::plan::Plan;
use crate::train::hook::Hook;
use beside::Beside;
use checkpoint::Checkpoint;
use evaluation::Evaluation;

/// The hooks of a recipe, in the order they are called: evaluations first, so that a checkpoint knows the best step.
pub fn all(plan: &Plan, comm: &dyn Comm) -> Vec<Box<dyn Hook>> {
    let settings = &plan.recipe.hooks;
    vec![
        Box::new(Evaluation { samples: settings.samples }),
        Box::new(Checkpoint),
        Box::new(Beside::of(comm)),
        #[cfg(test)]
        Box::new(count_steps::CountSteps { wanted: settings.count_steps }),
    ]
}
