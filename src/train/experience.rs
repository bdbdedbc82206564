//! From problems to what PPO learns from, stage by stage: prompts -> rollouts -> estimates -> experience.
//!
//! Each stage takes the plain struct before it and returns its own.

use super::batch::{MicroBatch, Sequence, micro_batches, slots};
use crate::algo::{advantage, kl};
use crate::env::{Environment, Prompt};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::{Advantage, KlIn, Ppo};
use crate::rng::{self, Purpose};
use crate::rollout::{Engine, Response, Sampling, Stop};
use crate::task::{Grade, Split};
use crate::torch::to_host;
use anyhow::Result;
use rand::seq::SliceRandom;
use std::ops::Range;
use tch::{Device, Tensor};

/// The prompts of a step, from 1: the training problems in an order drawn anew for each pass over them.
pub fn prompts(plan: &Plan, env: &Environment, step: usize) -> Result<Vec<Prompt>> {
    let (count, problems) = (plan.recipe.rollout.prompts_per_step, env.task.len(Split::Train));
    let first = (step - 1) * count;
    let mut pass = None;
    (first..first + count)
        .map(|at| {
            let (epoch, order) = pass.take().filter(|(epoch, _)| *epoch == at / problems).unwrap_or_else(|| {
                let epoch = at / problems;
                let mut order: Vec<usize> = (0..problems).collect();
                order.shuffle(&mut rng::stream(plan.recipe.seed, Purpose::DataOrder, epoch as u64, 0));
                (epoch, order)
            });
            let index = order[at % problems];
            pass = Some((epoch, order));
            env.prompt(Split::Train, index)
        })
        .collect()
}

/// What the policy wrote, and what it earned; one entry a sequence, the samples of a prompt side by side.
pub struct Rollouts {
    pub sequences: Vec<Sequence>,
    /// The sampler's log-probs of the response tokens, flat.
    pub log_probs: Vec<f32>,
    /// Whether a sequence ended by itself.
    pub terminated: Vec<bool>,
    pub texts: Vec<String>,
    pub grades: Vec<Grade>,
    pub scores: Vec<f32>,
}

/// Writes `samples` responses to each prompt; sample s of prompt p draws from the stream (seed, purpose, step, p, s).
pub fn generate(
    policy: &Policy,
    plan: &Plan,
    env: &Environment,
    prompts: &[Prompt],
    samples: usize,
    sampling: Sampling,
    (purpose, step): (Purpose, usize),
) -> Vec<Response> {
    let recipe = &plan.recipe;
    let engine = Engine {
        policy,
        sampling,
        stop: Stop { tokens: env.stop.clone(), max_tokens: recipe.rollout.max_response_tokens },
        vocabulary: env.tokenizer.vocab_size().min(plan.config.vocab_size),
        batch: recipe.rollout.batch,
    };
    let ids: Vec<Vec<i64>> = prompts.iter().map(|p| p.ids.clone()).collect();
    let stream = |p: usize, s: usize| rng::stream(recipe.seed, purpose, step as u64, (p * samples + s) as u64);
    engine.generate(&ids, samples, stream, |_| ())
}

/// Decodes and grades the responses.
pub fn grade(env: &Environment, prompts: &[Prompt], responses: Vec<Response>) -> Result<Rollouts> {
    let samples = responses.len() / prompts.len().max(1);
    let mut rollouts = Rollouts {
        sequences: Vec::with_capacity(responses.len()),
        log_probs: Vec::new(),
        terminated: responses.iter().map(|r| r.terminated).collect(),
        texts: Vec::with_capacity(responses.len()),
        grades: Vec::with_capacity(responses.len()),
        scores: Vec::with_capacity(responses.len()),
    };
    for (i, response) in responses.into_iter().enumerate() {
        let prompt = &prompts[i / samples];
        let answer = env.decode(&response.ids)?;
        let grade = env.grade(prompt, &answer);
        rollouts.scores.push(grade.reward as f32);
        rollouts.grades.push(grade);
        rollouts.texts.push(answer);
        rollouts.log_probs.extend(response.log_probs);
        rollouts.sequences.push(Sequence { prompt: prompt.ids.clone(), response: response.ids });
    }
    Ok(rollouts)
}

/// What the models say of the rollouts before they learn from them; flat, [N] float32, on the models' device.
pub struct Estimates {
    /// The actor's log-probs, recomputed: the "old" policy of the update.
    pub old: Tensor,
    pub reference: Option<Tensor>,
    /// The critic's values before each token.
    pub values: Option<Tensor>,
}

/// Log-probs of all response tokens under `policy`, flat [N].
pub fn log_probs(policy: &Policy, sequences: &[Sequence], max_tokens: usize, temperature: f64) -> Tensor {
    score(sequences, max_tokens, policy.device(), |b| {
        policy.log_probs(&policy.hidden(&b.ids, &b.read), &b.targets, temperature)
    })
}

/// Runs `read` over micro-batches of all sequences and puts what it gives, [n, ..] a micro-batch, in flat order [N, ..].
pub fn score(
    sequences: &[Sequence],
    max_tokens: usize,
    device: Device,
    read: impl Fn(&MicroBatch) -> Tensor,
) -> Tensor {
    tch::no_grad(|| {
        let slots = slots(sequences);
        let batches = micro_batches(sequences, &slots, 0..sequences.len(), max_tokens, device);
        let rows: Vec<Tensor> = batches.iter().map(read).collect();
        let places: Vec<&Tensor> = batches.iter().map(|b| &b.slots).collect();
        Tensor::cat(&rows, 0).index_select(0, &Tensor::cat(&places, 0).argsort(0, false))
    })
}

/// What an update learns from. Flat quantities are [N] float32 on the models' device.
pub struct Experience {
    pub sequences: Vec<Sequence>,
    pub slots: Vec<Range<usize>>,
    pub lengths: Vec<usize>,
    pub old: Tensor,
    pub reference: Option<Tensor>,
    pub values: Option<Tensor>,
    pub advantages: Tensor,
    pub returns: Tensor,
    /// Mean KL estimate a token, in nats (0 without a reference).
    pub kl: f64,
    /// On the host, for the record: token rewards summed by sequence, advantages and returns by token.
    pub host: HostSide,
}

/// The numbers that the record summarises.
pub struct HostSide {
    pub rewards: Vec<f32>,
    pub advantages: Vec<f32>,
    pub returns: Vec<f32>,
    pub values: Vec<f32>,
}

/// Rewards and estimates become advantages and returns, on the host: one pass over N numbers.
pub fn experience(
    ppo: &Ppo,
    kl_coef: f64,
    group: usize,
    sequences: Vec<Sequence>,
    scores: &[f32],
    estimates: Estimates,
) -> Experience {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.response.len()).collect();
    let device = estimates.old.device();
    let kl = match &estimates.reference {
        Some(reference) => to_host(&kl::estimate(&estimates.old, reference, ppo.kl_estimator)),
        None => vec![0.0; lengths.iter().sum()],
    };
    let paid = if ppo.kl_in == KlIn::Reward { kl_coef } else { 0.0 };
    let rewards = advantage::token_rewards(scores, &kl, paid, &lengths);
    let by_sequence = advantage::sum_by_sequence(&rewards, &lengths);
    let values = estimates.values.as_ref().map_or_else(|| vec![0.0; rewards.len()], to_host);
    let (mut advantages, returns) = match ppo.advantage {
        Advantage::Gae => advantage::gae(&rewards, &values, &lengths, ppo.gamma, ppo.lambda),
        Advantage::Grpo => (advantage::grpo(&by_sequence, group, &lengths), rewards.clone()),
        Advantage::Rloo => (advantage::rloo(&by_sequence, group, &lengths), rewards.clone()),
    };
    if ppo.whiten && ppo.advantage == Advantage::Gae {
        advantage::whiten(&mut advantages);
    }
    Experience {
        slots: slots(&sequences),
        old: estimates.old,
        reference: estimates.reference,
        values: estimates.values,
        advantages: Tensor::from_slice(&advantages).to_device(device),
        returns: Tensor::from_slice(&returns).to_device(device),
        kl: kl.iter().map(|k| f64::from(*k)).sum::<f64>() / kl.len().max(1) as f64,
        host: HostSide { rewards: by_sequence, advantages, returns, values },
        sequences,
        lengths,
    }
}
