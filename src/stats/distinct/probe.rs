//! A linear probe: ridge regression of which of two voices speaks on matched vectors, tested on texts that it has not
//! seen.

use super::shared::{Side, Tested, permuted_signs};
use crate::rng::{Purpose, stream};
use nalgebra::{DMatrix, DVector};

/// Texts are divided into so many parts, each predicted from the others.
const FOLDS: usize = 5;

/// How well the voice that speaks first and the one that speaks second in a text are told apart.
pub fn probe(rows: &[Side], vectors: &DMatrix<f64>, permutations: usize, seed: u64) -> Option<Tested> {
    let (signs, texts): (Vec<f64>, Vec<usize>) = rows.iter().map(|(_, sign, text)| (*sign, *text)).unzip();
    if texts.last().is_none_or(|last| *last + 1 < FOLDS) || [1.0, -1.0].iter().any(|sign| !signs.contains(sign)) {
        return None;
    }
    let chosen = DMatrix::from_fn(rows.len(), vectors.ncols(), |row, column| vectors[(rows[row].0, column)]);
    let kernel = &chosen * chosen.transpose();
    let penalty = kernel.trace() / rows.len() as f64;
    if penalty.is_nan() || penalty <= 0.0 {
        return None;
    }
    let folds: Vec<Fold> = (0..FOLDS).map(|fold| Fold::new(&kernel, &texts, fold, penalty)).collect::<Option<_>>()?;
    let value = accuracy(&folds, &signs)?;
    let mut rng = stream(seed, Purpose::Resample, 2, 0);
    let permuted = (0..permutations).filter_map(|_| accuracy(&folds, &permuted_signs(&signs, &texts, &mut rng)));
    Some(Tested::new(value, &permuted.collect::<Vec<f64>>()))
}

/// What predicts the labels of some rows from those of the others; it does not depend on labels.
struct Fold {
    others: Vec<usize>,
    own: Vec<usize>,
    /// [own, others].
    weights: DMatrix<f64>,
}

impl Fold {
    fn new(kernel: &DMatrix<f64>, texts: &[usize], fold: usize, penalty: f64) -> Option<Self> {
        let (own, others): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|row| texts[*row] % FOLDS == fold);
        let part = |rows: &[usize]| {
            DMatrix::from_fn(rows.len(), others.len(), |row, column| kernel[(rows[row], others[column])])
        };
        let mut inner = part(&others);
        for at in 0..others.len() {
            inner[(at, at)] += penalty;
        }
        let weights = inner.cholesky()?.solve(&part(&own).transpose()).transpose();
        Some(Self { weights, own, others })
    }
}

/// The mean of the two shares of rows of one label that are predicted right.
fn accuracy(folds: &[Fold], signs: &[f64]) -> Option<f64> {
    let (mut right, mut all) = ([0.0; 2], [0.0; 2]);
    for fold in folds {
        let known = DVector::from_iterator(fold.others.len(), fold.others.iter().map(|row| signs[*row]));
        let mean = known.mean();
        let predicted = &fold.weights * known.add_scalar(-mean);
        for (row, value) in fold.own.iter().zip(&predicted) {
            let label = usize::from(signs[*row] > 0.0);
            all[label] += 1.0;
            right[label] += f64::from(u8::from((*value > 0.0) == (label == 1)));
        }
    }
    (all[0] > 0.0 && all[1] > 0.0).then(|| (right[0] / all[0] + right[1] / all[1]) / 2.0)
}
