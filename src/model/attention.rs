//! Grouped-query attention (arXiv:2305.13245): the projections of a layer, and the ways to attend.
//!
//! All passes share the projections; what the queries attend to is an `Attend` that the pass provides: `Causal` for
//! whole sequences, and in `rollout` the key-value cache, once for the prefill and once for a decoding step.
//!
//! Shapes: B batch, T time, S time of the keys, H hidden, N query heads, K key-value heads, G = N / K, D head
//! dimension.

use super::config::ModelConfig;
use super::nn::{Linear, RmsNorm};
use super::rope::Rotation;
use super::weights::Scope;
use crate::torch::{cpu_multiplies_bfloat16, on_device};
use tch::{Device, Kind, Tensor};

/// Keys and values of one layer, [B, K, S, D] each, keys already rotated by their positions.
pub struct KeyValues {
    pub keys: Tensor,
    pub values: Tensor,
}

/// What the queries of a pass attend to.
pub trait Attend {
    /// Mixed heads [B, N, T, D] for the `queries` [B, N, T, D] of this pass in `layer` (from 0); `new` are the keys and
    /// values of the same T tokens.
    fn attend(&self, layer: usize, queries: &Tensor, new: &KeyValues) -> Tensor;

    /// A copy with which the backward pass may compute a layer again, from another thread; none if `attend` has side
    /// effects, which must not be repeated.
    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        None
    }
}

/// Each token attends to itself and to all before it. Right padding needs no mask: no real token looks to its right.
pub struct Causal {
    /// -inf where a token would look ahead, else 0, [T, T]; none if the fused kernel is used.
    future: Option<Tensor>,
}

/// Sequences that stand one after another in a single row: each token attends to itself and to those before it in its
/// own sequence. No product spans two of them, so nothing has to be masked.
pub struct Packed {
    /// The length of each sequence, and how its tokens attend.
    sequences: Vec<(i64, Causal)>,
}

impl Packed {
    /// For a row `x` [1, T, H] of sequences of these lengths, which add up to T.
    pub fn new(x: &Tensor, lengths: &[i64]) -> Self {
        Self { sequences: lengths.iter().map(|&length| (length, Causal::new(&x.narrow(1, 0, length)))).collect() }
    }

    /// Of each token its position in its own sequence, [1, T].
    pub fn positions(lengths: &[i64], device: Device) -> Tensor {
        let positions: Vec<i64> = lengths.iter().flat_map(|&length| 0..length).collect();
        on_device(&positions, device).unsqueeze(0)
    }
}

impl Attend for Packed {
    fn attend(&self, layer: usize, queries: &Tensor, new: &KeyValues) -> Tensor {
        let mut first = 0;
        let own = self.sequences.iter().map(|(length, causal)| {
            let part = |x: &Tensor| x.narrow(2, first, *length);
            let (queries, keys, values) = (part(queries), part(&new.keys), part(&new.values));
            first += length;
            causal.attend(layer, &queries, &KeyValues { keys, values })
        });
        Tensor::cat(&own.collect::<Vec<_>>(), 2)
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        let sequences = self.sequences.iter().map(|(length, causal)| (*length, causal.shallow_clone())).collect();
        Some(Box::new(Self { sequences }))
    }
}

impl Causal {
    fn shallow_clone(&self) -> Self {
        Self { future: self.future.as_ref().map(Tensor::shallow_clone) }
    }

    /// With the faster kernel for sequences `x` [B, T, H].
    ///
    /// That is the fused one, except for its backward pass in bfloat16 on a CPU that multiplies bfloat16 natively: this
    /// takes 2 to 5 times as long as products up to 512 tokens, and as long at 1,024, where the scores would need much
    /// memory. On other CPUs the products take 3 times as long.
    pub fn new(x: &Tensor) -> Self {
        let t = x.size()[1];
        let half = x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && cpu_multiplies_bfloat16();
        let products = half && x.requires_grad() && t <= PRODUCTS_TOKENS;
        Self { future: products.then(|| future(t, x.kind(), x.device())) }
    }
}

impl Attend for Causal {
    fn attend(&self, _: usize, queries: &Tensor, new: &KeyValues) -> Tensor {
        match &self.future {
            None => causal_attention(queries, new),
            Some(future) => masked_attention(queries, new, future),
        }
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        Some(Box::new(self.shallow_clone()))
    }
}

/// Longest sequences whose attention is computed by products; `plan::memory` counts their scores.
pub const PRODUCTS_TOKENS: i64 = 512;

/// -inf above the diagonal and 0 elsewhere, [T, T].
fn future(t: i64, kind: Kind, device: Device) -> Tensor {
    Tensor::full([t, t], f64::NEG_INFINITY, (kind, device)).triu(1)
}

/// Causal attention by libtorch's fused kernel: [B, N, T, D] for `queries` [B, N, T, D] and as many keys and values.
pub fn causal_attention(queries: &Tensor, kv: &KeyValues) -> Tensor {
    let (b, k, t, d) = kv.keys.size4().expect("keys are [B, K, T, D]");
    let n = queries.size()[1];
    // The CPU kernel needs one key head per query head.
    let repeat = |x: &Tensor| x.unsqueeze(2).expand([b, k, n / k, t, d], false).reshape([b, n, t, d]);
    let (keys, values) = (repeat(&kv.keys), repeat(&kv.values)); // [B, N, T, D]
    Tensor::scaled_dot_product_attention(queries, &keys, &values, None::<&Tensor>, 0.0, true, None, false)
}

/// Attention by plain products and a softmax: [B, N, T, D] for `queries` [B, N, T, D].
///
/// `bias`, 0 or -inf, is added to the scores [B, K, G, T, S], to which it broadcasts. The G heads of a group are rows
/// of one product, so that no key is repeated.
pub fn masked_attention(queries: &Tensor, kv: &KeyValues, bias: &Tensor) -> Tensor {
    let (b, n, t, d) = queries.size4().expect("queries are [B, N, T, D]");
    let (k, s) = (kv.keys.size()[1], kv.keys.size()[2]);
    let g = n / k;
    let queries = (queries * (d as f64).powf(-0.5)).reshape([b, k, g * t, d]);
    let scores = queries.matmul(&kv.keys.transpose(2, 3)).view([b, k, g, t, s]) + bias;
    let weights = scores.softmax(-1, None).view([b, k, g * t, s]);
    weights.matmul(&kv.values).view([b, n, t, d])
}

/// The attention block of one layer.
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Qwen3 RMS-normalises each query and key head before the rotation.
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    /// Number of the layer, from 0.
    layer: usize,
    head_dim: i64,
}

impl Attention {
    pub fn new(config: &ModelConfig, layer: usize, at: Scope) -> Self {
        let norm = |name| config.head_norms().then(|| RmsNorm::new(config, at.pp(name)));
        Self {
            q_proj: Linear::new(at.pp("q_proj")),
            k_proj: Linear::new(at.pp("k_proj")),
            v_proj: Linear::new(at.pp("v_proj")),
            o_proj: Linear::new(at.pp("o_proj")),
            q_norm: norm("q_norm"),
            k_norm: norm("k_norm"),
            layer,
            head_dim: config.head_dim,
        }
    }

    /// [B, T, H] for the normalised `x` [B, T, H].
    pub fn forward(&self, x: &Tensor, rotation: &Rotation, attend: &dyn Attend) -> Tensor {
        let mut queries = self.split(&self.q_proj.forward(x)); // [B, N, T, D]
        let mut keys = self.split(&self.k_proj.forward(x)); // [B, K, T, D]
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            (queries, keys) = (q_norm.forward(&queries), k_norm.forward(&keys));
        }
        let values = self.split(&self.v_proj.forward(x)); // [B, K, T, D]
        let new = KeyValues { keys: rotation.apply(&keys), values };
        let mixed = attend.attend(self.layer, &rotation.apply(&queries), &new); // [B, N, T, D]
        self.o_proj.forward(&mixed.transpose(1, 2).flatten(2, 3)) // [B, T, N * D] -> [B, T, H]
    }

    /// Heads apart: [B, heads, T, D] for `x` [B, T, heads * D].
    fn split(&self, x: &Tensor) -> Tensor {
        let (b, t, _) = x.size3().expect("projections are [B, T, heads * D]");
        x.view([b, t, -1, self.head_dim]).transpose(1, 2)
    }

    pub fn shallow_clone(&self) -> Self {
        Self {
            q_proj: self.q_proj.shallow_clone(),
            k_proj: self.k_proj.shallow_clone(),
            v_proj: self.v_proj.shallow_clone(),
            o_proj: self.o_proj.shallow_clone(),
            q_norm: self.q_norm.as_ref().map(RmsNorm::shallow_clone),
            k_norm: self.k_norm.as_ref().map(RmsNorm::shallow_clone),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{test_device, to_host};

    /// Two ways to the same heads and gradients, with groups of three heads.
    #[test]
    fn products_attend_as_the_fused_kernel_does() {
        let (b, k, g, t, d) = (2, 2, 3, 7, 4);
        let attend = |future: Option<Tensor>| {
            let draw = |heads: i64, first: f64| {
                let count = b * heads * t * d;
                let numbers = (Tensor::arange(count, (Kind::Float, test_device())) * 0.7 + first).sin() * 2.0;
                numbers.view([b, heads, t, d]).set_requires_grad(true)
            };
            let (queries, kv) = (draw(k * g, 0.1), KeyValues { keys: draw(k, 0.2), values: draw(k, 0.3) });
            let mixed = Causal { future }.attend(0, &queries, &kv);
            (&mixed * mixed.cos()).sum(Kind::Float).backward();
            [mixed, queries.grad(), kv.keys.grad(), kv.values.grad()].map(|x| to_host(&x))
        };
        let products = attend(Some(future(t, Kind::Float, test_device())));
        for (products, fused) in products.iter().zip(attend(None)) {
            assert_eq!(products.len(), fused.len());
            let worst = products.iter().zip(&fused).map(|(p, f)| (p - f).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst}");
        }
    }
}
