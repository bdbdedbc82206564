//! Evaluation: held-out problems, one response each, graded like rollouts, without changing any weight.

use super::pulse::Pulse;
use super::rollouts::{Rollout, Writer, grade};
use crate::analysis::{Answers, commonest};
use crate::env::{Environment, Prompt};
use crate::hash::hash;
use crate::metrics::{Outcomes, Record, validation};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Decoding;
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::{Split, Task};
use anyhow::Result;
use serde_json::{Value, json};

/// The rollouts of an evaluation and their means.
pub struct Evaluation {
    pub decoding: Decoding,
    pub prompts: Vec<Prompt>,
    pub rollouts: Vec<Rollout>,
    pub reward: f64,
    pub accuracy: f64,
    pub format: f64,
    /// Mean, in tokens.
    pub response_length: f64,
    /// Share of responses that were cut off at the greatest length.
    pub clip_ratio: f64,
}

/// Answers the first `problems` of `split` (0: all), greedily or by sampling at temperature 1.
///
/// Each problem has its own random stream, the same at every evaluation of a run, so that evaluations can be compared
/// problem by problem.
///
/// # Errors
/// `Stopped` if the pulse says so.
pub fn evaluate(
    policy: &Policy,
    plan: &Plan,
    env: &Environment,
    split: Split,
    problems: usize,
    decoding: Decoding,
    pulse: &Pulse,
) -> Result<Evaluation> {
    let all = env.task.len(split);
    let count = if problems == 0 { all } else { problems.min(all) };
    let prompts = (0..count).map(|index| env.prompt(split, index)).collect::<Result<Vec<_>>>()?;
    let sampling = match decoding {
        Decoding::Greedy => Sampling::greedy(),
        Decoding::Sampled => Sampling::plain(),
    };
    let writer = Writer { policy, plan, env, sampling, samples: 1, purpose: Purpose::Evaluation, step: 0, pulse };
    let rollouts = grade(env, &prompts, writer.write(&prompts)?)?;
    let mean = |of: fn(&Rollout) -> f64| rollouts.iter().map(of).sum::<f64>() / count.max(1) as f64;
    Ok(Evaluation {
        decoding,
        reward: mean(|r| f64::from(r.grade.reward as f32)),
        accuracy: mean(|r| r.grade.accuracy),
        format: mean(|r| r.grade.format),
        response_length: mean(|r| r.sequence.response.len() as f64),
        clip_ratio: mean(|r| f64::from(u8::from(!r.terminated))),
        prompts,
        rollouts,
    })
}

impl Evaluation {
    /// A summary in one line.
    pub fn sentence(&self, split: Split) -> String {
        format!(
            "{} problems of the {} split: accuracy {:.1} %, format {:.1} %, reward {:.3}, {:.1} tokens per response, \
             {:.1} % cut",
            self.prompts.len(),
            split.name(),
            100.0 * self.accuracy,
            100.0 * self.format,
            self.reward,
            self.response_length,
            100.0 * self.clip_ratio
        )
    }

    /// The means, and one entry per problem.
    pub fn json(&self) -> Value {
        let row = |(index, rollout): (usize, &Rollout)| {
            let grade = &rollout.grade;
            json!({
                "index": index,
                "reward": grade.reward,
                "accuracy": grade.accuracy,
                "format": grade.format,
                "verdict": grade.reason,
                "response": rollout.text,
            })
        };
        let mut all = json!({ "problems": self.prompts.len() });
        for (name, value) in self.means() {
            all[name] = value.into();
        }
        all["rows"] = self.rollouts.iter().enumerate().map(row).collect();
        all
    }

    /// Its means under `val/TASK/` (greedy) or `val/TASK_sampled/`, and its problems one by one.
    pub fn record(&self, task: &dyn Task, record: &mut Record) {
        let prefix = validation(task.name(), self.decoding.name());
        for (name, value) in self.means() {
            record.set(format!("{prefix}/{name}"), value);
        }
        for (name, value) in self.class_figures(task) {
            record.set(format!("{prefix}/{name}"), value);
        }
        record.outcome(self.outcomes(task));
    }

    /// The classes of the problems and of the answers, if the task has classes.
    pub fn answers(&self, task: &dyn Task) -> Option<Answers> {
        let classes = task.classes()?;
        Some(Answers {
            names: classes.names,
            truth: self.prompts.iter().map(|prompt| classes.truth[prompt.split as usize][prompt.index]).collect(),
            given: self.rollouts.iter().map(|rollout| rollout.grade.class).collect(),
            majority: commonest(classes.names.len(), classes.truth[Split::Train as usize]),
        })
    }

    /// `macro_f1`, `unanswered`, and `f1_CLASS` for each class; nothing if the task has no classes.
    pub fn class_figures(&self, task: &dyn Task) -> Vec<(String, f64)> {
        let Some(answers) = self.answers(task) else { return vec![] };
        let scores = answers.scores();
        let f1 = answers.names.iter().zip(scores.f1).map(|(name, f1)| (format!("f1_{}", name.replace('-', "_")), f1));
        let all = [("macro_f1".to_string(), scores.macro_f1), ("unanswered".to_string(), scores.unanswered)];
        all.into_iter().chain(f1).collect()
    }

    /// Whether each problem was answered rightly, 1 or 0, [P].
    pub fn right(&self) -> Vec<f64> {
        self.rollouts.iter().map(|rollout| rollout.grade.accuracy).collect()
    }

    fn outcomes(&self, task: &dyn Task) -> Outcomes {
        let (class, answer) = self.answers(task).map_or((vec![], vec![]), |answers| (answers.truth, answers.given));
        let each = |of: fn(&Rollout) -> f64| self.rollouts.iter().map(of).collect();
        Outcomes {
            task: task.name().into(),
            decoding: self.decoding.name().into(),
            problems: fingerprint(task, &self.prompts),
            accuracy: self.right(),
            format: each(|r| r.grade.format),
            reward: each(|r| r.grade.reward),
            response_length: self.rollouts.iter().map(|r| r.sequence.response.len() as u64).collect(),
            terminated: self.rollouts.iter().map(|r| r.terminated).collect(),
            class,
            answer,
        }
    }

    fn means(&self) -> [(&'static str, f64); 5] {
        [
            ("reward", self.reward),
            ("accuracy", self.accuracy),
            ("format", self.format),
            ("response_length", self.response_length),
            ("clip_ratio", self.clip_ratio),
        ]
    }
}

/// SHA-256, in hexadecimal, of the task's name and the problems of `prompts` in their order: one line for the name, and
/// one for each problem, its split and the variables of its prompt as JSON.
fn fingerprint(task: &dyn Task, prompts: &[Prompt]) -> String {
    let line = |prompt: &Prompt| format!("{} {}\n", prompt.split.name(), task.variables(prompt.split, prompt.index));
    let lines: String = prompts.iter().map(line).collect();
    hash(format!("{}\n{lines}", task.name()).as_bytes())
}
