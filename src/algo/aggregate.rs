//! How token losses are combined into one number: a weight per token, fixed for the whole mini-batch.
//!
//! The loss is the weighted sum of its token losses. Micro-batches keep the weights of their tokens and add up, so that
//! a gradient cannot depend on how a mini-batch was split. `lengths` are those of the mini-batch's sequences; the
//! weights, one per response token, sum to one.

use std::iter::repeat_n;

/// The mean over all tokens.
pub fn token_mean(lengths: &[usize]) -> Vec<f32> {
    let tokens: usize = lengths.iter().sum();
    vec![(1.0 / tokens as f64) as f32; tokens]
}

/// The mean over sequences of each sequence's mean over its tokens.
pub fn sequence_mean(lengths: &[usize]) -> Vec<f32> {
    let sequences = lengths.len() as f64;
    lengths.iter().flat_map(|&length| repeat_n((1.0 / (sequences * length as f64)) as f32, length)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_sums_are_the_means() {
        let (lengths, losses) = ([3, 1], [1.0f32, 2.0, 3.0, 10.0]);
        let sum = |weights: Vec<f32>| weights.iter().zip(losses).map(|(w, l)| w * l).sum::<f32>();
        assert!((sum(token_mean(&lengths)) - 4.0).abs() < 1e-6);
        assert!((sum(sequence_mean(&lengths)) - 6.0).abs() < 1e-6);
    }
}
