//! What the responses that a hook reads depend on besides the checkpoint, and what they earn: a result that was made
//! with other keys is not taken for this one.
//!
//! Left out is what changes rounding alone (device, threads, how many sequences are decoded at a time) and what the
//! checkpoint brings along (the tokenizer and its chat template).

use crate::hash::hash;
use crate::plan::Plan;
use crate::recipe::Decoding;
use crate::text::source_of;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// The parts of the identity of responses to a plan's task.
///
/// # Errors
/// Bad input: a prompt template that cannot be read.
pub fn of_responses(plan: &Plan, decoding: Decoding) -> Result<Map<String, Value>> {
    let recipe = &plan.recipe;
    let rollout = &recipe.rollout;
    let parts: [(&str, Value); 7] = [
        ("task", json!(recipe.task)),
        // By what it says: a file may have changed.
        ("prompt", json!(hash(source_of(&recipe.prompt.template)?.as_bytes()))),
        ("reward", json!(recipe.reward)),
        ("tokens", json!([rollout.max_prompt_tokens, rollout.max_response_tokens])),
        ("stop", json!(rollout.stop)),
        ("precision", json!(recipe.machine.precision)),
        // Greedy answers draw nothing.
        ("seed", json!((decoding == Decoding::Sampled).then_some(recipe.seed))),
    ];
    Ok(parts.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
