//! The first stage of a step: prompts -> responses -> grades.

use super::batch::Sequence;
use super::exchange::exchange;
use super::not_finite::numbers;
use super::pulse::Pulse;
use crate::dist::share;
use crate::env::{Environment, Prompt};
use crate::json::number;
use crate::metrics::Record;
use crate::model::Policy;
use crate::plan::Plan;
use crate::rng::{self, Purpose};
use crate::rollout::{Engine, Response, Sampling, Stop};
use crate::task::{Grade, Split};
use crate::terminal;
use anyhow::Result;
use rand::seq::SliceRandom;
use serde_json::{Map, Value, json};

/// One response, and what it earned.
pub struct Rollout {
    pub sequence: Sequence,
    /// The sampler's log-probs of the response tokens.
    pub log_probs: Vec<f32>,
    /// Whether it ended by itself; otherwise it was cut off.
    pub terminated: bool,
    pub text: String,
    pub grade: Grade,
}

/// The prompts of a step, from 1: the training problems, in a new random order for each pass over them.
pub fn prompts(plan: &Plan, env: &Environment, step: usize) -> Result<Vec<Prompt>> {
    let (count, problems) = (plan.recipe.rollout.prompts_per_step, env.task.len(Split::Train));
    let (mut order, mut drawn) = (Vec::new(), None);
    let first = (step - 1) * count;
    let mut prompts = Vec::with_capacity(count);
    for at in first..first + count {
        let epoch = at / problems;
        if drawn != Some(epoch) {
            order = (0..problems).collect();
            order.shuffle(&mut rng::stream(plan.recipe.seed, Purpose::DataOrder, epoch as u64, 0));
            drawn = Some(epoch);
        }
        prompts.push(env.prompt(Split::Train, order[at % problems])?);
    }
    Ok(prompts)
}

/// How responses are written.
pub struct Writer<'a> {
    pub policy: &'a Policy,
    pub plan: &'a Plan,
    pub env: &'a Environment,
    pub sampling: Sampling,
    /// Responses per prompt.
    pub samples: usize,
    /// Sample s of prompt p draws from the stream (seed, purpose, step, p * samples + s).
    pub purpose: Purpose,
    pub step: usize,
    pub pulse: &'a Pulse<'a>,
}

impl Writer<'_> {
    /// Responses to all prompts, the samples of a prompt side by side. Each rank writes those to its share of the
    /// prompts.
    ///
    /// # Errors
    /// `Stopped` if the pulse says so between tokens. Those of `Comm::sum`.
    pub fn write(&self, prompts: &[Prompt]) -> Result<Vec<Response>> {
        let rollout = &self.plan.recipe.rollout;
        let engine = Engine {
            policy: self.policy,
            sampling: self.sampling.clone(),
            stop: Stop { ends: &|_, ids| self.env.ends_at(ids), max_tokens: rollout.max_response_tokens },
            vocabulary: self.env.tokenizer.vocab_size().min(self.plan.config.vocab_size),
            batch: rollout.batch,
            goes_on: &|| self.pulse.goes_on(),
            steering: None,
        };
        let comm = self.pulse.comm();
        let own = share(comm, &(0..prompts.len()).collect::<Vec<_>>());
        let ids: Vec<&[i64]> = own.iter().map(|p| &*prompts[*p].ids).collect();
        let places: Vec<usize> =
            own.iter().flat_map(|p| (0..self.samples).map(move |s| p * self.samples + s)).collect();
        let stream = |p: usize, s: usize| {
            let place = places[p * self.samples + s];
            rng::stream(self.plan.recipe.seed, self.purpose, self.step as u64, place as u64)
        };
        let responses = engine.generate(&ids, self.samples, stream, |_| ());
        self.pulse.check()?;
        exchange(comm, &places, responses, prompts.len() * self.samples)
    }
}

/// Decodes and grades responses, the same number for each prompt.
pub fn grade(env: &Environment, prompts: &[Prompt], responses: Vec<Response>) -> Result<Vec<Rollout>> {
    let samples = responses.len() / prompts.len().max(1);
    let rollout = |(i, response): (usize, Response)| {
        let prompt = &prompts[i / samples];
        let text = env.decode(&response.ids)?;
        Ok(Rollout {
            grade: env.grade(prompt, &text),
            text,
            sequence: Sequence { prompt: prompt.ids.clone(), response: response.ids },
            log_probs: response.log_probs,
            terminated: response.terminated,
        })
    };
    responses.into_iter().enumerate().map(rollout).collect()
}

impl Rollout {
    /// Everything that is known of it.
    pub fn json(&self) -> Map<String, Value> {
        let Self { sequence, log_probs, terminated, text, grade } = self;
        let known = json!({
            "prompt_ids": &*sequence.prompt,
            "response_ids": sequence.response,
            "text": text,
            "terminated": terminated,
            "reward": number(grade.reward),
            "accuracy": number(grade.accuracy),
            "format": number(grade.format),
            "verdict": grade.reason,
            "sampler_log_probs": numbers(log_probs),
        });
        if let Value::Object(known) = known { known } else { Map::new() }
    }
}

/// Scores and lengths of the rollouts; the `samples` of a prompt are side by side.
pub fn record(rollouts: &[Rollout], samples: usize, record: &mut Record) {
    let each = |of: fn(&Rollout) -> f64| rollouts.iter().map(of).collect::<Vec<f64>>();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let scores = narrow(&each(|r| r.grade.reward));
    let responses = each(|r| r.sequence.response.len() as f64);
    let ended: Vec<f64> = rollouts.iter().zip(&responses).filter(|(r, _)| r.terminated).map(|(_, l)| *l).collect();
    let flat = scores.chunks(samples).filter(|group| group.iter().all(|score| *score == group[0])).count();

    record.summary("critic/score", &scores);
    record.set("reward/accuracy", mean(&each(|r| r.grade.accuracy)));
    record.set("reward/format", mean(&each(|r| r.grade.format)));
    record.set("reward/zero_std_frac", flat as f64 / (rollouts.len().max(1) as f64 / samples as f64));
    record.summary("response_length", &narrow(&responses));
    record.summary("prompt_length", &narrow(&each(|r| r.sequence.prompt.len() as f64)));
    record.set("response_length/clip_ratio", mean(&each(|r| f64::from(u8::from(!r.terminated)))));
    record.set("response_length/terminated_mean", mean(&ended));
    record.histogram("rollout/scores", scores.iter().map(|score| f64::from(*score)).collect());
    record.histogram("rollout/response_length", responses);
}

/// Warns if no response of the first step contains an answer, and shows three.
pub fn warn_when_nothing_answers(rollouts: &[Rollout]) {
    if rollouts.iter().any(|r| r.grade.answered) {
        return;
    }
    let count = rollouts.len();
    terminal::warn(&format!("warning: none of the {count} rollouts in the first step has an answer. Three of them:"));
    for rollout in rollouts.iter().take(3) {
        // A terminal would obey control characters.
        let shown: String = rollout.text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        terminal::warn(&format!("---\n{shown}"));
    }
    terminal::warn("---\nuntil one has, there is nothing to learn from: a warm start ([sft]) teaches the layout");
}
