//! The decoder of Qwen2, Qwen3 and Llama: config -> attention -> mlp -> layer -> model.
//!
//! Two ways through it share every weight and every line but the attention itself: `forward` reads whole right-padded
//! sequences causally (training, scoring, and the prefill, which keeps its keys and values), `step` reads one token a
//! row against a cache that is passed in. Right padding needs no mask: no real token looks to its right.
//!
//! Shapes: B batch, T time, H hidden, N query heads, K key-value heads, G = N / K, D head dimension.

use super::config::ModelConfig;
use super::rope::{Rope, rotate};
use super::weights::Weights;
use crate::torch::{cpu_multiplies_bfloat16, recompute};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// Keys and values of one layer, [B, K, T, D] each, keys already turned by their positions.
pub struct KeyValues {
    pub keys: Tensor,
    pub values: Tensor,
}

/// Where one decoding step finds and leaves its keys and values.
pub trait Cache {
    /// Adds this step's keys and values, [B, K, 1, D] each, and returns all of the layer so far, [B, K, T, D] each.
    fn extend(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> KeyValues;
    /// Added to the attention scores: 0 where a row may look and -inf where it may not, [B, 1, 1, T].
    fn bias(&self) -> &Tensor;
}

/// A linear map with an optional bias.
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn new(weights: &Weights, name: &str, bias: bool) -> Self {
        let bias = bias.then(|| weights.get(&format!("{name}.bias")));
        Self { weight: weights.get(&format!("{name}.weight")), bias }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Qwen3 brings each head of the queries and of the keys to one length before they are turned.
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: i64,
    groups: i64,
    head_dim: i64,
}

impl Attention {
    /// Queries [B, N, T, D] and keys and values [B, K, T, D], turned by their positions.
    fn project(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> (Tensor, KeyValues) {
        let (b, t, _) = x.size3().expect("hidden states are [B, T, H]");
        let split = |y: Tensor, heads| y.view([b, t, heads, self.head_dim]).transpose(1, 2); // [B, heads, T, D]
        let mut queries = split(self.q_proj.forward(x), self.heads);
        let mut keys = split(self.k_proj.forward(x), self.groups);
        if let Some((q_norm, k_norm)) = &self.norms {
            (queries, keys) = (q_norm.forward(&queries), k_norm.forward(&keys));
        }
        let values = split(self.v_proj.forward(x), self.groups);
        (rotate(&queries, cos, sin), KeyValues { keys: rotate(&keys, cos, sin), values })
    }

    /// Every token looks at itself and at all before it. [B, N, T, D]
    fn causal(&self, queries: &Tensor, kv: &KeyValues, kernel: &Kernel) -> Tensor {
        match kernel {
            Kernel::Fused => self.fused(queries, kv),
            Kernel::Products { future } => self.products(queries, kv, future),
        }
    }

    fn fused(&self, queries: &Tensor, kv: &KeyValues) -> Tensor {
        let (b, _, t, d) = kv.keys.size4().expect("keys are [B, K, T, D]");
        // The fused CPU kernel wants a key head for each query head.
        let repeat = |x: &Tensor| {
            let shared = [b, self.groups, self.heads / self.groups, t, d];
            x.unsqueeze(2).expand(shared, false).reshape([b, self.heads, t, d])
        };
        let (keys, values) = (repeat(&kv.keys), repeat(&kv.values));
        Tensor::scaled_dot_product_attention(queries, &keys, &values, None::<&Tensor>, 0.0, true, None, false)
    }

    /// The G heads of a group are rows of one product, so that no key is repeated.
    fn products(&self, queries: &Tensor, kv: &KeyValues, future: &Tensor) -> Tensor {
        let (b, k, t, d) = kv.keys.size4().expect("keys are [B, K, T, D]");
        let g = self.heads / k;
        let queries = (queries * (d as f64).powf(-0.5)).reshape([b, k, g * t, d]);
        let scores = queries.matmul(&kv.keys.transpose(2, 3)).view([b, k, g, t, t]) + future;
        scores.softmax(-1, None).view([b, k, g * t, t]).matmul(&kv.values).view([b, self.heads, t, d])
    }

    /// One query a head against the cache, the G heads of a group as the rows of one product. [B, N, 1, D]
    fn cached(&self, queries: &Tensor, kv: &KeyValues, bias: &Tensor) -> Tensor {
        let (b, d) = (queries.size()[0], self.head_dim);
        let queries = queries.view([b, self.groups, self.heads / self.groups, d]) * (d as f64).powf(-0.5);
        let scores = queries.matmul(&kv.keys.transpose(2, 3)) + bias; // [B, K, G, T]
        scores.softmax(-1, None).matmul(&kv.values).view([b, self.heads, 1, d])
    }

    /// Heads back side by side and through the output projection. [B, T, H]
    fn output(&self, mixed: &Tensor) -> Tensor {
        let (b, n, t, d) = mixed.size4().expect("mixed heads are [B, N, T, D]");
        self.o_proj.forward(&mixed.transpose(1, 2).reshape([b, t, n * d]))
    }
}

/// How whole sequences are attended to.
enum Kernel {
    /// libtorch's fused kernel.
    Fused,
    /// Plain products and a softmax. `future` [T, T] is -inf where a token would look ahead, else 0.
    Products { future: Tensor },
}

impl Kernel {
    /// The faster one for sequences `x` [B, T, H]. The fused one is, but for its backward pass in bfloat16 on a CPU that
    /// multiplies bfloat16 itself: 2 to 5 times as slow as products up to 512 tokens, and level at 1,024, where the
    /// scores would take much memory. (Where the CPU does not, products are 3 times as slow as the fused kernel.)
    fn of(x: &Tensor) -> Self {
        let t = x.size()[1];
        let half = x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && cpu_multiplies_bfloat16();
        if half && x.requires_grad() && t <= PRODUCTS_TOKENS {
            let future = Tensor::full([t, t], f64::NEG_INFINITY, (x.kind(), x.device())).triu(1);
            return Self::Products { future };
        }
        Self::Fused
    }

    fn share(&self) -> Self {
        match self {
            Self::Fused => Self::Fused,
            Self::Products { future } => Self::Products { future: future.shallow_clone() },
        }
    }
}

/// Longest sequences whose attention is computed by products; `plan::memory` counts their scores.
pub const PRODUCTS_TOKENS: i64 = 512;

struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    /// SwiGLU (arXiv:2002.05202).
    fn forward(&self, x: &Tensor) -> Tensor {
        self.down_proj.forward(&(self.gate_proj.forward(x).silu() * self.up_proj.forward(x)))
    }
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    /// `attend` maps the queries and this call's keys and values to mixed heads.
    fn forward(
        &self,
        x: &Tensor,
        rope: &(Tensor, Tensor),
        attend: impl FnOnce(&Tensor, KeyValues) -> Tensor,
    ) -> Tensor {
        let (queries, kv) = self.self_attn.project(&self.input_layernorm.forward(x), &rope.0, &rope.1);
        let x = x + self.self_attn.output(&attend(&queries, kv));
        &x + self.mlp.forward(&self.post_attention_layernorm.forward(&x))
    }

    /// Whole sequences; `keep` sees the keys and values.
    fn causal(&self, x: &Tensor, rope: &(Tensor, Tensor), kernel: &Kernel, keep: impl FnOnce(&KeyValues)) -> Tensor {
        self.forward(x, rope, |queries, kv| {
            keep(&kv);
            self.self_attn.causal(queries, &kv, kernel)
        })
    }
}

/// A layer that the backward pass may come back to from a thread of its own.
type SharedLayer = Arc<Mutex<Layer>>;

fn open(layer: &SharedLayer) -> MutexGuard<'_, Layer> {
    // Whoever panicked with the layer in hand has changed nothing of it.
    layer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The decoder without its head.
pub struct Decoder {
    embed_tokens: Tensor,
    layers: Vec<SharedLayer>,
    norm: RmsNorm,
    rope: Rope,
    /// Keep only each layer's input for the backward pass, which computes the layer again.
    pub gradient_checkpointing: bool,
}

impl Decoder {
    /// Builds the decoder over `weights`, for sequences of at most `positions` tokens.
    pub fn new(config: &ModelConfig, weights: &Weights, positions: i64) -> Self {
        let norm = |name: &str| RmsNorm { weight: weights.get(name), eps: config.rms_norm_eps };
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let at = format!("model.layers.{i}");
                let linear = |name: &str, bias| Linear::new(weights, &format!("{at}.{name}"), bias);
                let layer = Layer {
                    input_layernorm: norm(&format!("{at}.input_layernorm.weight")),
                    self_attn: Attention {
                        q_proj: linear("self_attn.q_proj", config.attention_bias),
                        k_proj: linear("self_attn.k_proj", config.attention_bias),
                        v_proj: linear("self_attn.v_proj", config.attention_bias),
                        o_proj: linear("self_attn.o_proj", false),
                        norms: config.head_norms().then(|| {
                            let head = |name| norm(&format!("{at}.self_attn.{name}.weight"));
                            (head("q_norm"), head("k_norm"))
                        }),
                        heads: config.num_attention_heads,
                        groups: config.num_key_value_heads,
                        head_dim: config.head_dim,
                    },
                    post_attention_layernorm: norm(&format!("{at}.post_attention_layernorm.weight")),
                    mlp: Mlp {
                        gate_proj: linear("mlp.gate_proj", false),
                        up_proj: linear("mlp.up_proj", false),
                        down_proj: linear("mlp.down_proj", false),
                    },
                };
                Arc::new(Mutex::new(layer))
            })
            .collect();
        let flat = weights.flat();
        let rope = Rope::new(config, positions, flat.kind(), flat.device());
        let embed_tokens = weights.get("model.embed_tokens.weight");
        Self { embed_tokens, layers, norm: norm("model.norm.weight"), rope, gradient_checkpointing: false }
    }

    /// Hidden states after the last norm, [B, T, H], for token ids [B, T] padded on the right.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.run(ids, |layer, x, rope, kernel| {
            if !self.gradient_checkpointing {
                return open(layer).causal(x, rope, kernel, |_| ());
            }
            let (layer, rope, kernel) =
                (Arc::clone(layer), (rope.0.shallow_clone(), rope.1.shallow_clone()), kernel.share());
            recompute(x, move |x| open(&layer).causal(x, &rope, &kernel, |_| ()))
        })
    }

    /// `forward` that also returns each layer's keys and values.
    pub fn prefill(&self, ids: &Tensor) -> (Tensor, Vec<KeyValues>) {
        let mut kept = Vec::with_capacity(self.layers.len());
        let hidden = self.run(ids, |layer, x, rope, kernel| {
            let keep = |kv: &KeyValues| {
                kept.push(KeyValues { keys: kv.keys.shallow_clone(), values: kv.values.shallow_clone() });
            };
            open(layer).causal(x, rope, kernel, keep)
        });
        (hidden, kept)
    }

    fn run(
        &self,
        ids: &Tensor,
        mut pass: impl FnMut(&SharedLayer, &Tensor, &(Tensor, Tensor), &Kernel) -> Tensor,
    ) -> Tensor {
        let rope = self.rope.prefix(ids.size()[1]);
        let mut x = Tensor::embedding(&self.embed_tokens, ids, -1, false, false); // [B, T, H]
        // One for all layers, and the same when a layer is computed again.
        let kernel = Kernel::of(&x);
        for layer in &self.layers {
            x = pass(layer, &x, &rope, &kernel);
        }
        self.norm.forward(&x)
    }

    /// Hidden states of one more token a row, [B, H], for token ids [B] at `positions` [B].
    pub fn step(&self, ids: &Tensor, positions: &Tensor, cache: &mut dyn Cache) -> Tensor {
        let rope = self.rope.rows(positions);
        let mut x = Tensor::embedding(&self.embed_tokens, ids, -1, false, false).unsqueeze(1); // [B, 1, H]
        for (i, layer) in self.layers.iter().enumerate() {
            let layer = open(layer);
            x = layer.forward(&x, &rope, |queries, kv| {
                let all = cache.extend(i, &kv.keys, &kv.values);
                layer.self_attn.cached(queries, &all, cache.bias())
            });
        }
        self.norm.forward(&x).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_host;

    /// Two ways to the same heads and gradients, with groups of three heads.
    #[test]
    fn products_attend_as_the_fused_kernel_does() {
        let (b, k, g, t, d) = (2, 2, 3, 7, 4);
        let linear = || Linear { weight: Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)), bias: None };
        let (q_proj, k_proj, v_proj, o_proj) = (linear(), linear(), linear(), linear());
        let attention = Attention { q_proj, k_proj, v_proj, o_proj, norms: None, heads: k * g, groups: k, head_dim: d };
        let future = Tensor::full([t, t], f64::NEG_INFINITY, (Kind::Float, Device::Cpu)).triu(1);
        let attend = |kernel: Kernel| {
            let draw = |heads: i64, first: f64| {
                let count = b * heads * t * d;
                let numbers = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + first).sin() * 2.0;
                numbers.view([b, heads, t, d]).set_requires_grad(true)
            };
            let (queries, kv) = (draw(k * g, 0.1), KeyValues { keys: draw(k, 0.2), values: draw(k, 0.3) });
            let mixed = attention.causal(&queries, &kv, &kernel);
            (&mixed * mixed.cos()).sum(Kind::Float).backward();
            [mixed, queries.grad(), kv.keys.grad(), kv.values.grad()].map(|x| to_host(&x))
        };
        for (products, fused) in attend(Kernel::Products { future }).iter().zip(attend(Kernel::Fused)) {
            assert_eq!(products.len(), fused.len());
            let worst = products.iter().zip(&fused).map(|(p, f)| (p - f).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst}");
        }
    }
}
