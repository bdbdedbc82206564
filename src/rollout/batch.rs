//! The rows that are decoded together: their places in the cache, and the random numbers they will draw.

use super::cache::KvCache;
use super::steering::Steering;
use crate::model::{Policy, Steer};
use crate::torch::{on_device, padded, trim};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use std::iter::repeat_n;
use tch::Tensor;

/// Prompt tokens, padding included, per prefill: bounds its working memory.
pub const PREFILL_TOKENS: usize = 16_384;

/// How rows are begun.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    pub policy: &'a Policy,
    /// Longest response in tokens.
    pub max_tokens: usize,
    pub steering: Option<&'a Steering>,
    /// Asked between prefills.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// The rows being decoded.
pub struct Batch {
    /// Which response each row extends.
    pub rows: Vec<usize>,
    /// The position of each row's next token in its sequence, [B].
    pub positions: Tensor,
    /// One random number in [0, 1) for each token to come, [B, max].
    pub uniforms: Tensor,
    pub cache: KvCache,
    /// What is added to each row.
    steer: Option<Steer>,
}

impl Batch {
    /// Reads the prompts; returns the rows, which extend the responses from the number `first` on, and the hidden
    /// states [B, H] that predict their first tokens, or nothing if it shall not go on.
    pub fn start(
        how: &Start,
        prompts: &[impl AsRef<[i64]>],
        samples: usize,
        first: usize,
        stream: impl Fn(usize) -> ChaCha8Rng,
    ) -> Option<(Self, Tensor)> {
        let Start { policy, max_tokens: max, steering, goes_on } = *how;
        let device = policy.device();
        let rows: Vec<usize> = (0..prompts.len() * samples).collect();
        let steer = steering.map(|steering| steering.rows(first..first + rows.len(), policy));
        let steered_from = steering.and_then(Steering::prompt_from);
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
                if i > 0 && !goes_on() {
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

    /// Reads one token per row, [B]; returns the hidden states [B, H] that predict the next. `extent`: as of
    /// `KvCache::advance`.
    pub fn step(&mut self, policy: &Policy, tokens: &Tensor, extent: Option<i64>) -> Tensor {
        self.cache.advance(extent);
        let hidden = policy.decoder.step(tokens, &self.positions, &self.cache, &mut self.steer);
        self.positions += 1;
        hidden
    }

    /// Drops all rows except those of the indices `live`, which are on the device too, [B'].
    pub fn keep(&mut self, live: &[i64], index: &Tensor) {
        self.rows = live.iter().map(|&i| self.rows[i as usize]).collect();
        self.cache.keep(index);
        self.positions = self.positions.index_select(0, index);
        self.uniforms = self.uniforms.index_select(0, index);
        self.steer = self.steer.as_ref().map(|steer| steer.pick(index));
        trim();
    }
}
