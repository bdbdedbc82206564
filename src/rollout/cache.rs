//! The key-value cache of one batch: static buffers, every row's next token in the same slot.
//!
//! Prompts of different lengths are right-aligned, so that a decoding step writes one slot of all rows in place; the
//! slots before a row's prompt, and those to come, are masked by a bias of -inf. On a CPU a loop of ours reads the
//! cache instead, from each row's first slot on, and rows that are no longer decoded stay where they are: nothing is
//! copied.
//!
//! Shapes: P prompts, R rows (samples of prompts), T slots, W slots of the prompts, N query heads, K key-value heads,
//! D head dimension.

use crate::model::{Attend, Causal, KeyValues, Policy, Projected, masked_attention};
use crate::torch::{NewToken, Row, attend_one, is_fused, on_device};
use tch::{Kind, Tensor};

/// Keys and values of R rows over at most T slots.
pub struct KvCache {
    /// For each layer [R, K, T, D]; if `fused`, keys are a view of [R, K, D, T], in which those of one dimension are
    /// neighbours.
    layers: Vec<KeyValues>,
    /// 0 where a row's tokens are, elsewhere -inf, [R, 1, 1, 1, T]; unless `fused`.
    mask: Tensor,
    /// The slots that steps attend to, a view of the mask's first.
    bias: Tensor,
    filled: i64,
    /// The newest slot, [1], for steps that the host does not count; unless `fused`.
    slot: Tensor,
    /// Whether `attend_one` reads the cache.
    fused: bool,
    /// Of each row that is decoded, where it is in the layers and its first slot, [B] each; if `fused`.
    rows: Row,
    /// Empty slots before each prompt, [P].
    shift: Tensor,
    /// Rows per prompt.
    samples: i64,
}

impl KvCache {
    /// An empty cache for P prompts of these lengths, each `samples` times, and `new_tokens` more per row.
    pub fn new(policy: &Policy, lengths: &[i64], samples: i64, new_tokens: i64) -> Self {
        let (config, flat) = (&policy.config, policy.weights.flat());
        let (kind, device) = (flat.kind(), flat.device());
        let width = lengths.iter().copied().max().unwrap_or(0);
        let (rows, slots) = (lengths.len() as i64 * samples, width + new_tokens);
        let fused = is_fused(flat);
        let zeros =
            |last: [i64; 2]| Tensor::zeros([rows, config.num_key_value_heads, last[0], last[1]], (kind, device));
        let (plain, turned) = ([slots, config.head_dim], [config.head_dim, slots]);
        let keys = || if fused { zeros(turned).transpose(2, 3) } else { zeros(plain) };
        let layers = (0..config.num_hidden_layers).map(|_| KeyValues { keys: keys(), values: zeros(plain) }).collect();
        let shift = on_device(lengths, device).neg() + width; // [P]
        let slot = Tensor::arange(slots, (Kind::Int64, device)).unsqueeze(0);
        let empty = slot.lt_tensor(&shift.unsqueeze(1)).logical_or(&slot.ge(width)); // [P, T]
        let mask = Tensor::zeros(empty.size(), (kind, device)).masked_fill(&empty, f64::NEG_INFINITY);
        let mask = mask.repeat_interleave_self_int(samples, 0, None).view([rows, 1, 1, 1, slots]);
        let place = Tensor::arange(rows, (Kind::Int64, device));
        let rows = Row { place, start: shift.repeat_interleave_self_int(samples, 0, None) };
        let bias = mask.narrow(4, 0, width);
        let slot = on_device(&[width - 1], device);
        Self { layers, bias, mask, filled: width, slot, fused, rows, shift, samples }
    }

    /// The cache as a prefill fills it: `prompts` right-padded prompts, from the prompt `first` on.
    pub fn prefill(&self, first: i64, prompts: i64) -> Prefill<'_> {
        let slot = Tensor::arange(self.filled, (Kind::Int64, self.shift.device())).unsqueeze(0); // [1, W]
        // Slot j of a row holds its token j - shift; clamped, since masked slots may hold anything.
        let token = (slot - self.shift.narrow(0, first, prompts).unsqueeze(1)).clamp_min(0); // [P, W]
        Prefill { cache: self, rows: [first * self.samples, prompts * self.samples], token }
    }

    /// Opens the next slot for a decoding step, which attends to the slots so far; or, if it is not counted here but by
    /// `count`, to the first `extent`: as many or more, of which those to come are masked.
    pub fn advance(&mut self, extent: Option<i64>) {
        if extent.is_none() {
            self.count();
        }
        if !self.fused {
            self.slot += 1;
            let _ = self.mask.index_fill_(4, &self.slot, 0.0);
            self.bias = self.mask.narrow(4, 0, extent.unwrap_or(self.filled));
        }
    }

    /// Counts a slot that the host has not opened itself.
    pub fn count(&mut self) {
        self.filled += 1;
    }

    /// Slots so far, and slots in all.
    pub fn slots(&self) -> (i64, i64) {
        (self.filled, self.mask.size()[4])
    }

    /// Keeps only the rows of these indices [R'].
    pub fn keep(&mut self, rows: &Tensor) {
        let pick = |x: &Tensor| x.index_select(0, rows);
        if self.fused {
            self.rows = Row { place: pick(&self.rows.place), start: pick(&self.rows.start) };
            return;
        }
        for layer in &mut self.layers {
            *layer = KeyValues { keys: pick(&layer.keys), values: pick(&layer.values) };
        }
        self.mask = pick(&self.mask);
    }
}

/// A decoding step: writes its token's keys and values into the open slot and attends to all slots so far.
impl Attend for KvCache {
    fn attend(&self, layer: usize, new: &Projected) -> Tensor {
        let layer = &self.layers[layer];
        if self.fused {
            let Projected { queries, keys, values, rotation, .. } = new;
            let new = NewToken { queries, keys, values, rotation: rotation.halves() };
            return attend_one(&new, &layer.keys.transpose(2, 3), &layer.values, &self.rows, self.filled - 1);
        }
        let (queries, new) = (new.queries(new.scale()), new.key_values());
        let extent = self.bias.size()[4];
        let put = |all: &Tensor, new: &Tensor| {
            let _ = all.shallow_clone().index_copy_(2, &self.slot, new);
            all.narrow(2, 0, extent) // [R, K, extent, D]
        };
        let all = KeyValues { keys: put(&layer.keys, &new.keys), values: put(&layer.values, &new.values) };
        masked_attention(&queries, &all, &self.bias)
    }
}

/// A prefill: attends causally and writes the prompts' keys and values into their rows of the cache.
pub struct Prefill<'a> {
    cache: &'a KvCache,
    /// First row and number of rows.
    rows: [i64; 2],
    /// Which token of its prompt each slot holds, [P, W].
    token: Tensor,
}

impl Attend for Prefill<'_> {
    fn attend(&self, layer: usize, new: &Projected) -> Tensor {
        let (own, cached) = (new.key_values(), &self.cache.layers[layer]);
        let [first, rows] = self.rows;
        for (all, new) in [(&cached.keys, &own.keys), (&cached.values, &own.values)] {
            let (prompts, k, width, d) = (new.size()[0], new.size()[1], self.cache.filled, new.size()[3]);
            let token = self.token.view([prompts, 1, width, 1]).expand([prompts, k, width, d], false);
            let aligned = new.gather(2, &token, false).repeat_interleave_self_int(self.cache.samples, 0, None);
            all.narrow(0, first, rows).narrow(2, 0, width).copy_(&aligned); // [rows, K, W, D]
        }
        Causal::new(&new.queries).attend(layer, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Steer, Weights};
    use crate::torch::{padded, test_device, to_host};
    use tch::Device;

    /// Prompts of uneven length, two rows each, and three more tokens per row; with a constant that
    /// is added after the first layer, which must act the same.
    #[test]
    fn prefill_and_steps_are_the_full_forward() {
        // The slots to come make no difference.
        for (fused, extent) in [(true, None), (false, None), (false, Some(7))] {
            if !fused || test_device() == Device::Cpu {
                prefill_and_steps(fused, extent);
            }
        }
    }

    fn prefill_and_steps(fused: bool, extent: Option<i64>) {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32, "initializer_range": 0.5}"#,
        )
        .unwrap();
        let weights = Weights::random(&config, Head::Language, Kind::Float, test_device(), 5).unwrap();
        let policy = Policy::new(&config, weights);
        let constant = on_device(&[0.5f32; 8], test_device()).view([1, 1, 8]);
        let mut steer = Steer { layer: 0, added: constant, from: 0 };
        let (prompts, new) = ([vec![3, 1, 4, 1], vec![5], vec![9, 2]], [[6, 5, 3], [5, 8, 9]]);
        let lengths = [4, 1, 2];

        let mut cache = KvCache::new(&policy, &lengths, 2, 3);
        cache.fused = fused;
        for first in [0, 2] {
            // The second part is narrower than the cache.
            let part = &prompts[first..(first + 2).min(3)];
            let prefill = cache.prefill(first as i64, part.len() as i64);
            let _ = policy.decoder.prefill(&padded(part, test_device()), &prefill, &mut steer);
        }
        let start = on_device(&lengths, test_device()).repeat_interleave_self_int(2, 0, None); // [R]
        for t in 0..3 {
            cache.advance(extent);
            let tokens = on_device(&new.map(|row| row[t]), test_device()).repeat([3]); // [R]
            let hidden = policy.decoder.step(&tokens, &(&start + t as i64), &cache, &mut steer);
            for row in 0..6 {
                let whole = [&prompts[row / 2], &new[row % 2][..=t]].concat();
                let whole = policy.decoder.forward_tapped(&padded(&[whole], test_device()), &mut steer);
                let expected = to_host(&whole.select(1, -1));
                let found = to_host(&hidden.get(row as i64));
                let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "step {t}, row {row}: {worst}");
            }
        }
    }
}
