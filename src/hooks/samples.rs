//! Rollouts to look at.

use crate::env::Prompt;
use crate::task::Task;
use crate::terminal;
use crate::train::evaluate::Evaluation;
use crate::train::rollouts::Rollout;
use serde_json::Value;

/// The first `count` problems of an evaluation with what was answered and earned. Long prompts begin and end alike, so
/// that problems are shown by the variables of their prompts.
pub fn table(task: &dyn Task, evaluation: &Evaluation, count: usize) -> String {
    let row = |(prompt, rollout): (&Prompt, &Rollout)| {
        let (text, grade) = (rollout.text.clone(), &rollout.grade);
        let problem = one_line(&task.variables(prompt.split, prompt.index));
        vec![problem, text, format!("{:.2}", grade.reward), grade.reason.clone()]
    };
    let rows: Vec<_> = evaluation.prompts.iter().zip(&evaluation.rollouts).take(count).map(row).collect();
    terminal::table(&["problem", "response", "reward", "verdict"], &rows)
}

/// `{"numbers": [3, 5], "target": 8}` as `numbers 3 5, target 8`.
fn one_line(value: &Value) -> String {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| format!("{k} {}", one_line(v))).collect::<Vec<_>>().join(", "),
        Value::Array(items) => items.iter().map(one_line).collect::<Vec<_>>().join(" "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
