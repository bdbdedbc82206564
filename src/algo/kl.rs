//! The distance to the reference: estimators of KL(actor || reference) from one sample per token (Schulman,
//! "Approximating KL divergence", 2020), and the coefficient of the penalty.
//!
//! With r = reference / actor; each estimator takes log-probs under actor and reference, [N] each.

use tch::Tensor;

/// -log r: unbiased, with high variance, negative where the reference is more certain.
pub fn k1(actor: &Tensor, reference: &Tensor) -> Tensor {
    actor - reference
}

/// (log r)^2 / 2: biased, with low variance.
pub fn k2(actor: &Tensor, reference: &Tensor) -> Tensor {
    (actor - reference).square() * 0.5
}

/// r - 1 - log r: unbiased, with low variance.
pub fn k3(actor: &Tensor, reference: &Tensor) -> Tensor {
    let log_ratio = actor - reference;
    (-&log_ratio).exp() - 1 + log_ratio
}

/// The coefficient after a step of `sequences` with a mean KL of `kl` nats per token, steered to `target` over
/// `horizon` sequences (arXiv:1909.08593, section 2.2). A target of 0 leaves it fixed.
pub fn adapted(coefficient: f64, kl: f64, sequences: usize, target: f64, horizon: f64) -> f64 {
    if target == 0.0 {
        return coefficient;
    }
    let error = (kl / target - 1.0).clamp(-0.2, 0.2);
    coefficient * (1.0 + error * sequences as f64 / horizon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};

    #[test]
    fn estimators_agree_with_their_formulas() {
        let (actor, reference) = ([-1.0f32, -2.0, -0.5], [-1.5f32, -1.0, -0.5]);
        let estimates = |estimator: fn(&Tensor, &Tensor) -> Tensor| {
            to_host(&estimator(&on_device(&actor, test_device()), &on_device(&reference, test_device())))
        };
        let naive =
            |f: fn(f32) -> f32| -> Vec<f32> { actor.iter().zip(reference).map(|(a, r)| f((r - a).exp())).collect() };
        for (got, expected) in [
            (estimates(k1), naive(|r| -r.ln())),
            (estimates(k2), naive(|r| r.ln().powi(2) / 2.0)),
            (estimates(k3), naive(|r| r - 1.0 - r.ln())),
        ] {
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() < 1e-6, "{got:?} {expected:?}");
            }
        }
    }

    #[test]
    fn the_coefficient_moves_towards_its_target() {
        let raised = adapted(0.1, 0.02, 100, 0.01, 1000.0);
        assert!((raised - 0.1 * 1.02).abs() < 1e-12);
        let lowered = adapted(raised, 0.0099, 100, 0.01, 1000.0);
        assert!((lowered - raised * 0.999).abs() < 1e-12);
        assert_eq!(adapted(0.1, 5.0, 100, 0.0, 1000.0), 0.1);
    }
}
