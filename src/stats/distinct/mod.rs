//! Whether the segments of a text that different voices speak are represented differently: distances between vectors of
//! segments, a linear probe, and the contrast of two voices, each against segments whose voices are permuted within
//! their text.
//!
//! Position and length are matched by regression. A segment's vector, a mean over its tokens, drifts with its place and
//! is the noisier, the shorter it is; and voices that take turns differ in place by themselves. So squared distances
//! are taken for equal gaps and lengths, and vectors have what place and length predict taken out.

mod contrast;
mod distance;
mod probe;

pub use contrast::{Contrast, cosine};

use crate::rng::{ChaCha8Rng, Purpose, stream};
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
    fn new(value: f64, permuted: &[f64]) -> Self {
        let as_large = permuted.iter().filter(|other| **other >= value - 1e-12 * value.abs()).count();
        let chance = permuted.iter().sum::<f64>() / permuted.len().max(1) as f64;
        Self { value, chance, p: (1 + as_large) as f64 / (1 + permuted.len()) as f64 }
    }
}

/// What is found; parts that the segments say nothing about are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distinct {
    /// Texts with two voices or more of which one speaks twice, and their segments.
    pub texts: usize,
    pub segments: usize,
    /// How much larger squared distances between voices are than within one, at equal gap, lengths and text; in units
    /// of the mean squared distance.
    pub distance: Option<Tested>,
    /// Balanced accuracy of a linear probe that tells the voice that speaks first from the second one, on texts that it
    /// has not seen; the opening segment of each text is left out.
    pub probe: Option<Tested>,
    pub contrast: Option<Contrast>,
}

/// Segments at most, those of the first texts: the probe inverts matrices of this size.
const MOST: usize = 2000;

/// Looks at segments, those of a text in its order.
pub fn distinct(segments: &[Segment], permutations: usize, seed: u64) -> Distinct {
    let kept = informative(&segments[..segments.len().min(MOST)]);
    if kept.is_empty() {
        return Distinct::default();
    }
    let labels: Vec<usize> = kept.iter().map(|segment| segment.voice).collect();
    let groups = texts(&kept);
    let mut rng = stream(seed, Purpose::Resample, 1, 0);
    let permuted: Vec<Vec<usize>> = (0..permutations).map(|_| permute(&labels, &groups, &mut rng)).collect();
    let vectors = matched(&kept);
    Distinct {
        texts: kept.chunk_by(|a, b| a.text == b.text).count(),
        segments: kept.len(),
        distance: distance::distance(&kept, &permuted),
        probe: probe::probe(&kept, &vectors, permutations, seed),
        contrast: contrast::contrast(&kept, &vectors),
    }
}

/// The segments of texts that have two voices, of which one speaks twice.
fn informative(segments: &[Segment]) -> Vec<Segment> {
    let texts = segments.chunk_by(|a, b| a.text == b.text);
    let says = |text: &&[Segment]| {
        let mut voices: Vec<usize> = text.iter().map(|segment| segment.voice).collect();
        voices.sort_unstable();
        voices.dedup();
        voices.len() >= 2 && text.len() > voices.len()
    };
    texts.filter(says).flatten().cloned().collect()
}

/// The text of each segment.
fn texts(segments: &[Segment]) -> Vec<usize> {
    segments.iter().map(|segment| segment.text).collect()
}

/// Labels permuted within their groups, which are contiguous.
fn permute(labels: &[usize], groups: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut permuted = labels.to_vec();
    let mut start = 0;
    for group in groups.chunk_by(|a, b| a == b) {
        permuted[start..start + group.len()].shuffle(rng);
        start += group.len();
    }
    permuted
}

/// The vectors [N, H] of segments, less what their place, length and text predict.
fn matched(segments: &[Segment]) -> DMatrix<f64> {
    let (rows, columns) = (segments.len(), segments.first().map_or(0, |segment| segment.vector.len()));
    let mut vectors = DMatrix::from_fn(rows, columns, |row, column| f64::from(segments[row].vector[column]));
    let place = |segment: &Segment| {
        let middle = segment.start as f64 + segment.tokens as f64 / 2.0;
        [middle, (1.0 + middle).ln(), (segment.tokens as f64).ln(), 1.0 / segment.tokens as f64]
    };
    let mut covariates = DMatrix::from_fn(rows, 4, |row, column| place(&segments[row])[column]);
    let groups = texts(segments);
    centre(&mut vectors, &groups);
    centre(&mut covariates, &groups);
    take_out(&mut vectors, covariates);
    vectors
}

/// Takes the mean of each group out of each column; groups are contiguous.
fn centre(matrix: &mut DMatrix<f64>, groups: &[usize]) {
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
fn take_out(matrix: &mut DMatrix<f64>, covariates: DMatrix<f64>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    /// Texts of two voices that mostly take turns, with vectors of noise, a drift along the text, and an offset of each
    /// voice: one that all texts share, or one of each text's own.
    fn segments(texts: usize, seed: u64, drift: f64, shared: f64, own: f64) -> Vec<Segment> {
        const H: usize = 12;
        let mut rng = stream(seed, Purpose::Problems, 0, 0);
        let mut normal = move || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut all = vec![];
        for text in 0..texts {
            let offsets: Vec<f64> = (0..H).map(|_| normal() * own).collect();
            let (mut start, mut voice) = (0, 0);
            for turn in 0..6 {
                let tokens = 8 + (text * 5 + turn * 3) % 9;
                let sign = if voice == 0 { 1.0 } else { -1.0 };
                let at = |i: usize, noise: f64| {
                    let shared = if i == 0 { shared } else { 0.0 };
                    let place = drift * (start as f64 / 20.0) * if i == 1 { 1.0 } else { 0.3 };
                    noise / (tokens as f64).sqrt() + place + sign * (shared + offsets[i])
                };
                let vector = (0..H).map(|i| at(i, normal()) as f32).collect();
                all.push(Segment { text, voice, start, tokens, vector });
                start += tokens;
                // Mostly in turns, as in dialogues.
                voice = if (text + turn) % 5 == 4 { voice } else { 1 - voice };
            }
        }
        all
    }

    #[test]
    fn planted_voices_are_found() {
        let shared = distinct(&segments(30, 1, 1.0, 0.5, 0.0), 199, 1);
        assert_eq!((shared.texts, shared.segments), (30, 180));
        let (distance, probe, contrast) = (shared.distance.unwrap(), shared.probe.unwrap(), shared.contrast.unwrap());
        assert!(distance.value > 0.1 && distance.p < 0.01, "{distance:?}");
        assert!(probe.value > 0.8 && probe.p < 0.01 && (probe.chance - 0.5).abs() < 0.1, "{probe:?}");
        assert!(contrast.split_half > 0.8 && contrast.texts == 30, "{contrast:?}");
        let first = std::iter::once(1.0).chain([0.0; 11]).collect::<Vec<f32>>();
        assert!(cosine(&contrast.vector, &first) > 0.9, "{contrast:?}");
        // What each text has of its own is a distance, and nothing that a probe can carry over.
        let own = distinct(&segments(30, 2, 1.0, 0.0, 0.4), 199, 1);
        let (distance, probe) = (own.distance.unwrap(), own.probe.unwrap());
        assert!(distance.value > 0.1 && distance.p < 0.01, "{distance:?}");
        assert!(probe.p > 0.01 && probe.value < 0.65, "{probe:?}");
        assert!(own.contrast.unwrap().split_half < 0.6);
    }

    /// Voices that are drawn: every p value is as likely as every other, whatever else is in the vectors.
    #[test]
    fn voices_without_meaning_have_flat_p_values() {
        let (mut distances, mut probes) = (vec![], vec![]);
        for seed in 0..120 {
            let mut segments = segments(12, 1000 + seed, 2.0, 0.5, 0.5);
            let (labels, groups) = (segments.iter().map(|one| one.voice).collect::<Vec<_>>(), texts(&segments));
            let mut rng = stream(seed, Purpose::Shuffle, 0, 0);
            let drawn = permute(&labels, &groups, &mut rng);
            segments.iter_mut().zip(drawn).for_each(|(one, voice)| one.voice = voice);
            let found = distinct(&segments, 99, seed);
            distances.push(found.distance.unwrap().p);
            probes.push(found.probe.unwrap().p);
        }
        for mut all in [distances, probes] {
            all.sort_by(f64::total_cmp);
            // Kolmogorov and Smirnov's distance of 120 values is above 0.15 once in 120 times.
            let n = all.len() as f64;
            let far = all.iter().enumerate().map(|(at, p)| (p - (at as f64 + 0.5) / n).abs()).fold(0.0, f64::max);
            assert!(far < 0.15, "{far} {all:?}");
        }
    }

    /// A drift along the text is not a voice, though voices take turns.
    #[test]
    fn place_alone_does_not_make_voices_distinct() {
        let found: Vec<Distinct> =
            (0..20).map(|seed| distinct(&segments(20, 50 + seed, 3.0, 0.0, 0.0), 99, seed)).collect();
        let small = |of: fn(&Distinct) -> f64| found.iter().filter(|one| of(one) <= 0.05).count();
        assert!(small(|one| one.distance.unwrap().p) <= 4);
        assert!(small(|one| one.probe.unwrap().p) <= 4);
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(distinct(&[], 9, 1), Distinct::default());
        let mut one = segments(1, 3, 0.0, 1.0, 0.0);
        let found = distinct(&one, 9, 1);
        assert_eq!((found.texts, found.probe.is_none(), found.contrast.is_none()), (1, true, true));
        one.iter_mut().for_each(|segment| segment.voice = 0);
        assert_eq!(distinct(&one, 9, 1), Distinct::default());
        // Equal vectors have no distances.
        let mut equal = segments(6, 3, 0.0, 0.0, 0.0);
        equal.iter_mut().for_each(|segment| segment.vector = vec![1.0; 12]);
        let found = distinct(&equal, 9, 1);
        assert_eq!((found.segments, found.distance, found.probe), (36, None, None));
    }
}
