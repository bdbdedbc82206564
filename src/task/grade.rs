//! The grade of a response: accuracy for its answer, format for its layout, each 0 or 1, and the reward they add up to.

use super::interface::{Split, Task, Verdict};
use super::layout;
use crate::recipe::Reward;

/// The parts of a response's reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade {
    /// 1 if the answer is right, else 0.
    pub accuracy: f64,
    /// 1 if the layout is right, else 0.
    pub format: f64,
    /// The reward that PPO gets at the response's last token.
    pub reward: f64,
    /// Whether there is an answer at all.
    pub answered: bool,
    /// The class that the answer names, if the task has classes and it names one.
    pub class: Option<usize>,
    /// Why accuracy is what it is.
    pub reason: String,
}

/// Grades a response to a problem of `task`. `prompt_opens_think`: whether the prompt ended inside an open `<think>`.
pub fn grade(
    task: &dyn Task,
    (split, index): (Split, usize),
    response: &str,
    rules: &Reward,
    prompt_opens_think: bool,
) -> Grade {
    let layout = layout::read(response, rules, prompt_opens_think);
    let verdict = match layout.answer {
        Ok(answer) => task.judge(split, index, answer),
        Err(missing) => Verdict { right: false, reason: missing.to_string() },
    };
    let class = layout.answer.ok().and_then(|answer| (task.classes()?.named)(answer));
    let (accuracy, format) = (f64::from(verdict.right), f64::from(layout.format));
    let reward = rules.accuracy * accuracy + rules.format * format;
    Grade { accuracy, format, reward, answered: layout.answer.is_ok(), class, reason: verdict.reason }
}
