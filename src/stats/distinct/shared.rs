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

/// A value, and how often permuted voices gave as large a statistic.
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

/// Orthonormal columns that span what covariates [N, C] can predict; those that others give, or that are constant, do
/// not count.
pub fn basis(covariates: DMatrix<f64>) -> Vec<DVector<f64>> {
    let decomposed = covariates.svd(true, false);
    let Some(all) = decomposed.u else { return vec![] };
    let largest = decomposed.singular_values.max();
    let sizes = decomposed.singular_values.iter().enumerate();
    let counts =
        |(at, size): (usize, &f64)| (*size > 1e-9 * largest && *size > 0.0).then(|| all.column(at).into_owned());
    sizes.filter_map(counts).collect()
}

/// Takes what lies in a basis out of each column of `matrix` [N, H].
pub fn take_out(matrix: &mut DMatrix<f64>, basis: &[DVector<f64>]) {
    for direction in basis {
        let along = direction.transpose() * &*matrix;
        matrix.gemm(-1.0, direction, &along, 1.0);
    }
}

/// A segment of one of the two voices that speak first in its text: its row, 1 for the first voice and -1 for the
/// second, and the number of its text. The opening segment of each text is left out, since its voice is always the
/// first.
pub type Side = (usize, f64, usize);

/// The segments of the first two voices of each text.
pub fn sides(segments: &[Segment]) -> Vec<Side> {
    let (mut all, mut start) = (vec![], 0);
    for (number, text) in segments.chunk_by(|a, b| a.text == b.text).enumerate() {
        let first = text[0].voice;
        let second = text.iter().map(|segment| segment.voice).find(|voice| *voice != first);
        let sign = |voice: usize| if voice == first { 1.0 } else { -1.0 };
        let own = text.iter().enumerate().skip(1);
        let own = own.filter(|(_, segment)| segment.voice == first || Some(segment.voice) == second);
        all.extend(own.map(|(at, segment)| (start + at, sign(segment.voice), number)));
        start += text.len();
    }
    all
}

/// Signs permuted within their texts.
pub fn permuted_signs(signs: &[f64], texts: &[usize], rng: &mut ChaCha8Rng) -> Vec<f64> {
    let labels: Vec<usize> = signs.iter().map(|sign| usize::from(*sign > 0.0)).collect();
    permute(&labels, texts, rng).into_iter().map(|label| if label == 1 { 1.0 } else { -1.0 }).collect()
}
