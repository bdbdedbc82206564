//! Two samples of texts at matched length.
//!
//! Two samples may differ in a figure only because one of them is longer. To compare them at equal length, the texts of
//! both are put into bins of length, and figures are compared within bins. The edges are the deciles of both samples'
//! lengths together. A bin counts if each sample has at least `LEAST` texts in it, and all bins that count weigh the
//! same, whatever the samples' shares in them (direct standardisation to a uniform population).

use super::statistics::{mean, quantile};

/// Bins of length.
const BINS: usize = 10;
/// Fewest texts of each sample in a bin that counts.
const LEAST: usize = 5;

/// The texts of two samples by length.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// The bin of each text of each sample.
    places: [Vec<usize>; 2],
    /// The bins in which both samples have enough texts.
    counted: Vec<usize>,
    covered: f64,
}

impl Bins {
    /// Bins for texts of these lengths, in any unit.
    pub fn new(lengths: [&[f64]; 2]) -> Self {
        let mut sorted = lengths.concat();
        sorted.sort_by(f64::total_cmp);
        let deciles = |i: usize| (!sorted.is_empty()).then(|| quantile(&sorted, i as f64 / BINS as f64));
        let mut edges: Vec<f64> = (1..BINS).filter_map(deciles).collect();
        edges.dedup();
        // A length on an edge belongs to the bin below.
        let place = |length: &f64| edges.partition_point(|edge| edge < length);
        let places = lengths.map(|sample| sample.iter().map(place).collect::<Vec<_>>());
        let size = |sample: &[usize], bin: usize| sample.iter().filter(|own| **own == bin).count();
        let counted: Vec<usize> =
            (0..=edges.len()).filter(|bin| places.iter().all(|sample| size(sample, *bin) >= LEAST)).collect();
        let inside: usize = counted.iter().map(|bin| size(&places[0], *bin) + size(&places[1], *bin)).sum();
        Self { covered: inside as f64 / sorted.len().max(1) as f64, places, counted }
    }

    /// How many bins count.
    pub fn counted(&self) -> usize {
        self.counted.len()
    }

    /// The share of all texts that are in bins that count.
    pub fn covered(&self) -> f64 {
        self.covered
    }

    /// A figure of both samples at matched length. A text adds a part to a numerator and to a denominator; in each bin
    /// the figure is the quotient of the sums, and the mean over bins is returned. A bin in which a denominator is zero
    /// is left out; `None` if no bin is left.
    pub fn quotients(&self, parts: [&mut dyn Iterator<Item = (f64, f64)>; 2]) -> Option<[f64; 2]> {
        let mut sums = [[(0.0, 0.0); BINS]; 2];
        for ((sums, places), parts) in sums.iter_mut().zip(&self.places).zip(parts) {
            for (bin, (numerator, denominator)) in places.iter().zip(parts) {
                sums[*bin].0 += numerator;
                sums[*bin].1 += denominator;
            }
        }
        let filled = self.counted.iter().filter(|bin| sums.iter().all(|sample| sample[**bin].1 > 0.0));
        let filled: Vec<usize> = filled.copied().collect();
        let figure = |sample: usize| {
            mean(&filled.iter().map(|bin| sums[sample][*bin].0 / sums[sample][*bin].1).collect::<Vec<_>>())
        };
        (!filled.is_empty()).then(|| [figure(0), figure(1)])
    }

    /// The mean over the bins that count of what `compare` says of the texts of both samples in a bin, which are given
    /// by their indices. A bin of which it says nothing is left out; `None` if no bin is left.
    pub fn within(&self, compare: impl Fn(&[usize], &[usize]) -> Option<f64>) -> Option<f64> {
        let inside = |sample: usize, bin: usize| -> Vec<usize> {
            let all = self.places[sample].iter().enumerate();
            all.filter(|(_, own)| **own == bin).map(|(at, _)| at).collect()
        };
        let each = self.counted.iter().filter_map(|bin| compare(&inside(0, *bin), &inside(1, *bin)));
        let each: Vec<f64> = each.collect();
        (!each.is_empty()).then(|| mean(&each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::auc;
    use serde_json::Value;

    fn means(bins: &Bins, values: [&[f64]; 2]) -> Option<[f64; 2]> {
        let [first, second] = values;
        bins.quotients([&mut first.iter().map(|v| (*v, 1.0)), &mut second.iter().map(|v| (*v, 1.0))])
    }

    fn of(values: &[f64], which: &[usize]) -> Vec<f64> {
        which.iter().map(|at| values[*at]).collect()
    }

    #[test]
    fn figures_at_matched_length_are_those_of_numpy() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/stats.json")).unwrap();
        for case in golden["matched"].as_array().unwrap() {
            let sample = |key: &str, at: usize| -> Vec<f64> {
                case[key][at].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            let bins = Bins::new([&sample("lengths", 0), &sample("lengths", 1)]);
            let right = [sample("right", 0), sample("right", 1)];
            let [first, second] = means(&bins, [&right[0], &right[1]]).unwrap();
            let got = [first, second, bins.covered(), bins.counted() as f64];
            for (got, key) in got.iter().zip(["first", "second", "covered", "bins"]) {
                assert!((got - case[key].as_f64().unwrap()).abs() < 1e-12, "{key}: {got}");
            }
            let share = |sample: usize, which: &[usize]| mean(&of(&right[sample], which));
            let difference = bins.within(|a, b| Some(share(1, b) - share(0, a))).unwrap();
            assert!((difference - (second - first)).abs() < 1e-12);
        }
    }

    /// Two samples that are equal at any length, one of which is longer.
    #[test]
    fn a_difference_that_is_one_of_length_vanishes() {
        let sample = |short: usize, long: usize| -> (Vec<f64>, Vec<f64>) {
            let short = (0..short).map(|i| (10.0 + (i % 5) as f64, f64::from(u8::from(i % 5 == 0))));
            let long = (0..long).map(|i| (90.0 + (i % 5) as f64, f64::from(u8::from(i % 5 != 0))));
            short.chain(long).unzip()
        };
        let ((lengths, values), (others, other_values)) = (sample(100, 25), sample(25, 100));
        let bins = Bins::new([&lengths, &others]);
        let [one, other] = means(&bins, [&values, &other_values]).unwrap();
        assert!(mean(&other_values) - mean(&values) > 0.3 && (other - one).abs() < 0.05, "{one} {other}");
        assert!(auc(&other_values, &values).unwrap() > 0.65);
        let matched = bins.within(|a, b| auc(&of(&other_values, b), &of(&values, a))).unwrap();
        assert!((matched - 0.5).abs() < 0.03, "{matched}");
        // Without a common length there is nothing to compare.
        let (short, long) = (sample(50, 0), sample(0, 50));
        let bins = Bins::new([&short.0, &long.0]);
        assert!(means(&bins, [&short.1, &long.1]).is_none());
        assert_eq!((bins.counted(), bins.covered()), (0, 0.0));
        assert!(Bins::new([&[], &[]]).within(|_, _| Some(0.0)).is_none());
    }
}
