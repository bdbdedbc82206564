//! What is read off the decoder: the policy's log-probs and entropies, the critic's values.
//!
//! Both are computed for the response tokens alone: `read` names, among the B*T positions of a padded batch, those that
//! predict a response token, so that no vocabulary-wide row is spent on prompts or padding.

use super::config::ModelConfig;
use super::decoder::Decoder;
use super::weights::{Head, Weights};
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// A language model: decoder and vocabulary head over their weights.
pub struct Policy {
    pub config: ModelConfig,
    pub weights: Weights,
    pub decoder: Decoder,
    lm_head: Tensor,
}

impl Policy {
    /// `positions`: the longest sequence it will see, in tokens.
    pub fn new(config: &ModelConfig, weights: Weights, positions: i64) -> Self {
        let decoder = Decoder::new(config, &weights, positions);
        let head = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let lm_head = weights.get(head);
        Self { config: config.clone(), weights, decoder, lm_head }
    }

    /// The same model with `weights` made trainable.
    pub fn trainable(config: &ModelConfig, mut weights: Weights, positions: i64) -> Result<Self> {
        weights.train()?;
        Ok(Self::new(config, weights, positions))
    }

    pub fn device(&self) -> Device {
        self.weights.flat().device()
    }

    /// Vocabulary scores in float32, [.., V], of hidden states [.., H].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.lm_head, None::<&Tensor>).to_kind(Kind::Float)
    }

    /// Log-probs of `targets` [N] and the entropies [N] of the distributions they were drawn from, float32, in nats.
    ///
    /// `ids` [B, T] right-padded; `read` [N] indexes the B*T positions whose next token is the target. Both are of the
    /// distribution at `temperature`, which is the one the rollouts were sampled from.
    pub fn log_probs(&self, ids: &Tensor, read: &Tensor, targets: &Tensor, temperature: f64) -> (Tensor, Tensor) {
        let hidden = self.decoder.forward(ids).flatten(0, 1).index_select(0, read); // [N, H]
        token_log_probs(&(self.logits(&hidden) / temperature), targets)
    }
}

/// Log-probs of `targets` [N] and entropies [N] from logits [N, V].
pub fn token_log_probs(logits: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    let log_probs = logits.log_softmax(-1, Kind::Float); // [N, V]
    let chosen = log_probs.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1);
    let entropy = -(log_probs.exp() * &log_probs).sum_dim_intlist(-1, false, Kind::Float);
    (chosen, entropy)
}

/// A decoder with a scalar head: the expected return from each position on.
pub struct Critic {
    pub config: ModelConfig,
    pub weights: Weights,
    decoder: Decoder,
    score: (Tensor, Tensor),
}

impl Critic {
    /// `positions`: the longest sequence it will see, in tokens.
    pub fn trainable(config: &ModelConfig, mut weights: Weights, positions: i64) -> Result<Self> {
        weights.train()?;
        let decoder = Decoder::new(config, &weights, positions);
        let score = (weights.get("score.weight"), weights.get("score.bias"));
        Ok(Self { config: config.clone(), weights, decoder, score })
    }

    /// Values [N], float32, read before the tokens that `read` [N] predicts are generated; `ids` [B, T].
    pub fn values(&self, ids: &Tensor, read: &Tensor) -> Tensor {
        let hidden = self.decoder.forward(ids).flatten(0, 1).index_select(0, read); // [N, H]
        hidden.linear(&self.score.0, Some(&self.score.1)).squeeze_dim(-1).to_kind(Kind::Float)
    }
}

/// Copies a policy's decoder into a fresh critic's weights; the value head is zero.
pub fn critic_weights(policy: &Policy) -> Weights {
    let flat = policy.weights.flat();
    let critic = Weights::zeros(&policy.config, Head::Value, flat.kind(), flat.device());
    tch::no_grad(|| {
        for (name, target) in critic.entries() {
            if !name.starts_with("score.") {
                target.shallow_clone().copy_(&policy.weights.get(name).detach());
            }
        }
    });
    critic
}
