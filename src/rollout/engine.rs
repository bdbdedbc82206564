//! The rollout engine: one prefill a prompt, then one token a row and step until every row has ended.
//!
//! What a row draws depends on its own random stream alone, never on the batch it shares. Ended rows leave the batch as
//! soon as they are an eighth of it. The host looks at the tokens every `look` steps: each on a CPU, where it costs
//! nothing, every eighth on a GPU; what a row drew after its end is dropped there.

use super::cache::KvCache;
use super::sampler::Sampling;
use crate::model::Policy;
use crate::torch::{ids_to_host, padded, to_host};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use tch::{Device, Tensor};

/// Prompt tokens, with padding, that are read at a time: bounds the prefill's working memory.
pub const PREFILL_TOKENS: usize = 16_384;

/// When a response ends.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Any of these ids ends it; the id is part of the response.
    pub tokens: Vec<i64>,
    /// Longest response in tokens, its stop token included.
    pub max_tokens: usize,
}

/// What was generated for one sample of one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub ids: Vec<i64>,
    /// Log-prob of each token as the sampler saw it, in nats.
    pub log_probs: Vec<f32>,
    /// Whether a stop token ended it; otherwise it was cut.
    pub terminated: bool,
}

/// Generates with one policy.
pub struct Engine<'a> {
    pub policy: &'a Policy,
    pub sampling: Sampling,
    pub stop: Stop,
    /// Ids from here on are never drawn (the tokenizer does not know them).
    pub vocabulary: i64,
    /// Rows decoded at a time (0: all).
    pub batch: usize,
}

impl Engine<'_> {
    /// Generates `samples` responses for each prompt, prompt after prompt.
    ///
    /// `stream` gives the random stream of (prompt, sample); `watch` is shown the responses of a batch, as far as they
    /// are written, whenever the host looks.
    pub fn generate<P: AsRef<[i64]>>(
        &self,
        prompts: &[P],
        samples: usize,
        stream: impl Fn(usize, usize) -> ChaCha8Rng,
        mut watch: impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let together = if self.batch == 0 { prompts.len().max(1) } else { (self.batch / samples).max(1) };
        let mut responses = Vec::with_capacity(prompts.len() * samples);
        for (chunk, prompts) in prompts.chunks(together).enumerate() {
            let stream = |row: usize| stream(chunk * together + row / samples, row % samples);
            responses.extend(tch::no_grad(|| self.batch(prompts, samples, stream, &mut watch)));
        }
        responses
    }

    fn batch<P: AsRef<[i64]>>(
        &self,
        prompts: &[P],
        samples: usize,
        stream: impl Fn(usize) -> ChaCha8Rng,
        watch: &mut impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let look = if self.policy.device() == Device::Cpu { 1 } else { 8 };
        let max = self.stop.max_tokens;
        let mut responses = vec![Response::default(); prompts.len() * samples];
        let (mut batch, mut hidden) = Batch::start(self.policy, prompts, samples, max, stream);
        let mut unseen = Vec::with_capacity(look);
        for t in 0..max {
            let uniform = batch.uniforms.select(1, t as i64);
            let (mut tokens, log_probs) = self.sampling.pick(&self.policy.logits(&hidden), self.vocabulary, &uniform);
            unseen.push((tokens.shallow_clone(), log_probs));
            let last = t + 1 == max;
            if last || unseen.len() == look {
                self.look(&mut unseen, &batch.rows, &mut responses);
                watch(&responses);
                let live: Vec<i64> =
                    (0..batch.rows.len() as i64).filter(|&i| !responses[batch.rows[i as usize]].terminated).collect();
                if last || live.is_empty() {
                    break;
                }
                if live.len() * 8 <= batch.rows.len() * 7 {
                    tokens = batch.keep(&live, &tokens);
                }
            }
            hidden = batch.step(self.policy, &tokens);
        }
        responses
    }

    /// Moves the steps the host has not seen, (tokens, log-probs) [B] each, into the responses of `rows`.
    fn look(&self, unseen: &mut Vec<(Tensor, Tensor)>, rows: &[usize], responses: &mut [Response]) {
        let (tokens, log_probs): (Vec<_>, Vec<_>) = unseen.drain(..).unzip();
        let tokens = ids_to_host(&Tensor::stack(&tokens, 0)); // [steps, B]
        let log_probs = to_host(&Tensor::stack(&log_probs, 0));
        for (i, (&token, &log_prob)) in tokens.iter().zip(&log_probs).enumerate() {
            let response = &mut responses[rows[i % rows.len()]];
            if !response.terminated {
                response.ids.push(token);
                response.log_probs.push(log_prob);
                response.terminated = self.stop.tokens.contains(&token);
            }
        }
    }
}

/// The rows being decoded.
struct Batch {
    /// Which response each row extends.
    rows: Vec<usize>,
    /// Where each row's next token stands in its sequence, [B].
    positions: Tensor,
    /// One random number for each token to come, [B, max].
    uniforms: Tensor,
    cache: KvCache,
}

impl Batch {
    /// Reads the prompts; returns the rows and the hidden states [B, H] that predict their first tokens.
    fn start<P: AsRef<[i64]>>(
        policy: &Policy,
        prompts: &[P],
        samples: usize,
        max: usize,
        stream: impl Fn(usize) -> ChaCha8Rng,
    ) -> (Self, Tensor) {
        let device = policy.device();
        let rows: Vec<usize> = (0..prompts.len() * samples).collect();
        let repeat = |x: Tensor| x.repeat_interleave_self_int(samples as i64, 0, None);

        let lengths: Vec<i64> = prompts.iter().map(|p| p.as_ref().len() as i64).collect();
        let mut cache = KvCache::new(policy, &lengths, samples as i64, max as i64);
        let longest = prompts.iter().map(|p| p.as_ref().len()).max().unwrap_or(0).max(1);
        let together = (PREFILL_TOKENS / longest).max(1);
        let parts: Vec<Tensor> = prompts
            .chunks(together)
            .enumerate()
            .map(|(i, part)| {
                let (hidden, prefill) = policy.decoder.prefill(&padded(part, device));
                cache.fill((i * together) as i64, &prefill);
                let width = hidden.size()[1];
                let last: Vec<i64> =
                    part.iter().zip(0..).map(|(p, row)| row * width + p.as_ref().len() as i64 - 1).collect();
                hidden.flatten(0, 1).index_select(0, &Tensor::from_slice(&last).to_device(device))
            })
            .collect();
        let hidden = Tensor::cat(&parts, 0); // [P, H]
        let lengths = Tensor::from_slice(&lengths).to_device(device); // [P]

        let mut uniforms = Vec::with_capacity(rows.len() * max);
        for &row in &rows {
            let mut rng = stream(row);
            uniforms.extend((0..max).map(|_| rng.random::<f32>()));
        }
        let uniforms = Tensor::from_slice(&uniforms).view([rows.len() as i64, max as i64]).to_device(device);
        (Self { rows, positions: repeat(lengths), uniforms, cache }, repeat(hidden))
    }

    /// Reads one token a row, [B]; returns the hidden states [B, H] that predict the next.
    fn step(&mut self, policy: &Policy, tokens: &Tensor) -> Tensor {
        self.cache.advance();
        let hidden = policy.decoder.step(tokens, &self.positions, &mut self.cache);
        self.positions += 1;
        hidden
    }

    /// Drops all rows but these; returns their tokens.
    fn keep(&mut self, live: &[i64], tokens: &Tensor) -> Tensor {
        self.rows = live.iter().map(|&i| self.rows[i as usize]).collect();
        let index = Tensor::from_slice(live).to_device(tokens.device());
        self.cache.keep(&index);
        self.positions = self.positions.index_select(0, &index);
        self.uniforms = self.uniforms.index_select(0, &index);
        tokens.index_select(0, &index)
    }
}
