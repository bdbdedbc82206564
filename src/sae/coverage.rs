//! How many features a trace activates, and how evenly (SPEC of arXiv:2601.10825: coverage, Shannon entropy).

use serde::Serialize;

/// What a trace activates of one list of features.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Diversity {
    /// Features that are active at one token or more.
    pub coverage: usize,
    /// Shannon entropy, in bits, of the distribution over features in which each has its share of all pairs of a token
    /// and a feature active there; 0 if none is.
    pub entropy: f64,
    /// The same with shares of summed activation.
    pub entropy_by_strength: f64,
    /// Mean number of features that are active at a token.
    pub active_per_token: f64,
}

/// The diversity of a trace over the features `list`, from at how many of its `tokens` each of all features is active,
/// and its summed activation.
pub fn diversity(list: &[i64], counts: &[f32], sums: &[f32], tokens: usize) -> Diversity {
    let of = |values: &[f32]| list.iter().map(|feature| f64::from(values[*feature as usize])).collect::<Vec<f64>>();
    let (counts, sums) = (of(counts), of(sums));
    Diversity {
        coverage: counts.iter().filter(|count| **count > 0.0).count(),
        entropy: entropy(&counts),
        entropy_by_strength: entropy(&sums),
        active_per_token: counts.iter().sum::<f64>() / tokens.max(1) as f64,
    }
}

/// In bits, of weights that need not add up to 1.
fn entropy(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    let term = |weight: &f64| {
        let share = weight / total;
        if share > 0.0 { -share * share.log2() } else { 0.0 }
    };
    if total > 0.0 { weights.iter().map(term).sum() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_are_those_of_even_and_uneven_shares() {
        let all = diversity(&[0, 1, 2, 3], &[2.0, 2.0, 2.0, 2.0], &[6.0, 1.0, 1.0, 0.0], 4);
        assert_eq!((all.coverage, all.active_per_token), (4, 2.0));
        assert!((all.entropy - 2.0).abs() < 1e-12);
        // 3/4, 1/8, 1/8: 0.75 log2(4/3) + 2 * 3/8.
        assert!((all.entropy_by_strength - (0.75 * (4f64 / 3.0).log2() + 0.75)).abs() < 1e-12);
        // Features outside of the list do not count.
        let some = diversity(&[1, 3], &[9.0, 1.0, 9.0, 0.0], &[9.0, 2.0, 9.0, 0.0], 2);
        assert_eq!((some.coverage, some.entropy, some.active_per_token), (1, 0.0, 0.5));
        let none = diversity(&[1], &[1.0, 0.0], &[1.0, 0.0], 1);
        assert_eq!((none.coverage, none.entropy, none.entropy_by_strength), (0, 0.0, 0.0));
    }
}
