//! The rollout engine: prefill each prompt once, then extend every live row by one token per step.
//!
//! What a row draws depends only on its own random stream, never on the batch it is in. Ended rows leave the batch as
//! soon as they make up an eighth of it. The host fetches the tokens at every step on a CPU, where that costs nothing,
//! and at every eighth step on a GPU (`FarAway`); tokens that a row drew after its end are then dropped.

use super::batch::{Batch, Start};
use super::constraint::Constraint;
use super::far_away::FarAway;
use super::sampler::Sampling;
use super::steering::Steering;
use crate::model::Policy;
use crate::torch::{ids_to_host, is_fused, on_device, to_host};
use rand::rngs::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Tokens of each row that are drawn before the host looks at them, where it is far away.
const INTERVAL: usize = 8;

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
        let (policy, max_tokens) = (self.policy, self.stop.max_tokens);
        let start = Start { policy, max_tokens, steering: self.steering, goes_on: self.goes_on };
        let mut responses = vec![Response::default(); prompts.len() * samples];
        if let Some((batch, hidden)) = Batch::start(&start, prompts, samples, first, stream) {
            // Where a constraint does not ask for every token, and looking at one is not free, the host keeps away.
            if held.is_some() || is_fused(policy.weights.flat()) {
                self.draw_nearby(decoding, batch, hidden, (first, held), &mut responses, watch);
            } else {
                self.draw_far_away(batch, hidden, first, &mut responses, watch);
            }
        }
        responses
    }

    /// Draws tokens of which the host sees each before the next.
    fn draw_nearby(
        &self,
        decoding: &mut Decoding,
        mut batch: Batch,
        mut hidden: Tensor,
        (first, held): (usize, &mut Option<Constraint>),
        responses: &mut [Response],
        watch: &mut impl FnMut(&[Response]),
    ) {
        let max = self.stop.max_tokens;
        for t in 0..max {
            let uniform = batch.uniforms.select(1, t as i64);
            let policy = decoding.next();
            let mut logits = policy.logits(&hidden);
            if let Some(constraint) = held {
                logits = logits.to_kind(Kind::Float);
                logits = constraint.mask(&logits, batch.rows.iter().map(|row| first + row), max - t - 1);
            }
            let (mut tokens, log_probs) = self.sampling.pick(&logits, self.vocabulary, &uniform);
            self.take((&tokens, &log_probs), &batch.rows, (first, held), responses);
            watch(responses);
            let live = live(&batch.rows, responses);
            if t + 1 == max || live.is_empty() || !(self.goes_on)() {
                break;
            }
            if few(&live, &batch.rows) {
                let index = on_device(&live, tokens.device());
                batch.keep(&live, &index);
                tokens = tokens.index_select(0, &index);
            }
            hidden = batch.step(policy, &tokens, None);
        }
    }

    /// Draws tokens of which the host sees several at a time.
    fn draw_far_away(
        &self,
        batch: Batch,
        hidden: Tensor,
        first: usize,
        responses: &mut [Response],
        watch: &mut impl FnMut(&[Response]),
    ) {
        let max = self.stop.max_tokens;
        let mut far = FarAway::new((self.policy, &self.sampling, self.vocabulary), batch, hidden, max);
        while far.drawn() < max {
            let count = INTERVAL.min(max - far.drawn());
            let (tokens, log_probs) = far.draw(count);
            self.take((&tokens, &log_probs), far.rows(), (first, &mut None), responses);
            watch(responses);
            let live = live(far.rows(), responses);
            if far.drawn() == max || live.is_empty() || !(self.goes_on)() {
                break;
            }
            if few(&live, far.rows()) {
                far.keep(&live);
            }
        }
    }

    /// Moves tokens and their log-probs, [B] of one step or [steps, B], to the host and into the responses of `rows`.
    fn take(
        &self,
        (tokens, log_probs): (&Tensor, &Tensor),
        rows: &[usize],
        (first, held): (usize, &mut Option<Constraint>),
        responses: &mut [Response],
    ) {
        for (i, (token, log_prob)) in ids_to_host(tokens).into_iter().zip(to_host(log_probs)).enumerate() {
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

/// The places among `rows` of those whose responses have not ended.
fn live(rows: &[usize], responses: &[Response]) -> Vec<i64> {
    (0..rows.len() as i64).filter(|&i| !responses[rows[i as usize]].terminated).collect()
}

/// Whether so many rows have ended that the others go on by themselves.
fn few(live: &[i64], rows: &[usize]) -> bool {
    live.len() * 8 <= rows.len() * 7
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Weights};
    use crate::rng::{self, Purpose};
    use crate::torch::{own_stream, test_device};
    use tch::Device;

    /// Rows that end at different tokens, prompts of different lengths, more slots than a graph attends to at once;
    /// with graphs on a GPU, elsewhere in float64, which has no loops of its own.
    #[test]
    fn tokens_are_the_same_from_near_and_far() {
        std::thread::spawn(|| tch::no_grad(near_and_far)).join().unwrap();
    }

    fn near_and_far() {
        let device = test_device();
        own_stream(device).unwrap();
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 512, "tie_word_embeddings": true,
                "initializer_range": 0.5}"#,
        )
        .unwrap();
        let kind = if device == Device::Cpu { Kind::Double } else { Kind::Float };
        let policy = Policy::new(&config, Weights::random(&config, Head::Language, kind, device, 5).unwrap());
        let prompts = [vec![3i64, 1, 4, 1], vec![5], (0..120).map(|i| i % 24).collect()];
        let engine = Engine {
            policy: &policy,
            sampling: Sampling::plain(),
            stop: Stop {
                ends: &|row, ids| ids.len() > 3 + 7 * row && ids.ends_with(&[row as i64 % 24]),
                max_tokens: 150,
            },
            vocabulary: 20,
            batch: 0,
            goes_on: &|| true,
            steering: None,
        };
        let stream = |row: usize| rng::stream(5, Purpose::Rollout, 0, row as u64);
        let how = Start { policy: &policy, max_tokens: 150, steering: None, goes_on: &|| true };
        let start = || Batch::start(&how, &prompts, 4, 0, stream).unwrap();
        let mut near = vec![Response::default(); 12];
        let mut decoding = Decoding { plain: &policy, packed: None, steps: 0 };
        let (batch, hidden) = start();
        engine.draw_nearby(&mut decoding, batch, hidden, (0, &mut None), &mut near, &mut |_| ());
        let mut far = vec![Response::default(); 12];
        let (batch, hidden) = start();
        engine.draw_far_away(batch, hidden, 0, &mut far, &mut |_| ());
        assert!(near.iter().any(|response| response.terminated) && near.iter().any(|r| r.ids.len() == 150));
        for (near, far) in near.iter().zip(&far) {
            assert_eq!((&near.ids, near.terminated), (&far.ids, far.terminated));
            let worst = near.log_probs.iter().zip(&far.log_probs).map(|(n, f)| (n - f).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{worst}");
        }
    }

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
