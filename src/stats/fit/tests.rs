//! Effects that are absorbed against dummies that are columns, for samples of which only few are golden.

use super::*;
use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;

/// A sample of n rows with two columns and two effects, and the same one with dummies instead.
fn samples(n: usize, seed: u64) -> [Sample; 2] {
    use crate::rng::{Purpose, stream};
    use rand::RngExt;
    let mut rng = stream(seed, Purpose::Shuffle, n as u64, 0);
    let groups =
        [Groups::of((0..n).map(|_| rng.random_range(0..5))), Groups::of((0..n).map(|_| rng.random_range(0..3)))];
    let columns = DMatrix::from_fn(n, 2, |i, j| rng.random::<f64>() + (groups[j].codes[i] as f64));
    let outcome = DVector::from_fn(n, |i, _| f64::from(rng.random_range(0..4) + groups[0].codes[i] as u32));
    let offset = DVector::from_fn(n, |_, _| rng.random::<f64>());
    let dummy = |groups: &Groups, level: usize| {
        DVector::from_iterator(n, groups.codes.iter().map(|code| f64::from(u8::from(*code == level))))
    };
    let mut all: Vec<DVector<f64>> = (0..groups[0].count).map(|level| dummy(&groups[0], level)).collect();
    all.extend((1..groups[1].count).map(|level| dummy(&groups[1], level)));
    all.extend(columns.column_iter().map(|column| column.into_owned()));
    let absorbed = Sample { outcome, columns, offset, effects: Effects(groups.to_vec()) };
    [absorbed.clone(), Sample { columns: DMatrix::from_columns(&all), effects: Effects::default(), ..absorbed }]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn absorbed_effects_are_dummies(n in 30..80usize, seed in 0..1000u64) {
        let [absorbed, dummies] = samples(n, seed);
        let clusters = Groups::of((0..n).map(|i| i % 11));
        let ways = Groups::of((0..n).map(|i| i * i % 13));
        for fit in [linear, poisson] {
            let (one, other) = (fit(&absorbed).unwrap(), fit(&dummies).unwrap());
            prop_assert_eq!(one.kept.len(), 2);
            for errors in [
                Errors::Classical,
                Errors::Robust,
                Errors::Clustered(vec![clusters.clone()]),
                Errors::Clustered(vec![clusters.clone(), ways.clone()]),
            ] {
                let k = 2 + errors.parameters(&absorbed.effects, Count::All);
                prop_assert_eq!(k, other.kept.len());
                let (own, all) = (one.covariance(&errors, k), other.covariance(&errors, k));
                let last = all.nrows() - 2;
                for i in 0..2 {
                    let (a, b) = (one.coefficients[i], other.coefficients[last + i]);
                    prop_assert!((a - b).abs() < 1e-8 * (1.0 + b.abs()), "{} {}", a, b);
                    let (a, b) = (own[(i, i)], all[(last + i, last + i)]);
                    // What is mended depends on all columns.
                    let mended = matches!(&errors, Errors::Clustered(ways) if ways.len() == 2);
                    prop_assert!(a >= 0.0 && (mended || (a - b).abs() < 1e-8 * (1.0 + b.abs())), "{} {}", a, b);
                }
            }
        }
    }
}

/// By the definition, row by row.
#[test]
fn clustered_errors_are_sums_over_clusters() {
    let [_, sample] = samples(40, 3);
    let fit = linear(&sample).unwrap();
    let k = fit.kept.len();
    let clusters = Groups::of((0..40).map(|i| i % 7));
    let mut meat = DMatrix::zeros(k, k);
    for i in 0..40 {
        for j in (0..40).filter(|j| clusters.codes[i] == clusters.codes[*j]) {
            meat += fit.scores.row(i).transpose() * fit.scores.row(j);
        }
    }
    let expected = &fit.bread * meat * &fit.bread * (7.0 / 6.0 * 39.0 / (40 - k) as f64);
    let got = fit.covariance(&Errors::Clustered(vec![clusters]), k);
    assert!((got - expected).abs().max() < 1e-10);
}
