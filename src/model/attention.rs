//! Grouped-query attention (arXiv:2305.13245): the projections of a layer, and the ways to attend.
//!
//! All passes share the projections; what the queries attend to is an `Attend` that the pass provides: `Causal` for
//! whole sequences, `Branches` for a row of them, and in `rollout` the key-value cache, for prefill and decoding steps.
//!
//! Shapes: B batch, T time, S time of the keys, H hidden, N query heads, K key-value heads, G = N / K, D head
//! dimension.

use super::config::ModelConfig;
use super::nn::{Linear, RmsNorm};
use super::rope::{Rotation, apart};
use super::weights::Scope;
use crate::torch::{self, Branch, Flash, cpu_multiplies_bfloat16, is_fused, on_device};
use std::ops::Range;
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

    /// Mixed heads [B * T, N * D] by products, the B sequences being one after another in a row of branches.
    fn attend_in_a_row(&self, branches: &[Branch]) -> Tensor {
        let (b, t, _) = self.queries.size3().expect("projections are [B, T, heads * D]");
        let rotation = self.rotation.in_a_row(b);
        let turned = |x: &Tensor, scale: f64| {
            rotation.split_scaled(&x.reshape([1, b * t, -1]), self.heads(x), scale).squeeze_dim(0)
        };
        let values = apart(&self.values.reshape([1, b * t, -1]), self.heads(&self.values)).squeeze_dim(0);
        torch::attend(&turned(&self.queries, self.scale()), &turned(&self.keys, 1.0), &values, branches)
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

impl Causal {
    /// With the faster way for sequences `x` [B, T, ..].
    pub fn new(x: &Tensor) -> Self {
        Self { products: products_are_faster(x, x.size()[1]) }
    }
}

/// Whether attention by products is faster than libtorch's fused kernel for `x` [.., H] in sequences of at most
/// `longest` tokens.
///
/// On a CPU it is, up to 512 tokens: 3 times with a gradient in bfloat16, twice without one. Longer sequences would
/// need much memory for the scores. A CPU that does not multiply bfloat16 itself takes 3 times as long for products.
fn products_are_faster(x: &Tensor, longest: i64) -> bool {
    is_fused(x) && longest <= PRODUCTS_TOKENS && (x.kind() == Kind::Float || cpu_multiplies_bfloat16())
}

impl Attend for Causal {
    fn attend(&self, _: usize, new: &Projected) -> Tensor {
        if !self.products {
            return causal_attention(&new.queries(1.0), &new.key_values());
        }
        let (b, t, _) = new.queries.size3().expect("projections are [B, T, heads * D]");
        // Sequences one after another are a row of branches.
        let branches: Vec<Branch> = (0..b).map(|row| Branch { prefix: 0..0, own: row * t..(row + 1) * t }).collect();
        new.attend_in_a_row(&branches).view([b, t, -1])
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        Some(Box::new(*self))
    }
}

/// A row of sequences, one after another, in which several may have the same beginning: each token attends to itself,
/// to those before it in its own branch, and to the branch's prefix. No product spans two sequences, so nothing has to
/// be masked.
#[derive(Clone)]
pub struct Branches {
    all: Vec<Branch>,
    products: bool,
    flash: Option<Flash>,
}

impl Branches {
    /// For a row `x` [1, T, H] that consists of these branches.
    pub fn new(x: &Tensor, all: &[Branch], head_dim: i64) -> Self {
        let longest = all.iter().map(|b| b.own.end - b.own.start + b.prefix.end - b.prefix.start).max().unwrap_or(0);
        let flash = Flash::takes(x, head_dim).then(|| Flash::new(all, x.device()));
        Self { all: all.to_vec(), products: products_are_faster(x, longest), flash }
    }

    /// Of each token its position in its own sequence, [1, T].
    pub fn positions(all: &[Branch], device: Device) -> Tensor {
        let positions = all.iter().flat_map(|b| {
            let first = b.prefix.end - b.prefix.start;
            first..first + b.own.end - b.own.start
        });
        on_device(&positions.collect::<Vec<i64>>(), device).unsqueeze(0)
    }
}

impl Attend for Branches {
    fn attend(&self, _: usize, new: &Projected) -> Tensor {
        if self.products {
            return new.attend_in_a_row(&self.all).unsqueeze(0);
        }
        let (queries, all) = (new.queries(1.0), new.key_values());
        if let Some(flash) = &self.flash {
            let in_a_row = |x: &Tensor| x.squeeze_dim(0).transpose(0, 1); // [T, heads, D]
            let mixed = flash.attend(&in_a_row(&queries), &in_a_row(&all.keys), &in_a_row(&all.values));
            return mixed.flatten(1, 2).unsqueeze(0);
        }
        let own = self.all.iter().map(|Branch { prefix, own }| {
            let part = |x: &Tensor, range: &Range<i64>| x.narrow(2, range.start, range.end - range.start);
            let both = |x: &Tensor| Tensor::cat(&[part(x, prefix), part(x, own)], 2);
            let queries = part(&queries, own);
            let kv = KeyValues { keys: both(&all.keys), values: both(&all.values) };
            if prefix.is_empty() {
                return causal_attention(&queries, &kv);
            }
            let (t, s) = (queries.size()[2], kv.keys.size()[2]);
            let future = Tensor::full([t, s], f64::NEG_INFINITY, (queries.kind(), queries.device()));
            masked_attention(&(queries * new.scale()), &kv, &future.triu(s - t + 1))
        });
        Tensor::cat(&own.collect::<Vec<_>>(), 1)
    }

    fn for_recompute(&self) -> Option<Box<dyn Attend + Send>> {
        Some(Box::new(self.clone()))
    }
}

/// Longest sequences whose attention is computed by products; `plan::memory` counts their scores.
pub const PRODUCTS_TOKENS: i64 = 512;

/// Causal attention by libtorch's fused kernel: [B, T, N * D] for `queries` [B, N, T, D] and as many keys and values.
fn causal_attention(queries: &Tensor, kv: &KeyValues) -> Tensor {
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

    /// A shallow copy with each map as `of` makes it.
    pub fn with(&self, of: fn(&Linear) -> Linear) -> Self {
        Self {
            q_proj: of(&self.q_proj),
            k_proj: of(&self.k_proj),
            v_proj: of(&self.v_proj),
            o_proj: of(&self.o_proj),
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
