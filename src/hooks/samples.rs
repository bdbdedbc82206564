//! Rollouts to look at.

use crate::terminal;
use crate::train::evaluate::Evaluation;

/// The first `count` problems of an evaluation with what was answered and earned.
pub fn table(evaluation: &Evaluation, count: usize) -> String {
    let rollouts = &evaluation.rollouts;
    let row = |i: usize| {
        let reward = format!("{:.2}", rollouts.scores[i]);
        let reason = rollouts.grades[i].reason.clone();
        vec![evaluation.prompts[i].text.clone(), rollouts.texts[i].clone(), reward, reason]
    };
    let rows: Vec<_> = (0..count.min(evaluation.prompts.len())).map(row).collect();
    terminal::table(&["problem", "response", "reward", "verdict"], &rows)
}
