//! The rollout engine: prefill each prompt once, then extend every row by one token per step.
//!
//! What a row draws depends only on its own random stream, never on the batch it is in. As soon as an eighth of the
//! rows have ended, the next prompts take their places, or, when there are none left, the rows leave the batch. The
//! host fetches the tokens at every step on a CPU, where that costs nothing (`Near`), and at every eighth step on a GPU
//! (`FarAway`); tokens that a row drew after its end are then dropped.

use super::batch::{Batch, Request};
use super::constraint::Constraint;
use super::far_away::FarAway;
use super::near::Near;
use super::progress::{Drawing, Progress, Response, Stop};
use super::sampler::Sampling;
use super::steering::Steering;
use crate::model::Policy;
use crate::torch::is_fused;
use rand::rngs::ChaCha8Rng;
use std::ops::Range;

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
    /// incomplete.
    pub goes_on: &'a dyn Fn() -> bool,
    /// What is added to the residual stream, for as many responses as are generated.
    pub steering: Option<&'a Steering>,
}

impl Engine<'_> {
    /// Generates `samples` responses for each of the prompts, which must not be empty; prompt by prompt.
    ///
    /// `stream` returns the random stream of (prompt, sample). `watch` gets the responses so far, whenever the host has
    /// fetched new tokens.
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
        held: Option<Constraint>,
        stream: impl Fn(usize, usize) -> ChaCha8Rng,
        watch: impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let prompts: Vec<&[i64]> = prompts.iter().map(AsRef::as_ref).collect();
        let responses = vec![Response::default(); prompts.len() * samples];
        let mut progress = Progress { stop: &self.stop, responses, held };
        let request = Request {
            policy: self.policy,
            prompts: &prompts,
            samples,
            max_tokens: self.stop.max_tokens,
            stream: &|number| stream(number / samples, number % samples),
            steering: self.steering,
            goes_on: self.goes_on,
        };
        tch::no_grad(|| self.write(request, &mut progress, watch));
        progress.responses
    }

    /// Writes all responses.
    fn write(&self, request: Request, progress: &mut Progress, mut watch: impl FnMut(&[Response])) {
        let (prompts, samples) = (request.prompts.len(), request.samples);
        let together = if self.batch == 0 { prompts } else { (self.batch / samples).clamp(1, prompts.max(1)) };
        if progress.responses.is_empty() || request.max_tokens == 0 {
            return;
        }
        let Some(batch) = Batch::start(request, together) else { return };
        let how = (self.policy, &self.sampling, self.vocabulary);
        // Where a constraint does not ask for every token, and looking at one is not free, the host keeps away.
        if progress.held.is_some() || is_fused(self.policy.weights.flat()) {
            self.draw(Near::new(how, batch), together..prompts, samples, progress, &mut watch);
        } else {
            self.draw(FarAway::new(how, batch), together..prompts, samples, progress, &mut watch);
        }
    }

    /// Draws until all rows have ended, and those of the prompts in the queue, whose responses take their places.
    fn draw(
        &self,
        mut drawing: impl Drawing,
        mut queue: Range<usize>,
        samples: usize,
        progress: &mut Progress,
        watch: &mut impl FnMut(&[Response]),
    ) {
        loop {
            let (tokens, log_probs) = drawing.draw(progress);
            progress.take(&tokens, &log_probs, drawing.rows());
            watch(&progress.responses);
            let rows = drawing.rows();
            let (ended, live): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&i| progress.has_ended(rows[i]));
            if (live.is_empty() && queue.is_empty()) || !(self.goes_on)() {
                return;
            }
            if ended.len() * 8 < rows.len() {
                continue;
            }
            let next = queue.start..queue.end.min(queue.start + ended.len() / samples);
            if queue.is_empty() {
                drawing.keep(&live.into_iter().map(|row| row as i64).collect::<Vec<_>>());
            } else if !next.is_empty() {
                queue.start = next.end;
                if !drawing.replace(&ended[..next.len() * samples], next) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Weights};
    use crate::rng::{self, Purpose};
    use crate::torch::{own_stream, test_device};
    use tch::{Device, Kind};

    fn policy(kind: Kind, device: Device) -> Policy {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 512, "tie_word_embeddings": true,
                "initializer_range": 0.5}"#,
        )
        .unwrap();
        Policy::new(&config, Weights::random(&config, Head::Language, kind, device, 5).unwrap())
    }

    /// 24 responses by a policy, so many at a time: to prompts of different lengths, one with more slots than a graph
    /// attends to at once, which end at different tokens, some of them not by themselves.
    fn written(policy: &Policy, batch: usize, goes_on: &dyn Fn() -> bool) -> Vec<Response> {
        let long: Vec<i64> = (0..120).map(|i| i % 24).collect();
        let prompts = [vec![3i64, 1, 4, 1], vec![5], long, vec![2, 2], vec![7, 1, 8], vec![2]];
        let ends = |row: usize, ids: &[i64]| {
            !row.is_multiple_of(5) && ids.len() > 3 + (29 * row) % 90 && ids.ends_with(&[row as i64 % 24])
        };
        let engine = Engine {
            policy,
            sampling: Sampling::plain(),
            stop: Stop { ends: &ends, max_tokens: 150 },
            vocabulary: 20,
            batch,
            goes_on,
            steering: None,
        };
        let stream = |prompt: usize, sample: usize| rng::stream(5, Purpose::Rollout, prompt as u64, sample as u64);
        engine.generate(&prompts, 4, stream, |_| ())
    }

    #[track_caller]
    fn assert_same(found: &[Response], expected: &[Response]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!((&found.ids, found.terminated), (&expected.ids, expected.terminated));
            let pairs = found.log_probs.iter().zip(&expected.log_probs);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{worst}");
        }
    }

    /// All at once, and where a response takes the place of another that has ended; drawn near (in float32 on a CPU)
    /// and far away (in float64, which has no loops of its own, or on a GPU with graphs).
    #[test]
    fn responses_are_the_same_however_they_are_drawn() {
        let write = |kind: Kind, device: Device| {
            // The thread gets a stream of its own.
            let write = move || {
                own_stream(device).unwrap();
                let policy = policy(kind, device);
                [0, 4, 9, 12, 20].map(|batch| written(&policy, batch, &|| true))
            };
            std::thread::spawn(write).join().unwrap()
        };
        let [near, others @ ..] = write(Kind::Float, Device::Cpu);
        assert!(near.iter().any(|response| response.terminated) && near.iter().any(|r| r.ids.len() == 150));
        others.iter().for_each(|other| assert_same(other, &near));
        let far = match test_device() {
            Device::Cpu => write(Kind::Double, Device::Cpu),
            gpu => write(Kind::Float, gpu),
        };
        far.iter().for_each(|far| assert_same(far, &near));
    }

    #[test]
    fn a_rollout_that_is_stopped_leaves_what_it_has() {
        let policy = policy(Kind::Float, Device::Cpu);
        let whole = written(&policy, 8, &|| true);
        for most in [0, 1, 40, 200] {
            let asked = std::cell::Cell::new(0);
            let goes_on = || {
                asked.set(asked.get() + 1);
                asked.get() <= most
            };
            let part = written(&policy, 8, &goes_on);
            assert_eq!((part.len(), asked.get()), (24, most + 1));
            for (part, whole) in part.iter().zip(&whole) {
                assert!(whole.ids.starts_with(&part.ids));
            }
        }
    }
}
