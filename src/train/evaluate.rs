//! Evaluation: held-out problems, one response each, graded like rollouts but with no weight changed.

use super::experience::{Rollouts, generate, grade};
use crate::env::Environment;
use crate::metrics::Record;
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Decoding;
use crate::rng::Purpose;
use crate::rollout::Sampling;
use crate::task::Split;
use anyhow::Result;
use serde_json::{Value, json};

/// The rollouts of one evaluation and their means.
pub struct Evaluation {
    pub decoding: Decoding,
    pub prompts: Vec<crate::env::Prompt>,
    pub rollouts: Rollouts,
    pub reward: f64,
    pub accuracy: f64,
    pub format: f64,
    /// Mean response length in tokens.
    pub length: f64,
    /// Share of responses that were cut at the longest length.
    pub cut: f64,
}

/// Answers the first `problems` of `split` (0: all), greedily or by sampling at temperature 1.
///
/// A problem draws from its own stream, the same at every evaluation of a run, so that two of them compare in pairs.
pub fn evaluate(
    policy: &Policy,
    plan: &Plan,
    env: &Environment,
    split: Split,
    problems: usize,
    decoding: Decoding,
) -> Result<Evaluation> {
    let all = env.task.len(split);
    let count = if problems == 0 { all } else { problems.min(all) };
    let prompts = (0..count).map(|index| env.prompt(split, index)).collect::<Result<Vec<_>>>()?;
    let sampling = match decoding {
        Decoding::Greedy => Sampling::greedy(),
        Decoding::Sampled => Sampling { greedy: false, ..Sampling::greedy() },
    };
    let responses = generate(policy, plan, env, &prompts, 1, sampling, (Purpose::Evaluation, 0));
    let rollouts = grade(env, &prompts, responses)?;
    let mean = |value: &dyn Fn(usize) -> f64| (0..count).map(value).sum::<f64>() / count.max(1) as f64;
    Ok(Evaluation {
        decoding,
        reward: mean(&|i| f64::from(rollouts.scores[i])),
        accuracy: mean(&|i| rollouts.grades[i].accuracy),
        format: mean(&|i| rollouts.grades[i].format),
        length: mean(&|i| rollouts.sequences[i].response.len() as f64),
        cut: mean(&|i| f64::from(u8::from(!rollouts.terminated[i]))),
        prompts,
        rollouts,
    })
}

impl Evaluation {
    /// One line for people.
    pub fn sentence(&self, split: Split) -> String {
        format!(
            "{} problems of the {} split: accuracy {:.1} %, format {:.1} %, reward {:.3}, {:.1} tokens per response, \
             {:.1} % cut",
            self.prompts.len(),
            split.name(),
            100.0 * self.accuracy,
            100.0 * self.format,
            self.reward,
            self.length,
            100.0 * self.cut
        )
    }

    /// The means, and one entry per problem.
    pub fn json(&self) -> Value {
        let row = |i: usize| {
            let grade = &self.rollouts.grades[i];
            json!({
                "index": i,
                "reward": self.rollouts.scores[i],
                "accuracy": grade.accuracy,
                "format": grade.format,
                "verdict": grade.reason,
                "response": self.rollouts.texts[i],
            })
        };
        json!({
            "problems": self.prompts.len(),
            "accuracy": self.accuracy,
            "format": self.format,
            "reward": self.reward,
            "response_length": self.length,
            "clip_ratio": self.cut,
            "rows": (0..self.prompts.len()).map(row).collect::<Vec<_>>(),
        })
    }

    /// Its figures under `val/TASK/` (greedy) or `val/TASK_sampled/`.
    pub fn describe(&self, task: &str, record: &mut Record) {
        let prefix = self.decoding.metrics(task);
        for (name, value) in [
            ("reward", self.reward),
            ("accuracy", self.accuracy),
            ("format", self.format),
            ("response_length", self.length),
            ("clip_ratio", self.cut),
        ] {
            record.set(format!("{prefix}/{name}"), value);
        }
    }
}
