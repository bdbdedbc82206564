//! What is computed from hidden states: the policy's log-probs and entropies, the critic's values.
//!
//! Both are computed only for the response tokens: `read` names, among the B*T positions of a padded batch, those that
//! predict a response token, so that no vocabulary-wide row is spent on prompts or padding.
//!
//! Shapes: B batch, T time, N positions read, H hidden, V vocabulary.

use super::config::ModelConfig;
use super::decoder::{Decoder, Tokens};
use super::nn::Linear;
use super::weights::{Head, Weights};
use crate::torch::{Packed, has_room, is_fused, recompute, vocabulary};
use tch::{Device, Kind, Tensor};

/// A language model: decoder and vocabulary head over their weights.
pub struct Policy {
    pub config: ModelConfig,
    pub weights: Weights,
    pub decoder: Decoder,
    /// Largest number of log-probs (tokens times V) that are computed at a time.
    pub vocabulary_part: i64,
    lm_head: Linear,
}

impl Policy {
    /// The model over `weights` of `Head::Language`, as they are: without gradients unless they require them.
    pub fn new(config: &ModelConfig, weights: Weights) -> Self {
        let decoder = Decoder::new(config, &weights);
        let lm_head =
            Linear::new(weights.pp(if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" }));
        Self { config: config.clone(), weights, decoder, vocabulary_part: VOCABULARY_PART, lm_head }
    }

    /// The model with all of `weights` trainable.
    pub fn trainable(config: &ModelConfig, mut weights: Weights) -> Self {
        weights.require_grad();
        Self::new(config, weights)
    }

    pub fn device(&self) -> Device {
        self.weights.flat().device()
    }

    /// The same model for passes over few tokens, with its weights packed as they are now: as much memory once more,
    /// and faster. None if it would not be (`torch::Packed`), or if there is no room for it (`torch::has_room`).
    pub fn packed(&self) -> Option<Self> {
        let flat = self.weights.flat();
        let bytes = flat.numel() * flat.kind().elt_size_in_bytes();
        (Packed::helps(flat) && has_room(bytes as u64)).then(|| self.with_packed_weights())
    }

    fn with_packed_weights(&self) -> Self {
        Self {
            config: self.config.clone(),
            weights: self.weights.shallow_clone(),
            decoder: self.decoder.packed(),
            vocabulary_part: self.vocabulary_part,
            lm_head: self.lm_head.packed(),
        }
    }

    /// Vocabulary scores [.., V], in the compute kind, of hidden states [.., H].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        self.lm_head.forward(hidden)
    }

    /// Hidden states [N, H] at the positions that predict response tokens, those that `tokens` reads.
    pub fn hidden(&self, tokens: &Tokens) -> Tensor {
        self.decoder.forward_at(tokens)
    }

    /// Log-probs of `targets` [N], which `hidden` [N, H] predicts, at `temperature`, the one the rollouts were sampled
    /// at; float32, in nats.
    pub fn log_probs(&self, hidden: &Tensor, targets: &Tensor, temperature: f64) -> Tensor {
        self.by_part(hidden, targets, temperature, false).get(0)
    }

    /// `log_probs`, and the entropies [N] of the distributions the targets were drawn from, in nats.
    pub fn log_probs_and_entropies(&self, hidden: &Tensor, targets: &Tensor, temperature: f64) -> (Tensor, Tensor) {
        let both = self.by_part(hidden, targets, temperature, true);
        (both.get(0), both.get(1))
    }

    /// The `figures` of all tokens, for some of them at a time.
    ///
    /// If there are several parts, the backward pass computes their logits again: only one part's are ever held.
    fn by_part(&self, hidden: &Tensor, targets: &Tensor, temperature: f64, entropies: bool) -> Tensor {
        let tokens = (self.vocabulary_part / self.config.vocab_size).max(1);
        let whole = hidden.size()[0] <= tokens;
        let parts = hidden.split(tokens, 0).into_iter().zip(targets.split(tokens, 0));
        let parts = parts.map(|(hidden, targets)| {
            let lm_head = self.lm_head.shallow_clone();
            let part = move |hidden: &Tensor| figures(hidden, &lm_head, &targets, temperature, entropies);
            if whole { part(&hidden) } else { recompute(&hidden, part) }
        });
        Tensor::cat(&parts.collect::<Vec<_>>(), 1)
    }
}

/// Log-probs of `targets` [n] and, if wanted, entropies: [1 or 2, n] float32.
fn figures(hidden: &Tensor, lm_head: &Linear, targets: &Tensor, temperature: f64, entropies: bool) -> Tensor {
    if let Some(weight) = lm_head.plain_weight().filter(|_| is_fused(hidden)) {
        let (log_probs, all) = vocabulary(hidden, weight, targets, 1.0 / temperature);
        return if entropies { Tensor::stack(&[log_probs, all], 0) } else { log_probs.unsqueeze(0) };
    }
    let logits = lm_head.forward(hidden).to_kind(Kind::Float);
    let logits = if temperature == 1.0 { logits } else { logits / temperature };
    let all = logits.log_softmax(-1, Kind::Float); // [n, V]
    let log_probs = all.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1);
    match entropies {
        true => Tensor::stack(&[log_probs, -(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Float)], 0),
        false => log_probs.unsqueeze(0),
    }
}

/// Numbers over the vocabulary that are computed at a time: 128 MiB in float32, of which a few copies are held.
pub const VOCABULARY_PART: i64 = 1 << 25;

/// A decoder with a scalar head: the expected return from each position onwards.
pub struct Critic {
    pub config: ModelConfig,
    pub weights: Weights,
    pub decoder: Decoder,
    score: Linear,
}

impl Critic {
    /// The critic with all of `weights`, of `Head::Value`, trainable.
    pub fn trainable(config: &ModelConfig, mut weights: Weights) -> Self {
        weights.require_grad();
        let (decoder, score) = (Decoder::new(config, &weights), Linear::new(weights.pp("score")));
        Self { config: config.clone(), weights, decoder, score }
    }

    /// Values [N], float32, at the positions that `tokens` reads: before the next token is generated.
    pub fn values(&self, tokens: &Tokens) -> Tensor {
        values(&self.score, &self.decoder.forward_at(tokens))
    }
}

/// A critic without its own decoder: a scalar head that reads the actor's hidden states.
pub struct ValueHead {
    pub weights: Weights,
    score: Linear,
}

impl ValueHead {
    /// The head with its `weights`, of `Head::ValueOnly`, trainable.
    pub fn trainable(mut weights: Weights) -> Self {
        weights.require_grad();
        Self { score: Linear::new(weights.pp("score")), weights }
    }

    /// Values [N], float32, of the policy's `hidden` states [N, H].
    pub fn values(&self, hidden: &Tensor) -> Tensor {
        values(&self.score, hidden)
    }
}

/// Values [N], float32, of hidden states [N, H] by a linear map to one number.
fn values(score: &Linear, hidden: &Tensor) -> Tensor {
    score.forward(hidden).squeeze_dim(-1).to_kind(Kind::Float)
}

/// A critic's weights: the decoder of a language model, and a value head that is zero.
pub fn critic_weights(config: &ModelConfig, decoder: &Weights) -> Weights {
    let flat = decoder.flat();
    let critic = Weights::zeros(config, Head::Value, flat.kind(), flat.device());
    critic.copy_from(decoder);
    critic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_host;

    /// The same logits, within what bfloat16 rounds in two layers and a head.
    #[test]
    fn a_packed_policy_says_the_same() {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32, "tie_word_embeddings": true}"#,
        )
        .unwrap();
        let policy = |kind| {
            let weights = Weights::random(&config, Head::Language, kind, Device::Cpu, 5).unwrap();
            Policy::trainable(&config, weights)
        };
        assert!(policy(Kind::Float).packed().is_none());
        let plain = policy(Kind::BFloat16);
        let packed = plain.with_packed_weights();
        let ids = Tensor::arange(12, (Kind::Int64, Device::Cpu)).view([3, 4]);
        let logits = |of: &Policy| tch::no_grad(|| to_host(&of.logits(&of.decoder.forward(&ids))));
        let (expected, found) = (logits(&plain), logits(&packed));
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let worst = expected.iter().zip(&found).map(|(e, f)| (e - f).abs()).fold(0.0, f32::max);
        assert!(largest > 0.0 && worst <= largest * 2f32.powi(-6), "{worst} of {largest}");
    }
}
