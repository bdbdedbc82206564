//! The rollout engine: prefill each prompt once, then extend every live row by one token per step.
//!
//! What a row draws depends only on its own random stream, never on the batch it is in. Ended rows leave the batch as
//! soon as they make up an eighth of it. The host fetches the tokens at every step on a CPU, where that costs nothing,
//! and at every eighth step on a GPU; tokens that a row drew after its end are then dropped.

use super::cache::KvCache;
use super::constraint::Constraint;
use super::sampler::Sampling;
use super::steering::Steering;
use crate::model::{Policy, Steer};
use crate::torch::{ids_to_host, on_device, padded, to_host, trim};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use std::iter::repeat_n;
use tch::{Device, Kind, Tensor};

/// Prompt tokens, padding included, per prefill: bounds its working memory.
pub const PREFILL_TOKENS: usize = 16_384;

/// Steps of decoding after which the weights are packed. That takes the time of a few steps, which only rollouts of
/// many get back; how many a rollout will have is not known, but where there were many there are likely to be more.
const PACKED_TOKENS: usize = 32;

/// When a response ends.
pub struct Stop<'a> {
    /// Whether a response, by its number, ends with the last of its ids so far, which stays part of it.
    pub ends: &'a dyn Fn(usize, &[i64]) -> bool,
    /// Longest response in tokens.
    pub max_tokens: usize,
}

/// What was generated for one sample of one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub ids: Vec<i64>,
    /// Log-prob of each token as the sampler saw it, in nats.
    pub log_probs: Vec<f32>,
    /// Whether it ended by itself; otherwise it was cut off.
    pub terminated: bool,
}

/// Generates responses with one policy.
pub struct Engine<'a> {
    pub policy: &'a Policy,
    pub sampling: Sampling,
    pub stop: Stop<'a>,
    /// Ids from here on are never drawn (the tokenizer does not know them).
    pub vocabulary: i64,
    /// Rows decoded at a time, rounded down to whole prompts (0: all).
    pub batch: usize,
    /// Asked between prefills and whenever the host has fetched new tokens whether to go on. If not, responses are
    /// incomplete, and there may be fewer of them.
    pub goes_on: &'a dyn Fn() -> bool,
    /// What is added to the residual stream, for as many responses as are generated.
    pub steering: Option<&'a Steering>,
}

impl Engine<'_> {
    /// Generates `samples` responses for each of the prompts, which must not be empty; prompt by prompt.
    ///
    /// `stream` returns the random stream of (prompt, sample). `watch` gets the responses of a batch so far, whenever
    /// the host has fetched new tokens.
    pub fn generate(
        &self,
        prompts: &[impl AsRef<[i64]>],
        samples: usize,
        stream: impl Fn(usize, usize) -> ChaCha8Rng,
        watch: impl FnMut(&[Response]),
    ) -> Vec<Response> {
        self.generate_within(prompts, samples, None, stream, watch)
    }

    /// `generate`, with responses that a constraint holds to its grammars. A response then ends where its text is
    /// complete; `log_probs` are of the distribution over what may come next.
    pub fn generate_within(
        &self,
        prompts: &[impl AsRef<[i64]>],
        samples: usize,
        mut constraint: Option<Constraint>,
        stream: impl Fn(usize, usize) -> ChaCha8Rng,
        mut watch: impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let together = if self.batch == 0 { prompts.len().max(1) } else { (self.batch / samples).max(1) };
        let mut responses = Vec::with_capacity(prompts.len() * samples);
        // For all chunks: the weights do not change meanwhile.
        let mut decoding = Decoding { plain: self.policy, packed: None, steps: 0 };
        for (chunk, prompts) in prompts.chunks(together).enumerate() {
            if chunk > 0 && !(self.goes_on)() {
                break;
            }
            let stream = |row: usize| stream(chunk * together + row / samples, row % samples);
            let first = responses.len();
            let (decoding, held) = (&mut decoding, &mut constraint);
            responses
                .extend(tch::no_grad(|| self.batch(decoding, prompts, samples, (first, held), stream, &mut watch)));
        }
        responses
    }

    /// The responses of one batch; `decoding`: the policy for single tokens; `first`: the number of its first.
    fn batch(
        &self,
        decoding: &mut Decoding,
        prompts: &[impl AsRef<[i64]>],
        samples: usize,
        (first, held): (usize, &mut Option<Constraint>),
        stream: impl Fn(usize) -> ChaCha8Rng,
        watch: &mut impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let interval = if self.policy.device() == Device::Cpu || held.is_some() { 1 } else { 8 };
        let max = self.stop.max_tokens;
        let mut responses = vec![Response::default(); prompts.len() * samples];
        let start = Batch::start(self, prompts, samples, first, stream);
        let Some((mut batch, mut hidden)) = start else { return responses };
        let mut pending = Vec::with_capacity(interval);
        for t in 0..max {
            let uniform = batch.uniforms.select(1, t as i64);
            let policy = decoding.next();
            let mut logits = policy.logits(&hidden);
            if let Some(constraint) = held {
                logits = logits.to_kind(Kind::Float);
                logits = constraint.mask(&logits, batch.rows.iter().map(|row| first + row), max - t - 1);
            }
            let (mut tokens, log_probs) = self.sampling.pick(&logits, self.vocabulary, &uniform);
            pending.push((tokens.shallow_clone(), log_probs));
            let last = t + 1 == max;
            if last || pending.len() == interval {
                self.fetch(&mut pending, &batch.rows, (first, held), &mut responses);
                watch(&responses);
                let live: Vec<i64> =
                    (0..batch.rows.len() as i64).filter(|&i| !responses[batch.rows[i as usize]].terminated).collect();
                if last || live.is_empty() || !(self.goes_on)() {
                    break;
                }
                if live.len() * 8 <= batch.rows.len() * 7 {
                    tokens = batch.keep(&live, &tokens);
                }
            }
            hidden = batch.step(policy, &tokens);
        }
        responses
    }

    /// Moves the `pending` steps, (tokens, log-probs) [B] each, to the host and into the responses of `rows`.
    fn fetch(
        &self,
        pending: &mut Vec<(Tensor, Tensor)>,
        rows: &[usize],
        (first, held): (usize, &mut Option<Constraint>),
        responses: &mut [Response],
    ) {
        let (tokens, log_probs): (Vec<_>, Vec<_>) = pending.drain(..).unzip();
        let tokens = ids_to_host(&Tensor::stack(&tokens, 0)); // [steps, B]
        let log_probs = to_host(&Tensor::stack(&log_probs, 0)); // [steps, B]
        for (i, (&token, &log_prob)) in tokens.iter().zip(&log_probs).enumerate() {
            let row = rows[i % rows.len()];
            let response = &mut responses[row];
            if !response.terminated {
                response.ids.push(token);
                response.log_probs.push(log_prob);
                let complete = held.as_mut().is_some_and(|constraint| constraint.read(first + row, token));
                response.terminated = complete || (self.stop.ends)(first + row, &response.ids);
            }
        }
    }
}

/// The policy for single tokens, whose weights are packed once many steps have been decoded.
struct Decoding<'a> {
    plain: &'a Policy,
    packed: Option<Policy>,
    /// Steps so far.
    steps: usize,
}

impl Decoding<'_> {
    /// The policy for the next step.
    fn next(&mut self) -> &Policy {
        if self.steps == PACKED_TOKENS {
            self.packed = self.plain.packed();
        }
        self.steps += 1;
        self.packed.as_ref().unwrap_or(self.plain)
    }
}

/// The rows being decoded.
struct Batch {
    /// Which response each row extends.
    rows: Vec<usize>,
    /// The position of each row's next token in its sequence, [B].
    positions: Tensor,
    /// One random number in [0, 1) for each token to come, [B, max].
    uniforms: Tensor,
    cache: KvCache,
    /// What is added to each row.
    steer: Option<Steer>,
}

impl Batch {
    /// Reads the prompts; returns the rows, which extend the responses from the number `first` on, and the hidden
    /// states [B, H] that predict their first tokens, or nothing if it shall not go on.
    fn start(
        engine: &Engine,
        prompts: &[impl AsRef<[i64]>],
        samples: usize,
        first: usize,
        stream: impl Fn(usize) -> ChaCha8Rng,
    ) -> Option<(Self, Tensor)> {
        let (policy, max, device) = (engine.policy, engine.stop.max_tokens, engine.policy.device());
        let rows: Vec<usize> = (0..prompts.len() * samples).collect();
        let steer = engine.steering.map(|steering| steering.rows(first..first + rows.len(), policy));
        let steered_from = engine.steering.and_then(Steering::prompt_from);
        // Responses share what their prompt's tokens became, unless these are steered: each then has its own.
        let (copies, samples) = if steered_from.is_some() { (samples, 1) } else { (1, samples) };
        let prompts: Vec<&[i64]> = prompts.iter().flat_map(|prompt| repeat_n(prompt.as_ref(), copies)).collect();
        let repeat = |x: Tensor| x.repeat_interleave_self_int(samples as i64, 0, None);

        let lengths: Vec<i64> = prompts.iter().map(|prompt| prompt.len() as i64).collect();
        let cache = KvCache::new(policy, &lengths, samples as i64, max as i64);
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1) as usize;
        let together = (PREFILL_TOKENS / longest).max(1);
        let parts: Option<Vec<Tensor>> = prompts
            .chunks(together)
            .zip(lengths.chunks(together))
            .enumerate()
            .map(|(i, (prompts, lengths))| {
                if i > 0 && !(engine.goes_on)() {
                    return None;
                }
                let (first, count) = ((i * together) as i64, prompts.len() as i64);
                let steer = steer.as_ref().zip(steered_from);
                let mut steer = steer.map(|(steer, from)| steer.part(first, count, from as i64));
                let prefill = cache.prefill(first, count);
                let hidden = policy.decoder.prefill(&padded(prompts, device), &prefill, &mut steer); // [b, t, H]
                let width = hidden.size()[1];
                let last: Vec<i64> = lengths.iter().zip(0..).map(|(length, row)| row * width + length - 1).collect();
                Some(hidden.flatten(0, 1).index_select(0, &on_device(&last, device))) // [b, H]
            })
            .collect();
        let hidden = Tensor::cat(&parts?, 0); // [P, H]
        let lengths = on_device(&lengths, device); // [P]

        let mut uniforms = Vec::with_capacity(rows.len() * max);
        for &row in &rows {
            let mut rng = stream(row);
            uniforms.extend((0..max).map(|_| rng.random::<f32>()));
        }
        let uniforms = on_device(&uniforms, device).view([rows.len() as i64, max as i64]);
        Some((Self { rows, positions: repeat(lengths), uniforms, cache, steer }, repeat(hidden)))
    }

    /// Reads one token per row, [B]; returns the hidden states [B, H] that predict the next.
    fn step(&mut self, policy: &Policy, tokens: &Tensor) -> Tensor {
        self.cache.advance();
        let hidden = policy.decoder.step(tokens, &self.positions, &self.cache, &mut self.steer);
        self.positions += 1;
        hidden
    }

    /// Drops all rows except those of the indices `live`; returns their tokens, from `tokens` [B].
    fn keep(&mut self, live: &[i64], tokens: &Tensor) -> Tensor {
        self.rows = live.iter().map(|&i| self.rows[i as usize]).collect();
        let index = on_device(live, tokens.device());
        self.cache.keep(&index);
        self.positions = self.positions.index_select(0, &index);
        self.uniforms = self.uniforms.index_select(0, &index);
        self.steer = self.steer.as_ref().map(|steer| steer.pick(&index));
        trim();
        tokens.index_select(0, &index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Weights};

    #[test]
    fn weights_are_packed_once_many_tokens_were_decoded() {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32, "tie_word_embeddings": true}"#,
        )
        .unwrap();
        let weights = Weights::random(&config, Head::Language, Kind::BFloat16, Device::Cpu, 5).unwrap();
        let policy = Policy::new(&config, weights);
        let mut decoding = Decoding { plain: &policy, packed: None, steps: 0 };
        for _ in 0..PACKED_TOKENS {
            assert!(std::ptr::eq(decoding.next(), &policy));
        }
        // As far as this machine packs them at all.
        let packs = policy.packed().is_some();
        for _ in 0..2 {
            assert_eq!(std::ptr::eq(decoding.next(), &policy), !packs);
        }
    }
}
