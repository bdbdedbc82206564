//! The key-value cache of one batch: static buffers, every row's next token at the same slot.
//!
//! Prompts of different lengths lie right-aligned, so that one decoding step writes one slot of all rows in place; what
//! lies before a row's prompt is masked by a bias of -inf.

use crate::model::Policy;
use crate::model::decoder::{Cache, KeyValues};
use tch::{Kind, Tensor};

/// Keys and values of B rows over at most T slots.
pub struct KvCache {
    /// For each layer [B, K, T, D].
    layers: Vec<KeyValues>,
    /// 0 or -inf, [B, 1, 1, T].
    mask: Tensor,
    /// The first `filled` slots, a view of `mask`.
    bias: Tensor,
    filled: i64,
    /// Empty slots before each prompt, [P].
    shift: Tensor,
    /// Rows of a prompt.
    samples: i64,
}

impl KvCache {
    /// An empty cache for P prompts of these lengths, each `samples` times, and `new_tokens` more a row.
    pub fn new(policy: &Policy, lengths: &[i64], samples: i64, new_tokens: i64) -> Self {
        let (config, flat) = (&policy.config, policy.weights.flat());
        let (kind, device) = (flat.kind(), flat.device());
        let width = lengths.iter().copied().max().unwrap_or(0);
        let (rows, slots) = (lengths.len() as i64 * samples, width + new_tokens);
        let zeros = || Tensor::zeros([rows, config.num_key_value_heads, slots, config.head_dim], (kind, device));
        let layers = (0..config.num_hidden_layers).map(|_| KeyValues { keys: zeros(), values: zeros() }).collect();
        let shift = Tensor::from_slice(lengths).to_device(device).neg() + width; // [P] empty slots before each prompt
        let empty = Tensor::arange(slots, (Kind::Int64, device)).unsqueeze(0).lt_tensor(&shift.unsqueeze(1)); // [P, T]
        let mask = Tensor::zeros(empty.size(), (kind, device)).masked_fill(&empty, f64::NEG_INFINITY);
        let mask = mask.repeat_interleave_self_int(samples, 0, None).unsqueeze(1).unsqueeze(1);
        Self { layers, bias: mask.narrow(3, 0, width), mask, filled: width, shift, samples }
    }

    /// Takes up the prefill of some of the prompts, right-padded, from the prompt `first` on.
    pub fn fill(&mut self, first: i64, prefill: &[KeyValues]) {
        let Some((prompts, k, _, d)) = prefill.first().and_then(|kv| kv.keys.size4().ok()) else { return };
        let width = self.filled;
        let slot = Tensor::arange(width, (Kind::Int64, self.shift.device()));
        // Slot j of a row holds its token j - shift; clamped, since what is masked may hold anything.
        let shift = self.shift.narrow(0, first, prompts).unsqueeze(1);
        let source = (slot.unsqueeze(0) - shift).clamp_min(0).view([prompts, 1, width, 1]);
        let source = source.expand([prompts, k, width, d], false);
        for (layer, new) in self.layers.iter().zip(prefill) {
            for (all, new) in [(&layer.keys, &new.keys), (&layer.values, &new.values)] {
                let rows = all.narrow(0, first * self.samples, prompts * self.samples).narrow(2, 0, width);
                let new = new.gather(2, &source, false);
                rows.shallow_clone().copy_(&new.repeat_interleave_self_int(self.samples, 0, None));
            }
        }
    }

    /// Opens the next slot for a decoding step.
    pub fn advance(&mut self) {
        self.filled += 1;
        self.bias = self.mask.narrow(3, 0, self.filled);
    }

    /// Keeps the rows of these indices [B'], and of the slots those up to now.
    pub fn keep(&mut self, rows: &Tensor) {
        let pick = |x: &Tensor| x.index_select(0, rows);
        for layer in &mut self.layers {
            *layer = KeyValues { keys: pick(&layer.keys), values: pick(&layer.values) };
        }
        self.mask = pick(&self.mask);
        self.bias = self.mask.narrow(3, 0, self.filled);
    }
}

impl Cache for KvCache {
    fn extend(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> KeyValues {
        let layer = &self.layers[layer];
        let put = |all: &Tensor, new: &Tensor| {
            all.narrow(2, self.filled - 1, 1).copy_(new);
            all.narrow(2, 0, self.filled)
        };
        KeyValues { keys: put(&layer.keys, keys), values: put(&layer.values, values) }
    }

    fn bias(&self) -> &Tensor {
        &self.bias
    }
}
