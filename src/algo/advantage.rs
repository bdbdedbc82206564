//! Advantages: how much better than expected each token turned out.
//!
//! All functions take flat per-token slices of N response tokens and the `lengths` of the sequences they belong to.

/// Token rewards: `score` at each sequence's last token, minus `kl_coef` times each token's KL estimate.
pub fn token_rewards(scores: &[f32], kl: &[f32], kl_coef: f64, lengths: &[usize]) -> Vec<f32> {
    let mut rewards: Vec<f32> = kl.iter().map(|kl| (-kl_coef * f64::from(*kl)) as f32).collect();
    let mut end = 0;
    for (score, length) in scores.iter().zip(lengths) {
        end += length;
        rewards[end - 1] += score;
    }
    rewards
}

/// Generalised advantage estimation (arXiv:1506.02438, equation 16) over finished episodes.
///
/// `values[t]` is the value before token t is generated; nothing is expected after the last token. Returns the
/// advantages and the returns A + V, N each.
pub fn gae(rewards: &[f32], values: &[f32], lengths: &[usize], gamma: f64, lambda: f64) -> (Vec<f32>, Vec<f32>) {
    let mut advantages = vec![0f32; rewards.len()];
    let mut start = 0;
    for length in lengths {
        let (mut next_value, mut next_advantage) = (0f64, 0f64);
        for t in (start..start + length).rev() {
            let value = f64::from(values[t]);
            let delta = f64::from(rewards[t]) + gamma * next_value - value;
            next_advantage = delta + gamma * lambda * next_advantage;
            next_value = value;
            advantages[t] = next_advantage as f32;
        }
        start += length;
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Group-relative advantages (arXiv:2402.03300, section 4.1.2): a sequence's return minus the mean of its prompt's
/// samples, divided by their deviation (with Bessel's correction); the same for each of its tokens.
///
/// `returns`: one number per sequence; every `group` consecutive sequences share a prompt.
pub fn grpo(returns: &[f32], group: usize, lengths: &[usize]) -> Vec<f32> {
    per_group(returns, group, lengths, |all, own| {
        let (mean, deviation) = mean_and_deviation(all);
        (own - mean) / (deviation + 1e-6)
    })
}

/// REINFORCE leave-one-out (arXiv:2402.14740, equation 10): a sequence's return minus the mean of its prompt's other
/// samples; the same for each of its tokens.
pub fn rloo(returns: &[f32], group: usize, lengths: &[usize]) -> Vec<f32> {
    per_group(returns, group, lengths, |all, own| {
        let others = all.iter().map(|r| f64::from(*r)).sum::<f64>() - own;
        own - others / (all.len() - 1) as f64
    })
}

fn per_group(returns: &[f32], group: usize, lengths: &[usize], advantage: impl Fn(&[f32], f64) -> f64) -> Vec<f32> {
    let each = returns.chunks(group).flat_map(|all| all.iter().map(|own| advantage(all, f64::from(*own)) as f32));
    each.zip(lengths).flat_map(|(a, length)| std::iter::repeat_n(a, *length)).collect()
}

/// The sum over each sequence's tokens, one number per sequence.
pub fn sum_by_sequence(values: &[f32], lengths: &[usize]) -> Vec<f32> {
    let mut rest = values;
    lengths
        .iter()
        .map(|length| {
            let (own, after) = rest.split_at(*length);
            rest = after;
            own.iter().sum()
        })
        .collect()
}

/// Shifts and scales to mean 0 and variance 1 over all tokens (variance with Bessel's correction, 1e-8 under the root).
pub fn whiten(values: &mut [f32]) {
    let (mean, deviation) = mean_and_deviation(values);
    let scale = 1.0 / (deviation * deviation + 1e-8).sqrt();
    for value in values {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

/// Mean and standard deviation (with Bessel's correction; 0 for fewer than two values).
pub fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// Share of the returns' variance that the values explain: 1 is perfect, 0 is as good as a constant.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    let residuals: Vec<f32> = returns.iter().zip(values).map(|(r, v)| r - v).collect();
    let (_, residual) = mean_and_deviation(&residuals);
    let (_, total) = mean_and_deviation(returns);
    1.0 - residual * residual / (total * total).max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// GAE as it is defined: a weighted sum of all later temporal differences, in quadratic time.
    fn naive_gae(rewards: &[f32], values: &[f32], gamma: f64, lambda: f64) -> Vec<f64> {
        let n = rewards.len();
        let delta = |t: usize| {
            let next = if t + 1 < n { f64::from(values[t + 1]) } else { 0.0 };
            f64::from(rewards[t]) + gamma * next - f64::from(values[t])
        };
        (0..n).map(|t| (t..n).map(|l| (gamma * lambda).powi((l - t) as i32) * delta(l)).sum()).collect()
    }

    proptest! {
        #[test]
        fn gae_equals_its_definition(
            sequences in prop::collection::vec(prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..12), 1..5),
            gamma in 0.5f64..=1.0,
            lambda in 0.0f64..=1.0,
        ) {
            let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
            let (rewards, values): (Vec<f32>, Vec<f32>) = sequences.iter().flatten().copied().unzip();
            let (advantages, returns) = gae(&rewards, &values, &lengths, gamma, lambda);
            let expected = sequences.iter().flat_map(|s| {
                let (r, v): (Vec<f32>, Vec<f32>) = s.iter().copied().unzip();
                naive_gae(&r, &v, gamma, lambda)
            });
            for ((a, e), (r, v)) in advantages.iter().zip(expected).zip(returns.iter().zip(&values)) {
                prop_assert!((f64::from(*a) - e).abs() < 1e-5);
                prop_assert!((r - (a + v)).abs() < 1e-6);
            }
        }

        #[test]
        fn whitened_tokens_have_mean_zero_and_variance_one(mut values in prop::collection::vec(-9f32..9.0, 3..200)) {
            prop_assume!(mean_and_deviation(&values).1 > 1e-2);
            whiten(&mut values);
            let (mean, deviation) = mean_and_deviation(&values);
            prop_assert!(mean.abs() < 1e-5 && (deviation - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn the_score_is_paid_at_the_last_token_and_kl_at_each() {
        let rewards = token_rewards(&[1.0, 0.1], &[0.5, 0.0, 1.0, 2.0], 0.1, &[3, 1]);
        for (r, e) in rewards.iter().zip([-0.05, 0.0, 0.9, -0.1]) {
            assert!((r - e).abs() < 1e-6, "{rewards:?}");
        }
    }

    #[test]
    fn samples_are_compared_only_within_their_group() {
        let returns = [1.0, 0.0, 0.5, 0.5];
        let lengths = [2, 1, 1, 1];
        assert_eq!(rloo(&returns, 2, &lengths), [1.0, 1.0, -1.0, 0.0, 0.0]);
        let grpo = grpo(&returns, 2, &lengths);
        let half = 0.5 / (0.5f32.sqrt() + 1e-6);
        for (a, e) in grpo.iter().zip([half, half, -half, 0.0, 0.0]) {
            assert!((a - e).abs() < 1e-6, "{grpo:?}");
        }
    }

    #[test]
    fn explained_variance_of_perfect_and_of_constant_values() {
        let returns = [0.0, 1.0, 0.3];
        assert!((explained_variance(&returns, &returns) - 1.0).abs() < 1e-9);
        assert!(explained_variance(&[0.2; 3], &returns).abs() < 1e-6);
    }
}
