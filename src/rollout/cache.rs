//! The key-value cache of one batch: static buffers, every row's next token at the same slot.
//!
//! Prompts of different lengths lie right-aligned, so that one decoding step writes one slot of all rows in place; what
//! lies before a row's prompt is masked by a bias of -inf.

use crate::model::ModelConfig;
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
}

impl KvCache {
    /// Takes the prefill of P right-padded prompts with `lengths`, each repeated for its `samples`, and leaves room for
    /// `new_tokens` more.
    pub fn new(config: &ModelConfig, prefill: Vec<KeyValues>, lengths: &[i64], samples: i64, new_tokens: i64) -> Self {
        let (kind, device) = (prefill[0].keys.kind(), prefill[0].keys.device());
        let (prompts, width) = (lengths.len() as i64, lengths.iter().copied().max().unwrap_or(0));
        let slots = width + new_tokens;
        let (k, d) = (config.num_key_value_heads, config.head_dim);
        let shift = Tensor::from_slice(lengths).to_device(device).neg() + width; // [P] empty slots before each prompt
        let slot = Tensor::arange(slots, (Kind::Int64, device));
        // Slot j of a row holds its token j - shift; clamped, since what is masked may hold anything.
        let source = (slot.narrow(0, 0, width).unsqueeze(0) - shift.unsqueeze(1)).clamp_min(0); // [P, width]
        let source = source.view([prompts, 1, width, 1]).expand([prompts, k, width, d], false);
        let repeat = |x: Tensor| x.repeat_interleave_self_int(samples, 0, None);
        let place = |tensor: &Tensor| {
            let all = Tensor::zeros([prompts * samples, k, slots, d], (kind, device));
            all.narrow(2, 0, width).copy_(&repeat(tensor.gather(2, &source, false)));
            all
        };
        let layers =
            prefill.into_iter().map(|kv| KeyValues { keys: place(&kv.keys), values: place(&kv.values) }).collect();
        let empty = slot.unsqueeze(0).lt_tensor(&shift.unsqueeze(1)); // [P, T]
        let mask = Tensor::zeros([prompts, slots], (kind, device)).masked_fill(&empty, f64::NEG_INFINITY);
        let mask = repeat(mask).unsqueeze(1).unsqueeze(1);
        Self { layers, bias: mask.narrow(3, 0, width), mask, filled: width }
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
