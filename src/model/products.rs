//! How many floating-point operations a model takes: those of its matrix products, a multiplication and an addition
//! counted as two, as model FLOPs utilisation counts them (arXiv:2204.02311, appendix B). Measurements, plans and
//! metrics all count with this.

use super::config::ModelConfig;

/// Operations of a forward pass. Backward passes take twice as many: one product for the inputs' gradients, one for
/// the weights'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Products {
    /// Of each token with the layers' weights.
    pub token: f64,
    /// Of each pair of tokens of which one attends to the other, or to itself.
    pub pair: f64,
    /// Of each token whose logits are computed.
    pub head: f64,
}

impl Products {
    pub fn of(config: &ModelConfig) -> Self {
        let ModelConfig { hidden_size: h, intermediate_size: i, num_attention_heads: n, head_dim: d, .. } = *config;
        let (layers, kv) = (config.num_hidden_layers, config.num_key_value_heads * d);
        let weights = layers * (h * (n * d + 2 * kv) + n * d * h + 3 * h * i);
        let [token, pair, head] = [2 * weights, layers * 4 * n * d, 2 * h * config.vocab_size].map(|n| n as f64);
        Self { token, pair, head }
    }

    /// The layers' operations for the tokens `first..last` of a sequence, each of which attends to itself and to all
    /// before it.
    pub fn pass(&self, first: usize, last: usize) -> f64 {
        let pairs = (last * (last + 1) - first * (first + 1)) / 2;
        (last - first) as f64 * self.token + pairs as f64 * self.pair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_products() {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32}"#,
        )
        .unwrap();
        let products = Products::of(&config);
        // Shape by shape: q, k, v, o, gate, up, down for each token, and in each head a product with the keys and one
        // with the values for each pair.
        let naive = |tokens: std::ops::Range<u32>| {
            let shapes = [(8, 8), (8, 4), (8, 4), (8, 8), (8, 12), (8, 12), (12, 8)];
            let weights: u32 = shapes.map(|(rows, columns)| 2 * tokens.len() as u32 * rows * columns).iter().sum();
            let pairs: u32 = tokens.map(|at| at + 1).sum();
            f64::from(2 * (weights + pairs * 4 * (2 * 2 + 2 * 2)))
        };
        for tokens in [0..0, 0..1, 0..5, 3..5, 4..4] {
            let [first, last] = [tokens.start, tokens.end].map(|at| at as usize);
            assert_eq!(products.pass(first, last), naive(tokens));
        }
        assert_eq!(products.head, f64::from(2 * 8 * 10));
    }
}
