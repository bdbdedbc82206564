//! The functions that choices in a recipe stand for.

use crate::algo::{aggregate, kl, schedule};
use crate::recipe::{Aggregation, KlEstimator, Schedule};
use tch::Tensor;

/// Estimates of KL(actor || reference), [N], from log-probs under both.
pub fn kl_estimator(estimator: KlEstimator) -> fn(&Tensor, &Tensor) -> Tensor {
    match estimator {
        KlEstimator::K1 => kl::k1,
        KlEstimator::K2 => kl::k2,
        KlEstimator::K3 => kl::k3,
    }
}

/// The weights of a mini-batch's tokens, from the lengths of its responses.
pub fn token_weights(aggregation: Aggregation) -> fn(&[usize]) -> Vec<f32> {
    match aggregation {
        Aggregation::TokenMean => aggregate::token_mean,
        Aggregation::SequenceMean => aggregate::sequence_mean,
    }
}

/// How the learning rate decays.
pub fn decay(schedule: Schedule) -> fn(f64) -> f64 {
    match schedule {
        Schedule::Constant => schedule::constant,
        Schedule::Linear => schedule::linear,
        Schedule::Cosine => schedule::cosine,
    }
}
