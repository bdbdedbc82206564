//! The losses of PPO (arXiv:1707.06347) over flat response tokens.
//!
//! Each takes [N] tensors and the tokens' weights [N] (see `aggregate`) and returns a weighted sum that is ready for
//! `backward`, with the weighted shares and means that describe the update.

use tch::{Kind, Tensor};

/// How far the policy may move in one update.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    /// The ratio stays within 1 - low ..= 1 + high (asymmetric: arXiv:2503.14476, "clip-higher").
    pub low: f64,
    pub high: f64,
    /// Bound on the loss of negative advantages, as a multiple (arXiv:1912.09729, equation 5); 0: off.
    pub dual: f64,
}

/// The clipped surrogate and how much of it was clipped; all scalars.
pub struct PolicyLoss {
    pub loss: Tensor,
    pub clip_fraction: Tensor,
    /// Share of tokens that the dual clip bounded.
    pub clip_fraction_lower: Tensor,
    /// Mean of old - new log-prob: the KL of the update, to first order.
    pub kl: Tensor,
}

/// Equation 7 of arXiv:1707.06347, with the dual clip for negative advantages if it is on.
pub fn policy_loss(new: &Tensor, old: &Tensor, advantages: &Tensor, weights: &Tensor, clip: Clip) -> PolicyLoss {
    let log_ratio = new - old;
    let ratio = log_ratio.clamp(-20.0, 20.0).exp();
    let free = -advantages * &ratio;
    let clipped = -advantages * ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    let share = |chosen: Tensor| (chosen.to_kind(Kind::Float) * weights).sum(Kind::Float);
    let clip_fraction = share(clipped.gt_tensor(&free));
    let mut losses = free.maximum(&clipped);
    let mut clip_fraction_lower = weights.new_zeros([0i64; 0], (Kind::Float, weights.device()));
    if clip.dual > 0.0 {
        let bound = -advantages * clip.dual;
        let bounded = advantages.lt(0.0).logical_and(&losses.gt_tensor(&bound));
        clip_fraction_lower = share(bounded.shallow_clone());
        losses = bound.where_self(&bounded, &losses);
    }
    PolicyLoss {
        loss: (losses * weights).sum(Kind::Float),
        clip_fraction,
        clip_fraction_lower,
        kl: (-log_ratio.detach() * weights).sum(Kind::Float),
    }
}

/// The clipped value loss and the share of tokens it was clipped on; both scalars.
pub struct ValueLoss {
    pub loss: Tensor,
    pub clip_fraction: Tensor,
}

/// Squared error to the returns, of the value or of the value held within `clip` of its old estimate, whichever is
/// larger (0: no clip).
pub fn value_loss(new: &Tensor, old: &Tensor, returns: &Tensor, weights: &Tensor, clip: f64) -> ValueLoss {
    let free = (new - returns).square();
    let (losses, clipped) = if clip > 0.0 {
        // Exactly `new` within the clip: a rounding difference would count as clipped.
        let held = (new.maximum(&(old - clip)).minimum(&(old + clip)) - returns).square();
        (free.maximum(&held), held.gt_tensor(&free))
    } else {
        let none = free.zeros_like();
        (free, none)
    };
    let share = (clipped.to_kind(Kind::Float) * weights).sum(Kind::Float);
    ValueLoss { loss: (losses * weights).sum(Kind::Float), clip_fraction: share }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device};
    use proptest::prelude::*;

    struct Naive {
        policy: f64,
        clipped: f64,
        lower: f64,
        kl: f64,
        value: f64,
    }

    /// The losses token by token, with their conditions spelt out.
    fn naive(tokens: &[[f32; 6]], clip: Clip, value_clip: f64) -> Naive {
        let mut n = Naive { policy: 0.0, clipped: 0.0, lower: 0.0, kl: 0.0, value: 0.0 };
        for token in tokens {
            let [new, old, advantage, weight, value, target] = token.map(f64::from);
            let ratio = (new - old).exp();
            let mut loss = -advantage * ratio;
            let too_far = if advantage > 0.0 { ratio > 1.0 + clip.high } else { ratio < 1.0 - clip.low };
            if too_far {
                loss = -advantage * if advantage > 0.0 { 1.0 + clip.high } else { 1.0 - clip.low };
                n.clipped += weight;
            }
            if clip.dual > 0.0 && advantage < 0.0 && loss > -advantage * clip.dual {
                loss = -advantage * clip.dual;
                n.lower += weight;
            }
            n.policy += weight * loss;
            n.kl += weight * (old - new);
            // The old value estimate is taken as zero here.
            let held = if value_clip > 0.0 { value.max(-value_clip).min(value_clip) } else { value };
            n.value += weight * (value - target).powi(2).max((held - target).powi(2));
        }
        n
    }

    proptest! {
        #[test]
        fn losses_equal_their_token_by_token_form(
            tokens in prop::collection::vec(
                [-3f32..0.0, -3f32..0.0, -2f32..2.0, 0f32..1.0, -2f32..2.0, -1f32..1.0], 1..40),
            (low, high) in (0.05f64..0.5, 0.05f64..0.5),
            dual in prop::sample::select(vec![0.0, 1.5, 3.0]),
            value_clip in prop::sample::select(vec![0.0, 0.5]),
        ) {
            let clip = Clip { low, high, dual };
            let column = |i: usize| on_device(&tokens.iter().map(|t| t[i]).collect::<Vec<_>>(), test_device());
            let (new, old, advantages, weights) = (column(0), column(1), column(2), column(3));
            let policy = policy_loss(&new, &old, &advantages, &weights, clip);
            let value = value_loss(&column(4), &new.zeros_like(), &column(5), &weights, value_clip);
            let expected = naive(&tokens, clip, value_clip);
            for (name, got, expected) in [
                ("policy", &policy.loss, expected.policy),
                ("clipped", &policy.clip_fraction, expected.clipped),
                ("lower", &policy.clip_fraction_lower, expected.lower),
                ("kl", &policy.kl, expected.kl),
                ("value", &value.loss, expected.value),
            ] {
                let got = got.double_value(&[]);
                prop_assert!((got - expected).abs() < 1e-4 * expected.abs().max(1.0), "{}: {} {}", name, got, expected);
            }
        }
    }

    #[test]
    fn no_gradient_flows_from_a_clipped_token() {
        let weights = on_device(&[0.5f32, 0.5], test_device());
        let new = on_device(&[0.0f32, 0.0], test_device()).set_requires_grad(true);
        let old = on_device(&[-1.0f32, 0.0], test_device());
        let clip = Clip { low: 0.2, high: 0.2, dual: 0.0 };
        policy_loss(&new, &old, &on_device(&[1.0f32, 1.0], test_device()), &weights, clip).loss.backward();
        assert_eq!(crate::torch::to_host(&new.grad()), [0.0, -0.5]);
    }
}
