//! The direction from one voice to another, and how far it can be relied on.

use super::shared::{Side, Tested, permuted_signs};
use crate::rng::{Purpose, stream};
use nalgebra::{DMatrix, DVector};

/// What the voice that speaks first in a text has, and the second has not: the mean over texts of the difference of
/// their mean matched vectors (a persona vector by contrast, arXiv:2507.21509, of segments rather than prompts).
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// [H].
    pub vector: Vec<f32>,
    /// Its norm over the root mean square norm of matched vectors.
    pub norm: f64,
    /// The cosine between the contrasts of every other text and of the rest.
    pub split_half: Tested,
    /// Texts with both voices.
    pub texts: usize,
}

/// The contrast of segments whose matched vectors are rows of `vectors` [N, H]; none with fewer than two texts.
pub fn contrast(rows: &[Side], vectors: &DMatrix<f64>, permutations: usize, seed: u64) -> Option<Contrast> {
    let (signs, texts): (Vec<f64>, Vec<usize>) = rows.iter().map(|(_, sign, text)| (*sign, *text)).unzip();
    let own = differences(rows, &signs, vectors);
    let value = split_half(&own)?;
    let mut rng = stream(seed, Purpose::Resample, 3, 0);
    let permuted: Vec<f64> = (0..permutations)
        .filter_map(|_| split_half(&differences(rows, &permuted_signs(&signs, &texts, &mut rng), vectors)))
        .collect();
    let mean = own.iter().sum::<DVector<f64>>() / own.len() as f64;
    let typical = (vectors.norm_squared() / vectors.nrows() as f64).sqrt();
    Some(Contrast {
        norm: mean.norm() / typical.max(f64::MIN_POSITIVE),
        split_half: Tested::new(value, &permuted),
        texts: own.len(),
        vector: mean.iter().map(|value| *value as f32).collect(),
    })
}

/// The differences of mean vectors of each text that has both voices.
fn differences(rows: &[Side], signs: &[f64], vectors: &DMatrix<f64>) -> Vec<DVector<f64>> {
    let (mut all, mut start) = (vec![], 0);
    for text in rows.chunk_by(|a, b| a.2 == b.2) {
        let signs = &signs[start..start + text.len()];
        start += text.len();
        let mean = |wanted: f64| {
            let own = text.iter().zip(signs).filter(|(_, sign)| **sign == wanted);
            let own: Vec<DVector<f64>> = own.map(|((row, ..), _)| vectors.row(*row).transpose()).collect();
            (!own.is_empty()).then(|| own.iter().sum::<DVector<f64>>() / own.len() as f64)
        };
        all.extend(mean(1.0).zip(mean(-1.0)).map(|(first, second)| first - second));
    }
    all
}

/// The cosine between the sums of every other difference and of the rest.
fn split_half(differences: &[DVector<f64>]) -> Option<f64> {
    let half = |odd: usize| differences.iter().skip(odd).step_by(2).sum::<DVector<f64>>();
    (differences.len() >= 2).then(|| of(&half(0), &half(1)))
}

/// The cosine of two vectors of one length; 0 if one of them is 0.
pub fn cosine(first: &[f32], second: &[f32]) -> f64 {
    let vector = |values: &[f32]| DVector::from_iterator(values.len(), values.iter().map(|value| f64::from(*value)));
    of(&vector(first), &vector(second))
}

fn of(first: &DVector<f64>, second: &DVector<f64>) -> f64 {
    let norms = first.norm() * second.norm();
    if norms > 0.0 { first.dot(second) / norms } else { 0.0 }
}
