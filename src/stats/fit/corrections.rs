//! Corrections for several tests: p values of a family in, those that hold for the family out.

/// The order of values from the smallest, by their places.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    order
}

/// Holm's p values ("A simple sequentially rejective multiple test procedure", 1979): rejecting those up to a level
/// makes a mistake in the whole family with at most that probability, whatever the tests have in common. The i-th
/// smallest of m is multiplied by m - i + 1, and is at least the one before it.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut corrected = vec![0.0; p.len()];
    let mut least = 0.0;
    for (rank, at) in ascending(p).into_iter().enumerate() {
        least = f64::max(least, (p.len() - rank) as f64 * p[at]).min(1.0);
        corrected[at] = least;
    }
    corrected
}

/// The p values of Benjamini and Hochberg ("Controlling the false discovery rate", 1995): of those up to a level, at
/// most that share is expected to be false, if tests are independent or of positive dependence. The i-th smallest of m
/// is multiplied by m / i, and is at most the one after it.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut corrected = vec![0.0; p.len()];
    let mut most = 1.0;
    for (rank, at) in ascending(p).into_iter().enumerate().rev() {
        most = f64::min(most, p.len() as f64 / (rank + 1) as f64 * p[at]);
        corrected[at] = most;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition: the largest of (m - |smaller|) p over those that are not larger, ties one after another.
    fn naive_holm(p: &[f64]) -> Vec<f64> {
        let one = |own: &f64| {
            let upto = p.iter().filter(|other| *other <= own);
            let products = upto.map(|other| {
                let before = p.iter().filter(|smaller| *smaller < other).count();
                (p.len() - before) as f64 * other
            });
            products.fold(0.0, f64::max).min(1.0)
        };
        p.iter().map(one).collect()
    }

    /// By the definition: the least of m p / |not larger| over those that are not smaller.
    fn naive_benjamini_hochberg(p: &[f64]) -> Vec<f64> {
        let one = |own: &f64| {
            let from = p.iter().filter(|other| *other >= own);
            let quotients = from.map(|other| {
                let upto = p.iter().filter(|smaller| *smaller <= other).count();
                p.len() as f64 / upto as f64 * other
            });
            quotients.fold(1.0, f64::min)
        };
        p.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn corrections_are_what_their_definitions_say(parts in prop::collection::vec(0..40u32, 0..12)) {
            let p: Vec<f64> = parts.into_iter().map(|part| f64::from(part) / 40.0).collect();
            let step_up = (benjamini_hochberg(&p), naive_benjamini_hochberg(&p));
            for (got, expected) in [(holm(&p), naive_holm(&p)), step_up] {
                prop_assert_eq!(got.len(), p.len());
                prop_assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{:?} {:?}", got, expected);
                prop_assert!(got.iter().zip(&p).all(|(corrected, own)| (*own..=1.0).contains(corrected)));
            }
        }
    }
}
