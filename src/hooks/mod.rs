//! What is done at the steps of a run besides training. A hook is a file here and an entry in the list below.

mod checkpoint;
mod evaluation;
mod samples;

use crate::plan::Plan;
use crate::train::hook::Hook;

/// The hooks of a recipe, in the order they are called: evaluations first, so that a checkpoint knows the best step.
pub fn all(plan: &Plan) -> Vec<Box<dyn Hook>> {
    vec![Box::new(evaluation::Evaluation { samples: plan.recipe.hooks.samples }), Box::new(checkpoint::Checkpoint)]
}
