//! How many floating-point operations a step takes: those of its matrix products, a multiplication and an addition
//! counted as two, as model FLOPs utilisation counts them (arXiv:2204.02311, appendix B).
//!
//! What an implementation does beyond that (padding, layers computed again, prompts read once per sample) is not
//! counted: it lowers the rate that is reached.

use crate::model::ModelConfig;
use std::sync::Arc;

/// Operations and tokens of the stages of one step.
pub struct Counted {
    /// Rollouts: prompts once, then each response.
    pub generation: f64,
    /// One pass over all sequences, with log-probs of their responses.
    pub scoring: f64,
    /// One pass with values.
    pub values: f64,
    /// Tokens of the responses.
    pub written: usize,
    /// Tokens of all sequences, prompts once per sample.
    pub read: usize,
}

impl Counted {
    /// Operations of an update: backward passes take twice a forward pass (one product for the inputs' gradients, one
    /// for the weights').
    pub fn update(forward: f64) -> f64 {
        3.0 * forward
    }
}

/// Counts for prompts, `samples` responses each, of these lengths.
pub fn count(config: &ModelConfig, prompts: &[Arc<[i64]>], lengths: &[usize], samples: usize) -> Counted {
    let [token, pair, head] = costs(config);
    // Tokens first..last of a sequence, each attending to itself and all before it.
    let pass = |first: usize, last: usize| {
        let pairs: f64 = (last * (last + 1) / 2 - first * (first + 1) / 2) as f64;
        (last - first) as f64 * token + pairs * pair
    };
    let (mut generation, mut scoring, mut values, mut read) = (0.0, 0.0, 0.0, 0);
    for (prompt, lengths) in prompts.iter().zip(lengths.chunks(samples)) {
        generation += pass(0, prompt.len());
        for length in lengths {
            let all = prompt.len() + length;
            generation += pass(prompt.len(), all - 1) + *length as f64 * head;
            values += pass(0, all);
            scoring += pass(0, all) + *length as f64 * head;
            read += all;
        }
    }
    Counted { generation, scoring, values, written: lengths.iter().sum(), read }
}

/// Operations of a forward pass: per token in the layers' products with weights, per pair of tokens of which one
/// attends to the other, and per token whose logits are computed.
fn costs(config: &ModelConfig) -> [f64; 3] {
    let ModelConfig { hidden_size: h, intermediate_size: i, num_attention_heads: n, head_dim: d, .. } = *config;
    let (layers, kv) = (config.num_hidden_layers, config.num_key_value_heads * d);
    let weights = layers * (h * (n * d + 2 * kv) + n * d * h + 3 * h * i);
    [2 * weights, layers * 4 * n * d, 2 * h * config.vocab_size].map(|count| count as f64)
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
        // Shape by shape: q, k, v, o, gate, up, down for each token, and in each head a product with the keys and one
        // with the values for each pair.
        let pass = |tokens: u32| {
            let products = [(8, 8), (8, 4), (8, 4), (8, 8), (8, 12), (8, 12), (12, 8)];
            let weights: u32 = products.map(|(rows, columns)| 2 * tokens * rows * columns).iter().sum();
            let pairs: u32 = (1..=tokens).sum();
            f64::from(2 * (weights + pairs * 4 * (2 * 2 + 2 * 2)))
        };
        let prompts: Vec<Arc<[i64]>> = vec![vec![1, 2, 3].into()];
        let counted = count(&config, &prompts, &[2, 1], 2);
        assert_eq!((counted.written, counted.read), (3, 9));
        assert_eq!(counted.values, pass(5) + pass(4));
        assert_eq!(counted.scoring, counted.values + f64::from(3 * 2 * 8 * 10));
        // The last token of a response is never read.
        assert_eq!(counted.generation, pass(3) + (pass(4) - pass(3)) + f64::from(3 * 2 * 8 * 10));
    }
}
