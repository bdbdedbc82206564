//! Grouped-query attention (arXiv:2305.13245): the projections of a layer, and the ways to attend.
//!
//! All passes share the projections; what the queries attend to is an `Attend` that the pass provides: `Causal` for
//! whole sequences, and in `rollout` the key-value cache, once for the prefill and once for a decoding step.
//!
//! Shapes: B batch, T time, S time of the keys, H hidden, N query heads, K key-value heads, G = N / K, D head
//! dimension.

use super::config::ModelConfig;
use super::nn::{Linear, RmsNorm};
use super::rope::{Rotation, apart};
use super::weights::Scope;
use crate::torch::{self, cpu_multiplies_bfloat16, is_fused};
use tch::{Device, Kind, Tensor};

/// Keys and values of one layer, [B, K, S, D] each, keys already rotated by their positions.
pub struct KeyValues {
    pub keys: Tensor,
    pub values: Tensor,
}

/// Queries, keys and values of the tokens of a pass as the projections return them, [B, T, heads * D], not rotated yet.
pub struct Projected<'a> {
    pub queries: Tensor,
    pub keys: Tensor,
    pub values: Tensor,
    pub rotation: &'a Rotation,
    pub head_dim: i64,
}

impl Projected<'_> {
    fn heads(&self, x: &Tensor) -> i64 {
        x.size()[2] / self.head_dim
    }

    /// Queries [B, N, T, D], rotated, times `scale`.
    pub fn queries(&self, scale: f64) -> Tensor {
        self.rotation.split_scaled(&self.queries, self.heads(&self.queries), scale)
    }

    /// Rotated keys, and values.
    pub fn key_values(&self) -> KeyValues {
        let heads = self.heads(&self.keys);
        KeyValues { keys: self.rotation.split(&self.keys, heads), values: apart(&self.values, heads) }
    }

    /// What queries are multiplied by before the softmax: D^-0.5 (arXiv:1706.03762).
    pub fn scale(&self) -> f64 {
        (self.head_dim as f64).powf(-0.5)
    }
}

/// What the queries of a pass attend to.
pub trait Attend {
    /// Mixed heads [B, T, N * D] of the tokens `new` of this pass in `layer` (from 0).
    fn attend(&self, layer: usize, new: &Projected) -> Tensor;

    /// A copy with which the backward pass may compute a layer again, from another thread; none if `attend` has side
    /// effects, which must not be repeated.
    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        None
    }
}

/// Each token attends to itself and to all before it. Right padding needs no mask: no real token looks to its right.
#[derive(Clone, Copy)]
pub struct Causal {
    /// By products, instead of libtorch's fused kernel.
    products: bool,
}

/// Sequences that stand one after another in a single row: each token attends to itself and to those before it in its
/// own sequence. No product spans two of them, so nothing has to be masked.
#[derive(Clone)]
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
        Tensor::from_slice(&positions).to_device(device).unsqueeze(0)
    }
}

impl Attend for Packed {
    fn attend(&self, _: usize, new: &Projected) -> Tensor {
        let (plain, scaled) = (new.queries(1.0), new.queries(new.scale()));
        let all = new.key_values();
        let mut first = 0;
        let own = self.sequences.iter().map(|(length, causal)| {
            let part = |x: &Tensor| x.narrow(2, first, *length);
            let queries = part(if causal.products { &scaled } else { &plain });
            let own = KeyValues { keys: part(&all.keys), values: part(&all.values) };
            first += length;
            causal.mix(&queries, &own)
        });
        Tensor::cat(&own.collect::<Vec<_>>(), 1)
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        Some(Box::new(self.clone()))
    }
}

impl Causal {
    /// With the faster way for sequences `x` [B, T, H].
    ///
    /// That is libtorch's fused kernel, except for the backward pass on a CPU: there it takes 2 to 5 times as long as
    /// products in bfloat16, up to 512 tokens, if the CPU multiplies bfloat16 natively, and as long at 1,024, where the
    /// scores would need much memory. On other CPUs the products take 3 times as long.
    pub fn new(x: &Tensor) -> Self {
        let native = x.kind() == Kind::Float || cpu_multiplies_bfloat16();
        Self { products: is_fused(x) && native && x.requires_grad() && x.size()[1] <= PRODUCTS_TOKENS }
    }

    /// Mixed heads [B, T, N * D] for queries [B, N, T, D], scaled if by products, and as many keys and values.
    fn mix(self, queries: &Tensor, kv: &KeyValues) -> Tensor {
        match self.products {
            true => torch::attend(queries, &kv.keys, &kv.values),
            false => causal_attention(queries, kv),
        }
    }
}

impl Attend for Causal {
    fn attend(&self, _: usize, new: &Projected) -> Tensor {
        self.mix(&new.queries(if self.products { new.scale() } else { 1.0 }), &new.key_values())
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        Some(Box::new(*self))
    }
}

/// Longest sequences whose attention is computed by products; `plan::memory` counts their scores.
pub const PRODUCTS_TOKENS: i64 = 512;

/// Causal attention by libtorch's fused kernel: [B, T, N * D] for `queries` [B, N, T, D] and as many keys and values.
pub fn causal_attention(queries: &Tensor, kv: &KeyValues) -> Tensor {
    let (b, k, t, d) = kv.keys.size4().expect("keys are [B, K, T, D]");
    let n = queries.size()[1];
    // The CPU kernel needs one key head per query head.
    let repeat = |x: &Tensor| x.unsqueeze(2).expand([b, k, n / k, t, d], false).reshape([b, n, t, d]);
    let (keys, values) = (repeat(&kv.keys), repeat(&kv.values)); // [B, N, T, D]
    let mixed = Tensor::scaled_dot_product_attention(queries, &keys, &values, None::<&Tensor>, 0.0, true, None, false);
    merged(&mixed)
}

/// Attention by plain products and a softmax: [B, T, N * D] for scaled `queries` [B, N, T, D].
///
/// `bias`, 0 or -inf, is added to the scores [B, K, G, T, S], to which it broadcasts. The G heads of a group are rows
/// of one product, so that no key is repeated.
pub fn masked_attention(queries: &Tensor, kv: &KeyValues, bias: &Tensor) -> Tensor {
    let (b, n, t, d) = queries.size4().expect("queries are [B, N, T, D]");
    let (k, s) = (kv.keys.size()[1], kv.keys.size()[2]);
    let g = n / k;
    let queries = queries.reshape([b, k, g * t, d]);
    let scores = queries.matmul(&kv.keys.transpose(2, 3)).view([b, k, g, t, s]) + bias;
    let weights = scores.softmax(-1, None).view([b, k, g * t, s]);
    merged(&weights.matmul(&kv.values).view([b, n, t, d]))
}

/// Heads side by side: [B, T, N * D] for [B, N, T, D].
fn merged(heads: &Tensor) -> Tensor {
    heads.transpose(1, 2).flatten(2, 3)
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
        let (mut queries, mut keys) = (self.q_proj.forward(x), self.k_proj.forward(x)); // [B, T, heads * D]
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            let head = |norm: &RmsNorm, x: &Tensor| norm.forward(&x.view(self.heads(x))).view_as(x);
            (queries, keys) = (head(q_norm, &queries), head(k_norm, &keys));
        }
        let new = Projected { queries, keys, values: self.v_proj.forward(x), rotation, head_dim: self.head_dim };
        self.o_proj.forward(&attend.attend(self.layer, &new)) // [B, T, N * D] -> [B, T, H]
    }

    /// The shape [B, T, heads, D] of projections [B, T, heads * D].
    fn heads(&self, x: &Tensor) -> [i64; 4] {
        let (b, t, all) = x.size3().expect("projections are [B, T, heads * D]");
        [b, t, all / self.head_dim, self.head_dim]
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
    use crate::model::rope::Rope;
    use crate::torch::to_host;

    /// Two ways to the same heads and gradients, with groups of three heads.
    #[test]
    fn products_attend_as_the_fused_kernel_does() {
        let (b, k, g, t, d) = (2, 2, 3, 7, 4);
        let attend = |products: bool| {
            let draw = |heads: i64, first: f64| {
                let count = b * heads * t * d;
                let numbers = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + first).sin() * 2.0;
                numbers.view([b, t, heads * d]).set_requires_grad(true)
            };
            let at = Tensor::arange(t, (Kind::Int64, Device::Cpu)).unsqueeze(0);
            let rotation = Rope::of(&[1.0, 0.1]).rotation(&at, Kind::Float);
            let (queries, keys, values) = (draw(k * g, 0.1), draw(k, 0.2), draw(k, 0.3));
            let leaves = [&queries, &keys, &values].map(Tensor::shallow_clone);
            let new = Projected { queries, keys, values, rotation: &rotation, head_dim: d };
            let mixed = Causal { products }.attend(0, &new);
            (&mixed * mixed.cos()).sum(Kind::Float).backward();
            let gradients = leaves.map(|leaf| to_host(&leaf.grad()));
            [vec![to_host(&mixed)], gradients.to_vec()].concat()
        };
        for (products, fused) in attend(true).iter().zip(attend(false)) {
            assert_eq!(products.len(), fused.len());
            let worst = products.iter().zip(&fused).map(|(p, f)| (p - f).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst}");
        }
    }
}
