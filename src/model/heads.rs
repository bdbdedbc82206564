//! What is read off the decoder: the policy's log-probs and entropies, the critic's values.
//!
//! Both are computed for the response tokens alone: `read` names, among the B*T positions of a padded batch, those that
//! predict a response token, so that no vocabulary-wide row is spent on prompts or padding.

use super::config::ModelConfig;
use super::decoder::Decoder;
use super::weights::{Head, Weights};
use crate::torch::recompute;
use tch::{Device, Kind, Tensor};

/// A language model: decoder and vocabulary head over their weights.
pub struct Policy {
    pub config: ModelConfig,
    pub weights: Weights,
    pub decoder: Decoder,
    /// Numbers over the vocabulary that one part of the log-probs' rows may have.
    pub vocabulary_part: i64,
    lm_head: Tensor,
}

impl Policy {
    /// `positions`: the longest sequence it will see, in tokens.
    pub fn new(config: &ModelConfig, weights: Weights, positions: i64) -> Self {
        let decoder = Decoder::new(config, &weights, positions);
        let head = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let lm_head = weights.get(head);
        Self { config: config.clone(), weights, decoder, vocabulary_part: VOCABULARY_PART, lm_head }
    }

    /// The same model with `weights` made trainable.
    pub fn trainable(config: &ModelConfig, mut weights: Weights, positions: i64) -> Self {
        weights.train();
        Self::new(config, weights, positions)
    }

    pub fn device(&self) -> Device {
        self.weights.flat().device()
    }

    /// Vocabulary scores in float32, [.., V], of hidden states [.., H].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        logits(hidden, &self.lm_head)
    }

    /// Hidden states [N, H] at the positions that predict response tokens.
    ///
    /// `ids` [B, T] right-padded; `read` [N] indexes the B*T positions whose next token is a response token.
    pub fn hidden(&self, ids: &Tensor, read: &Tensor) -> Tensor {
        self.decoder.forward(ids).flatten(0, 1).index_select(0, read)
    }

    /// Log-probs of `targets` [N], which `hidden` [N, H] predicts, at `temperature`, the one the rollouts were sampled
    /// at; float32, in nats.
    pub fn log_probs(&self, hidden: &Tensor, targets: &Tensor, temperature: f64) -> Tensor {
        self.by_part(hidden, targets, temperature, |log_probs, targets| chosen(log_probs, targets).unsqueeze(0))
            .squeeze_dim(0)
    }

    /// `log_probs`, and the entropies [N] of the distributions the targets were drawn from.
    pub fn log_probs_and_entropies(&self, hidden: &Tensor, targets: &Tensor, temperature: f64) -> (Tensor, Tensor) {
        let both = self.by_part(hidden, targets, temperature, |log_probs, targets| {
            let entropies = -(log_probs.exp() * log_probs).sum_dim_intlist(-1, false, Kind::Float);
            Tensor::stack(&[chosen(log_probs, targets), entropies], 0)
        });
        (both.get(0), both.get(1))
    }

    /// What `measure` makes of log-probs [n, V] and targets [n], K numbers for each: [K, N].
    ///
    /// Rows of the vocabulary are held for a part of the N tokens at a time; the backward pass computes them again.
    fn by_part(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        measure: fn(&Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let rows = (self.vocabulary_part / self.config.vocab_size).max(1);
        let parts = hidden.split(rows, 0).into_iter().zip(targets.split(rows, 0));
        let whole = hidden.size()[0] <= rows;
        let measured: Vec<Tensor> = parts
            .map(|(hidden, targets)| {
                let lm_head = self.lm_head.shallow_clone();
                let part = move |hidden: &Tensor| {
                    let log_probs = (logits(hidden, &lm_head) / temperature).log_softmax(-1, Kind::Float); // [n, V]
                    measure(&log_probs, &targets)
                };
                if whole { part(&hidden) } else { recompute(&hidden, part) }
            })
            .collect();
        Tensor::cat(&measured, 1)
    }
}

/// Rows over the vocabulary of 128 MiB in float32, of which a few copies live at a time.
pub const VOCABULARY_PART: i64 = 1 << 25;

/// Vocabulary scores in float32, [.., V], of hidden states [.., H].
fn logits(hidden: &Tensor, lm_head: &Tensor) -> Tensor {
    hidden.linear(lm_head, None::<&Tensor>).to_kind(Kind::Float)
}

/// The entries of `log_probs` [n, V] at `targets` [n].
fn chosen(log_probs: &Tensor, targets: &Tensor) -> Tensor {
    log_probs.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1)
}

/// A linear map with bias from hidden states to one number.
struct Score {
    weight: Tensor,
    bias: Tensor,
}

impl Score {
    fn new(weights: &Weights) -> Self {
        Self { weight: weights.get("score.weight"), bias: weights.get("score.bias") }
    }

    /// [N], float32, of hidden states [N, H].
    fn forward(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.weight, Some(&self.bias)).squeeze_dim(-1).to_kind(Kind::Float)
    }
}

/// A decoder with a scalar head: the expected return from each position on.
pub struct Critic {
    pub config: ModelConfig,
    pub weights: Weights,
    pub decoder: Decoder,
    score: Score,
}

impl Critic {
    /// `positions`: the longest sequence it will see, in tokens.
    pub fn trainable(config: &ModelConfig, mut weights: Weights, positions: i64) -> Self {
        weights.train();
        let decoder = Decoder::new(config, &weights, positions);
        Self { config: config.clone(), score: Score::new(&weights), weights, decoder }
    }

    /// Values [N], float32, read before the tokens that `read` [N] predicts are generated; `ids` [B, T].
    pub fn values(&self, ids: &Tensor, read: &Tensor) -> Tensor {
        self.score.forward(&self.decoder.forward(ids).flatten(0, 1).index_select(0, read))
    }
}

/// A critic without a decoder of its own: a scalar head that reads the actor's hidden states.
pub struct ValueHead {
    pub weights: Weights,
    score: Score,
}

impl ValueHead {
    /// Over weights of `Head::ValueOnly`.
    pub fn trainable(mut weights: Weights) -> Self {
        weights.train();
        Self { score: Score::new(&weights), weights }
    }

    /// Values [N], float32, read off the policy's `hidden` states [N, H].
    pub fn values(&self, hidden: &Tensor) -> Tensor {
        self.score.forward(hidden)
    }
}

/// A critic's weights: the decoder of a language model, and a value head that is zero.
pub fn critic_weights(config: &ModelConfig, decoder: &Weights) -> Weights {
    let flat = decoder.flat();
    let critic = Weights::zeros(config, Head::Value, flat.kind(), flat.device());
    critic.take(decoder);
    critic
}
