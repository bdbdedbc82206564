//! Drawing tokens of which the host sees each before the next.

use super::batch::Batch;
use super::progress::{Drawing, Progress};
use super::sampler::Sampling;
use crate::model::Policy;
use crate::torch::on_device;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Steps of decoding after which the weights are packed. That takes the time of a few steps, which only rollouts of
/// many get back; how many a rollout will have is not known, but where there were many there are likely to be more.
const PACKED_TOKENS: usize = 32;

/// Rows whose tokens are drawn one at a time.
pub struct Near<'a> {
    decoding: Decoding<'a>,
    sampling: &'a Sampling,
    /// Ids from here on are never drawn.
    vocabulary: i64,
    batch: Batch<'a>,
    /// The tokens that were drawn last and not read yet, [B].
    unread: Option<Tensor>,
}

impl<'a> Near<'a> {
    /// For tokens that `policy` draws in the manner of `sampling` among the first ids of its vocabulary.
    pub fn new((policy, sampling, vocabulary): (&'a Policy, &'a Sampling, i64), batch: Batch<'a>) -> Self {
        let decoding = Decoding { plain: policy, packed: None, steps: 0 };
        Self { decoding, sampling, vocabulary, batch, unread: None }
    }

    fn read(&mut self) {
        if let Some(tokens) = self.unread.take() {
            let (extent, _) = self.batch.slots();
            self.batch.read(self.decoding.next(), &tokens, extent);
            self.batch.count();
        }
    }
}

impl Drawing for Near<'_> {
    fn rows(&self) -> &[usize] {
        &self.batch.rows
    }

    fn draw(&mut self, progress: &mut Progress) -> (Tensor, Tensor) {
        self.read();
        let mut logits = self.decoding.policy().logits(&self.batch.hidden);
        if progress.held.is_some() {
            logits = progress.masked(&logits.to_kind(Kind::Float), &self.batch.rows);
        }
        let (tokens, log_probs) = self.sampling.pick(&logits, self.vocabulary, &self.batch.uniforms());
        self.unread = Some(tokens.shallow_clone());
        (tokens.unsqueeze(0), log_probs.unsqueeze(0))
    }

    fn keep(&mut self, live: &[i64]) {
        let index = on_device(live, self.decoding.plain.device());
        self.batch.keep(live, &index);
        self.unread = self.unread.as_ref().map(|tokens| tokens.index_select(0, &index));
    }

    fn replace(&mut self, rows: &[usize], prompts: Range<usize>) -> bool {
        self.read();
        self.batch.replace(rows, prompts)
    }
}

/// The policy for single tokens, whose weights are packed once many steps have been decoded.
struct Decoding<'a> {
    plain: &'a Policy,
    packed: Option<Policy>,
    /// Steps so far.
    steps: usize,
}

impl Decoding<'_> {
    /// The policy for the next step.
    fn next(&mut self) -> &Policy {
        if self.steps == PACKED_TOKENS {
            self.packed = self.plain.packed();
        }
        self.steps += 1;
        self.policy()
    }

    fn policy(&self) -> &Policy {
        self.packed.as_ref().unwrap_or(self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig, Weights};
    use tch::Device;

    #[test]
    fn weights_are_packed_once_many_tokens_were_decoded() {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e4, "max_position_embeddings": 32, "tie_word_embeddings": true}"#,
        )
        .unwrap();
        let weights = Weights::random(&config, Head::Language, Kind::BFloat16, Device::Cpu, 5).unwrap();
        let policy = Policy::new(&config, weights);
        let mut decoding = Decoding { plain: &policy, packed: None, steps: 0 };
        for _ in 0..PACKED_TOKENS {
            assert!(std::ptr::eq(decoding.next(), &policy));
        }
        // As far as this machine packs them at all.
        let packs = policy.packed().is_some();
        for _ in 0..2 {
            assert_eq!(std::ptr::eq(decoding.next(), &policy), !packs);
        }
    }
}
