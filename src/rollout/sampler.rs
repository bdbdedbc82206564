//! Drawing the next token of each row: one uniform number per row against the cumulative distribution.

use crate::torch::{is_fused, sample};
use tch::{Kind, Tensor};

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; the recorded log-probs are of the distribution at this temperature.
    pub temperature: f64,
    /// Draw from the smallest set of tokens with at least this probability mass.
    pub top_p: f64,
    /// Draw from this many of the most probable tokens (0: all).
    pub top_k: i64,
    /// Take the most probable token; nothing is drawn.
    pub greedy: bool,
}

impl Sampling {
    /// The most probable token each time; log-probs at temperature 1.
    pub fn greedy() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, greedy: true }
    }

    /// Draws at temperature 1 from the whole distribution.
    pub fn plain() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, greedy: false }
    }

    /// Picks one token per row from `logits` [B, V] among the first `limit` ids, by `uniform` [B] in [0, 1).
    ///
    /// Returns the tokens [B] and their log-probs [B] under the full distribution at the temperature, before top-p and
    /// top-k, so that they can be compared with the scorer's.
    pub fn pick(&self, logits: &Tensor, limit: i64, uniform: &Tensor) -> (Tensor, Tensor) {
        let truncated = !self.greedy && (self.top_k > 0 || self.top_p < 1.0);
        if is_fused(logits) && !truncated {
            return sample(logits, limit, 1.0 / self.temperature, (!self.greedy).then_some(uniform));
        }
        let logits = logits.to_kind(Kind::Float);
        let logits = if self.temperature == 1.0 { logits } else { logits / self.temperature };
        let log_probs = logits.log_softmax(-1, Kind::Float); // [B, V]
        let allowed = log_probs.narrow(1, 0, limit);
        let tokens = if self.greedy {
            allowed.argmax(-1, true)
        } else if truncated {
            self.pick_truncated(&allowed.exp(), uniform)
        } else {
            invert(&allowed.exp(), uniform)
        }; // [B, 1]
        let chosen = log_probs.gather(-1, &tokens, false);
        (tokens.squeeze_dim(1), chosen.squeeze_dim(1))
    }

    fn pick_truncated(&self, probs: &Tensor, uniform: &Tensor) -> Tensor {
        let vocabulary = probs.size()[1];
        let k = if self.top_k > 0 { self.top_k.min(vocabulary) } else { vocabulary };
        let (sorted, order) = probs.topk(k, -1, true, true); // [B, k]
        // A token is kept while the mass before it is below top_p, so the first always is.
        let before = sorted.cumsum(-1, Kind::Float) - &sorted;
        let kept = &sorted * before.lt(self.top_p).to_kind(Kind::Float);
        order.gather(1, &invert(&kept, uniform), false)
    }
}

/// The index [B, 1] at which the cumulative sum of each row of `mass` [B, V] passes its `uniform` share of the total.
fn invert(mass: &Tensor, uniform: &Tensor) -> Tensor {
    let cumulative = mass.cumsum(-1, Kind::Float);
    let total = cumulative.narrow(1, cumulative.size()[1] - 1, 1);
    // The share may round up to the total; just below that is still within a token that has mass.
    let share = (&total * uniform.unsqueeze(1)).minimum(&(&total * (1.0 - 1e-6)));
    // Where probabilities are not finite, no place is found.
    share.searchsorted(&cumulative, false, true, "right", None::<&Tensor>).clamp_max(mass.size()[1] - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(top_p: f64, top_k: i64) -> Sampling {
        Sampling { temperature: 1.0, top_p, top_k, greedy: false }
    }

    fn draw(sampling: &Sampling, probs: &[f32], uniforms: &[f32], limit: i64) -> Vec<i64> {
        let rows = uniforms.len() as i64;
        let logits = Tensor::from_slice(probs).log().unsqueeze(0).repeat([rows, 1]);
        let (tokens, _) = sampling.pick(&logits, limit, &Tensor::from_slice(uniforms));
        crate::torch::ids_to_host(&tokens)
    }

    #[test]
    fn uniforms_fall_into_the_cumulative_distribution() {
        let probs = [0.25, 0.0, 0.5, 0.25];
        let uniforms = [0.0, 0.24, 0.26, 0.74, 0.76, 0.9999999];
        assert_eq!(draw(&sampling(1.0, 0), &probs, &uniforms, 4), [0, 0, 2, 2, 3, 3]);
        // Ids past the tokenizer are never drawn, and the rest keeps its proportions.
        assert_eq!(draw(&sampling(1.0, 0), &probs, &[0.3, 0.34, 0.9999999], 3), [0, 2, 2]);
    }

    #[test]
    fn truncation_keeps_the_most_probable() {
        let probs = [0.1, 0.4, 0.2, 0.3];
        let uniforms: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
        let seen = |s: &Sampling| {
            let mut ids = draw(s, &probs, &uniforms, 4);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(seen(&sampling(1.0, 2)), [1, 3]);
        assert_eq!(seen(&sampling(0.65, 0)), [1, 3]);
        assert_eq!(seen(&sampling(0.71, 0)), [1, 2, 3]);
        assert_eq!(seen(&sampling(0.01, 0)), [1]);
    }

    #[test]
    fn log_probs_are_of_the_whole_distribution_at_the_temperature() {
        let logits = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 0.5]).unsqueeze(0);
        let cold = Sampling { temperature: 0.5, top_p: 0.1, top_k: 1, greedy: false };
        let (token, log_prob) = cold.pick(&logits, 4, &Tensor::from_slice(&[0.5f32]));
        let total: f64 = [2.0f64, 4.0, 6.0, 1.0].iter().map(|l| l.exp()).sum();
        assert_eq!(token.int64_value(&[0]), 2);
        assert!((log_prob.double_value(&[0]) - (6.0 - total.ln())).abs() < 1e-6);
    }
}
