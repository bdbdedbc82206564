//! How token losses become one number: a weight for each token, fixed for the whole mini-batch.
//!
//! The loss is the weighted sum of its token losses. Micro-batches take their tokens' weights along and add up, so a
//! gradient cannot depend on how a mini-batch was split.

use crate::recipe::Aggregation;

/// One weight a response token for the sequences of a mini-batch; the weights sum to one.
pub fn token_weights(lengths: &[usize], how: Aggregation) -> Vec<f32> {
    let tokens = lengths.iter().sum::<usize>() as f64;
    let sequences = lengths.len() as f64;
    lengths
        .iter()
        .flat_map(|&length| {
            let weight = match how {
                Aggregation::TokenMean => 1.0 / tokens,
                Aggregation::SequenceMean => 1.0 / (sequences * length as f64),
            };
            std::iter::repeat_n(weight as f32, length)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_equal_the_means_they_stand_for() {
        let (lengths, losses) = ([3, 1], [1.0f32, 2.0, 3.0, 10.0]);
        let sum = |how| token_weights(&lengths, how).iter().zip(losses).map(|(w, l)| w * l).sum::<f32>();
        assert!((sum(Aggregation::TokenMean) - 4.0).abs() < 1e-6);
        assert!((sum(Aggregation::SequenceMean) - 6.0).abs() < 1e-6);
    }
}
