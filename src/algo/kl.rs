//! The distance to the reference: estimators of KL(actor || reference) from one sample a token, and its coefficient.

use crate::recipe::KlEstimator;
use tch::Tensor;

/// Estimates a token's KL from its log-probs under actor and reference, [N] each (Schulman 2020: k1 = -log r unbiased,
/// k2 = (log r)^2 / 2 low variance, k3 = r - 1 - log r both, with r = reference / actor).
pub fn estimate(actor: &Tensor, reference: &Tensor, estimator: KlEstimator) -> Tensor {
    let log_ratio = actor - reference;
    match estimator {
        KlEstimator::K1 => log_ratio,
        KlEstimator::K2 => log_ratio.square() * 0.5,
        KlEstimator::K3 => (-&log_ratio).exp() - 1 + log_ratio,
    }
}

/// The KL coefficient: fixed, or steered to a target (arXiv:1909.08593, section 2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Controller {
    pub coefficient: f64,
    /// KL it steers to, in nats a token; 0: the coefficient stays.
    target: f64,
    /// Sequences over which it reacts.
    horizon: f64,
}

impl Controller {
    pub fn new(coefficient: f64, target: f64, horizon: f64) -> Self {
        Self { coefficient, target, horizon }
    }

    /// Reacts to the mean KL a token of a step of `sequences`.
    pub fn update(&mut self, kl: f64, sequences: usize) {
        if self.target > 0.0 {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coefficient *= 1.0 + error * sequences as f64 / self.horizon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_host;

    #[test]
    fn estimators_agree_with_their_formulas() {
        let (actor, reference) = ([-1.0f32, -2.0, -0.5], [-1.5f32, -1.0, -0.5]);
        let estimates = |e| to_host(&estimate(&Tensor::from_slice(&actor), &Tensor::from_slice(&reference), e));
        let naive =
            |f: fn(f32) -> f32| -> Vec<f32> { actor.iter().zip(reference).map(|(a, r)| f((r - a).exp())).collect() };
        for (got, expected) in [
            (estimates(KlEstimator::K1), naive(|r| -r.ln())),
            (estimates(KlEstimator::K2), naive(|r| r.ln().powi(2) / 2.0)),
            (estimates(KlEstimator::K3), naive(|r| r - 1.0 - r.ln())),
        ] {
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() < 1e-6, "{got:?} {expected:?}");
            }
        }
    }

    #[test]
    fn the_controller_moves_towards_its_target() {
        let mut controller = Controller::new(0.1, 0.01, 1000.0);
        controller.update(0.02, 100);
        assert!((controller.coefficient - 0.1 * 1.02).abs() < 1e-12);
        controller.update(0.0099, 100);
        assert!((controller.coefficient - 0.1 * 1.02 * 0.999).abs() < 1e-12);
        let mut fixed = Controller::new(0.1, 0.0, 1000.0);
        fixed.update(5.0, 100);
        assert_eq!(fixed.coefficient, 0.1);
    }
}
