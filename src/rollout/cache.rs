//! The key-value cache of the rows that are decoded together: static buffers, a row for each.
//!
//! A row's tokens stand in its slots from the first on. A step fills the slot after them, which is another one for each
//! row, so that one response can take the place of another at any time. What is in the slots behind them does not
//! matter: a bias of -inf masks it. On a CPU a loop of ours reads the cache instead, up to each row's own slot, and
//! rows that are no longer decoded stay where they are: nothing is copied.
//!
//! Shapes: R rows, B of them decoded, T slots, N query heads, K key-value heads, D head dimension.

use crate::model::{Attend, Causal, KeyValues, Policy, Projected, masked_attention};
use crate::torch::{NewToken, attend_one, is_fused};
use tch::{Kind, Tensor};

/// Keys and values of R rows over at most T slots.
pub struct KvCache {
    /// For each layer [R, K, T, D]; if `fused`, keys are a view of [R, K, D, T], in which those of one dimension are
    /// neighbours.
    layers: Vec<KeyValues>,
    /// Which row of the layers each row that is decoded has, [B].
    place: Tensor,
    /// The slot that a step fills, [B].
    slot: Tensor,
    /// 0 for the slots that a step attends to, elsewhere -inf, [B, 1, 1, 1, extent]; unless `fused`.
    bias: Tensor,
    /// Whether `attend_one` reads the cache.
    fused: bool,
}

impl KvCache {
    /// An empty cache of R rows and T slots.
    pub fn new(policy: &Policy, rows: i64, slots: i64) -> Self {
        let (config, flat) = (&policy.config, policy.weights.flat());
        let (kind, device) = (flat.kind(), flat.device());
        let fused = is_fused(flat);
        let zeros =
            |last: [i64; 2]| Tensor::zeros([rows, config.num_key_value_heads, last[0], last[1]], (kind, device));
        let (plain, turned) = ([slots, config.head_dim], [config.head_dim, slots]);
        let keys = || if fused { zeros(turned).transpose(2, 3) } else { zeros(plain) };
        let layers = (0..config.num_hidden_layers).map(|_| KeyValues { keys: keys(), values: zeros(plain) }).collect();
        let place = Tensor::arange(rows, (Kind::Int64, device));
        let slot = Tensor::zeros([rows], (Kind::Int64, device));
        let bias = Tensor::zeros([rows, 1, 1, 1, 0], (kind, device));
        Self { layers, place, slot, bias, fused }
    }

    /// How many slots there are.
    pub fn slots(&self) -> i64 {
        self.layers[0].values.size()[2]
    }

    /// The cache as a prefill of right-padded prompts fills it: those of these rows [b], as many to each prompt.
    pub fn prefill(&self, rows: &Tensor) -> Prefill<'_> {
        Prefill { cache: self, places: self.place.index_select(0, rows) }
    }

    /// Opens the slots [B] which the next step fills, and which are among the first `extent`: it attends to those up to
    /// each row's own.
    pub fn open(&mut self, slots: &Tensor, extent: i64) {
        self.slot = slots.shallow_clone();
        if !self.fused {
            let kind = self.bias.kind();
            let all = Tensor::arange(extent, (Kind::Int64, slots.device())).unsqueeze(0);
            let behind = all.gt_tensor(&slots.unsqueeze(1)); // [B, extent]
            let bias = Tensor::zeros(behind.size(), (kind, slots.device())).masked_fill(&behind, f64::NEG_INFINITY);
            self.bias = bias.view([-1, 1, 1, 1, extent]);
        }
    }

    /// Keeps only the rows of these indices [B'].
    pub fn keep(&mut self, rows: &Tensor) {
        let pick = |x: &Tensor| x.index_select(0, rows);
        if self.fused {
            self.place = pick(&self.place);
            return;
        }
        for layer in &mut self.layers {
            *layer = KeyValues { keys: pick(&layer.keys), values: pick(&layer.values) };
        }
        self.place = self.place.narrow(0, 0, rows.size()[0]);
    }
}

/// A decoding step: writes its tokens' keys and values into the open slots and attends to those so far.
impl Attend for KvCache {
    fn attend(&self, layer: usize, new: &Projected) -> Tensor {
        let layer = &self.layers[layer];
        if self.fused {
            let Projected { queries, keys, values, rotation, .. } = new;
            let new = NewToken { queries, keys, values, rotation: rotation.halves() };
            return attend_one(&new, &layer.keys.transpose(2, 3), &layer.values, &self.place, &self.slot);
        }
        let (queries, new) = (new.queries(new.scale()), new.key_values());
        let extent = self.bias.size()[4];
        let slot = self.slot.view([-1, 1, 1, 1]).expand_as(&new.keys); // [B, K, 1, D]
        let put = |all: &Tensor, new: &Tensor| {
            let _ = all.shallow_clone().scatter_(2, &slot, new);
            all.narrow(2, 0, extent) // [B, K, extent, D]
        };
        let all = KeyValues { keys: put(&layer.keys, &new.keys), values: put(&layer.values, &new.values) };
        masked_attention(&queries, &all, &self.bias)
    }
}

/// A prefill: attends causally and writes the prompts' keys and values into their rows of the cache.
pub struct Prefill<'a> {
    cache: &'a KvCache,
    /// The rows of the layers, as many to each prompt, [b].
    places: Tensor,
}

impl Attend for Prefill<'_> {
    fn attend(&self, layer: usize, new: &Projected) -> Tensor {
        let (own, cached) = (new.key_values(), &self.cache.layers[layer]);
        for (all, new) in [(&cached.keys, &own.keys), (&cached.values, &own.values)] {
            let (prompts, width) = (new.size()[0], new.size()[2]);
            let repeated = new.repeat_interleave_self_int(self.places.size()[0] / prompts, 0, None); // [b, K, t, D]
            if !self.cache.fused {
                // No bias masks what another response may have left that is not finite.
                let _ = all.shallow_clone().index_fill_(0, &self.places, 0.0);
            }
            let _ = all.narrow(2, 0, width).index_copy_(0, &self.places, &repeated);
        }
        Causal::new(&new.queries).attend(layer, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Steer, Weights};
    use crate::torch::{on_device, padded, test_device, to_host};
    use tch::Device;

    #[test]
    fn prefill_and_steps_are_the_full_forward() {
        for fused in [true, false] {
            if !fused || test_device() == Device::Cpu {
                prefill_and_steps(fused);
            }
        }
    }

    /// Prompts of uneven length, two rows each, and three more tokens per row; with a constant that is added after the
    /// first layer, which must act the same. Then another prompt takes the place of the longest.
    fn prefill_and_steps(fused: bool) {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32, "initializer_range": 0.5}"#,
        )
        .unwrap();
        let device = test_device();
        let weights = Weights::random(&config, Head::Language, Kind::Float, device, 5).unwrap();
        let policy = Policy::new(&config, weights);
        let constant = on_device(&[0.5f32; 8], device).view([1, 1, 8]);
        let steer = || Steer { layer: 0, added: constant.shallow_clone(), from: 0 };
        let mut cache = KvCache::new(&policy, 6, 9);
        cache.fused = fused;

        let mut written: Vec<Vec<i64>> = vec![vec![]; 6];
        let read = |cache: &KvCache, written: &mut [Vec<i64>], rows: &[i64], prompts: &[Vec<i64>]| {
            let prefill = cache.prefill(&on_device(rows, device));
            let _ = policy.decoder.prefill(&padded(prompts, device), &prefill, &mut steer());
            for (row, prompt) in rows.iter().zip(prompts.iter().flat_map(|prompt| [prompt, prompt])) {
                written[*row as usize].clone_from(prompt);
            }
        };
        // The second part is narrower than the first.
        read(&cache, &mut written, &[0, 1, 2, 3], &[vec![3, 1, 4, 1], vec![5]]);
        read(&cache, &mut written, &[4, 5], &[vec![9, 2]]);
        for t in 0..6 {
            if t == 3 {
                read(&cache, &mut written, &[1, 0], &[vec![7, 7, 2]]);
            }
            let slots: Vec<i64> = written.iter().map(|ids| ids.len() as i64).collect();
            // The slots to come make no difference.
            let extent = slots.iter().max().unwrap() + 1 + t % 2;
            let slots = on_device(&slots, device);
            cache.open(&slots, extent.min(9));
            let new: Vec<i64> = (0..6).map(|row| (3 * row + 5 * t) % 16).collect();
            let hidden = policy.decoder.step(&on_device(&new, device), &slots, &cache, &mut steer());
            for row in 0..6 {
                written[row].push(new[row]);
                let whole = padded(&[&written[row]], device);
                let expected = to_host(&policy.decoder.forward_tapped(&whole, &mut steer()).select(1, -1));
                let found = to_host(&hidden.get(row as i64));
                let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "step {t}, row {row}: {worst}");
            }
        }
    }
}
