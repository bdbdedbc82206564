//! Rollouts to look at.

use crate::env::Prompt;
use crate::task::{Task, in_words};
use crate::terminal;
use crate::train::evaluate::Evaluation;
use crate::train::rollouts::Rollout;

/// The first `count` problems of an evaluation with what was answered and earned. Long prompts begin and end alike, so
/// that problems are shown by the variables of their prompts. `width` in columns (none: that of the terminal).
pub fn table(task: &dyn Task, evaluation: &Evaluation, count: usize, width: Option<usize>) -> String {
    let row = |(prompt, rollout): (&Prompt, &Rollout)| {
        let (text, grade) = (rollout.text.clone(), &rollout.grade);
        let problem = in_words(&task.variables(prompt.split, prompt.index));
        vec![problem, text, format!("{:.2}", grade.reward), grade.reason.clone()]
    };
    let rows: Vec<_> = evaluation.prompts.iter().zip(&evaluation.rollouts).take(count).map(row).collect();
    let head = ["problem", "response", "reward", "verdict"];
    terminal::table_within(width.unwrap_or_else(terminal::width), &head, &rows)
}
