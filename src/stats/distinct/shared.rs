//! What the tests share: segments, permutations of their voices, and taking out of vectors what else explains them.

use crate::rng::ChaCha8Rng;
use nalgebra::{DMatrix, DVector};
use rand::seq::SliceRandom;

/// A part of a text that one voice speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The text it is from.
    pub text: usize,
    /// Which of the text's voices speaks.
    pub voice: usize,
    /// Its first token in the text.
    pub start: usize,
    /// Its tokens, 1 or more.
    pub tokens: usize,
    /// Mean over its tokens.
    pub vector: Vec<f32>,
}

/// A value, and how often permuted voices gave one as large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tested {
    pub value: f64,
    /// Mean under permutation.
    pub chance: f64,
    /// One-sided, at least 1 / (permutations + 1).
    pub p: f64,
}

impl Tested {
    /// A value against those of permuted voices.
    pub fn new(value: f64, permuted: &[f64]) -> Self {
        let as_large = permuted.iter().filter(|other| **other >= value - 1e-12 * value.abs()).count();
        let chance = permuted.iter().sum::<f64>() / permuted.len().max(1) as f64;
        Self { value, chance, p: (1 + as_large) as f64 / (1 + permuted.len()) as f64 }
    }
}

/// Labels permuted within their groups, which are contiguous.
pub fn permute(labels: &[usize], groups: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut permuted = labels.to_vec();
    let mut start = 0;
    for group in groups.chunk_by(|a, b| a == b) {
        permuted[start..start + group.len()].shuffle(rng);
        start += group.len();
    }
    permuted
}

/// Takes the mean of each group out of each column; groups are contiguous.
pub fn centre(matrix: &mut DMatrix<f64>, groups: &[usize]) {
    let mut start = 0;
    for group in groups.chunk_by(|a, b| a == b) {
        let mut own = matrix.rows_mut(start, group.len());
        for mut column in own.column_iter_mut() {
            let mean = column.mean();
            column.add_scalar_mut(-mean);
        }
        start += group.len();
    }
}

/// Takes what `covariates` predict out of `matrix`; columns that others give, or that are constant, do not count.
pub fn take_out(matrix: &mut DMatrix<f64>, covariates: DMatrix<f64>) {
    let decomposed = covariates.svd(true, false);
    let Some(basis) = decomposed.u else { return };
    let largest = decomposed.singular_values.max();
    for (at, size) in decomposed.singular_values.iter().enumerate() {
        if *size > 1e-9 * largest && *size > 0.0 {
            let direction: DVector<f64> = basis.column(at).into_owned();
            let along = direction.transpose() * &*matrix;
            matrix.gemm(-1.0, &direction, &along, 1.0);
        }
    }
}
