//! The direction from one voice to another, and how far it can be relied on.

use super::Segment;
use nalgebra::{DMatrix, DVector};

/// What the voice that speaks first in a text has, and the second has not: the mean over texts of the difference of
/// their mean matched vectors (a persona vector by contrast, arXiv:2507.21509, of segments rather than prompts).
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// [H].
    pub vector: Vec<f32>,
    /// Its norm over the root mean square norm of matched vectors.
    pub norm: f64,
    /// The cosine between the contrasts of every other text and of the rest: about 0 if texts share nothing.
    pub split_half: f64,
    /// Texts with both voices.
    pub texts: usize,
}

/// The contrast of segments whose matched vectors are the rows of `vectors` [N, H]; none with fewer than two texts.
pub fn contrast(segments: &[Segment], vectors: &DMatrix<f64>) -> Option<Contrast> {
    let mut differences: Vec<DVector<f64>> = vec![];
    let mut start = 0;
    for text in segments.chunk_by(|a, b| a.text == b.text) {
        let first = text.first()?.voice;
        let second = text.iter().map(|segment| segment.voice).find(|voice| *voice != first)?;
        let mean = |voice: usize| {
            let own: Vec<usize> = (0..text.len()).filter(|at| text[*at].voice == voice).collect();
            let sum = own.iter().map(|at| vectors.row(start + at).transpose()).sum::<DVector<f64>>();
            sum / own.len() as f64
        };
        differences.push(mean(first) - mean(second));
        start += text.len();
    }
    let half = |odd: usize| differences.iter().skip(odd).step_by(2).sum::<DVector<f64>>();
    if differences.len() < 2 {
        return None;
    }
    let mean = differences.iter().sum::<DVector<f64>>() / differences.len() as f64;
    let typical = (vectors.norm_squared() / vectors.nrows() as f64).sqrt();
    Some(Contrast {
        norm: mean.norm() / typical.max(f64::MIN_POSITIVE),
        split_half: of(&half(0), &half(1)),
        texts: differences.len(),
        vector: mean.iter().map(|value| *value as f32).collect(),
    })
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
