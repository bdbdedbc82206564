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
mod shared;

pub use contrast::{Contrast, cosine};
pub use shared::{Segment, Tested};

use crate::rng::{Purpose, stream};
use nalgebra::DMatrix;
use shared::{basis, centre, permute, sides, take_out};

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

/// Segments at most, those of the first texts that count: the probe inverts matrices of this size.
const MOST: usize = 2000;

/// Looks at segments, those of a text in its order.
pub fn distinct(segments: &[Segment], permutations: usize, seed: u64) -> Distinct {
    let kept = informative(segments);
    if kept.is_empty() {
        return Distinct::default();
    }
    let labels: Vec<usize> = kept.iter().map(|segment| segment.voice).collect();
    let groups = texts(&kept);
    let mut rng = stream(seed, Purpose::Resample, 1, 0);
    let permuted: Vec<Vec<usize>> = (0..permutations).map(|_| permute(&labels, &groups, &mut rng)).collect();
    let (vectors, sides) = (matched(&kept), sides(&kept));
    Distinct {
        texts: kept.chunk_by(|a, b| a.text == b.text).count(),
        segments: kept.len(),
        distance: distance::distance(&kept, &permuted),
        probe: probe::probe(&sides, &vectors, permutations, seed),
        contrast: contrast::contrast(&sides, &vectors, permutations, seed),
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
    let mut kept: Vec<Segment> = vec![];
    for text in texts.filter(says) {
        if kept.len() + text.len() > MOST {
            break;
        }
        kept.extend_from_slice(text);
    }
    kept
}

/// The text of each segment.
fn texts(segments: &[Segment]) -> Vec<usize> {
    segments.iter().map(|segment| segment.text).collect()
}

/// The vectors [N, H] of segments, less what their place, length and text predict.
fn matched(segments: &[Segment]) -> DMatrix<f64> {
    let (rows, columns) = (segments.len(), segments.first().map_or(0, |segment| segment.vector.len()));
    let mut vectors = DMatrix::from_fn(rows, columns, |row, column| f64::from(segments[row].vector[column]));
    // Openings and conclusions are unlike the rest, and belong to certain voices where these take turns.
    let mut places: Vec<[f64; 8]> = vec![];
    for text in segments.chunk_by(|a, b| a.text == b.text) {
        let whole = text.last().map_or(1.0, |last| (last.start + last.tokens) as f64);
        places.extend(text.iter().enumerate().map(|(at, segment)| {
            let (middle, tokens) = (segment.start as f64 + segment.tokens as f64 / 2.0, segment.tokens as f64);
            let is = |place: bool| f64::from(u8::from(place));
            let ends = [is(at == 0), is(at == 1), is(at + 1 == text.len())];
            [middle, (1.0 + middle).ln(), middle / whole, tokens.ln(), 1.0 / tokens, ends[0], ends[1], ends[2]]
        }));
    }
    let mut covariates = DMatrix::from_fn(rows, 8, |row, column| places[row][column]);
    let groups = texts(segments);
    centre(&mut vectors, &groups);
    centre(&mut covariates, &groups);
    take_out(&mut vectors, &basis(covariates));
    vectors
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
        assert!(
            contrast.split_half.value > 0.8 && contrast.split_half.p < 0.01 && contrast.texts == 30,
            "{contrast:?}"
        );
        let first = std::iter::once(1.0).chain([0.0; 11]).collect::<Vec<f32>>();
        assert!(cosine(&contrast.vector, &first) > 0.9, "{contrast:?}");
        // What each text has of its own is a distance, and nothing that a probe can carry over.
        let own = distinct(&segments(30, 2, 1.0, 0.0, 0.4), 199, 1);
        let (distance, probe) = (own.distance.unwrap(), own.probe.unwrap());
        assert!(distance.value > 0.1 && distance.p < 0.01, "{distance:?}");
        assert!(probe.p > 0.01 && probe.value < 0.65, "{probe:?}");
        assert!(own.contrast.unwrap().split_half.value < 0.6);
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

    /// Two voices that strictly take turns, in texts of 4 to 9 segments, with nothing of their own: noise that goes on
    /// from one segment to the next, a curve along the text, an opening and a conclusion unlike the rest.
    fn turns(seed: u64) -> Vec<Segment> {
        const H: usize = 12;
        let mut rng = stream(seed, Purpose::Problems, 1, 0);
        let mut normal = move || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut all = vec![];
        for text in 0..24 {
            let count = 4 + (text * 7) % 6;
            let (mut start, mut before) = (0, vec![0.0; H]);
            for turn in 0..count {
                let tokens = 6 + (text * 5 + turn * 3) % 11;
                let at = turn as f64 / count as f64;
                let value = |i: usize, went: f64| {
                    let curve = if i < 4 { 3.0 * (at - 0.4).powi(2) } else { 0.0 };
                    let is_end = i == 5 && turn == 0 || i == 6 && turn + 1 == count;
                    let ends = if is_end { 1.5 } else { 0.0 };
                    went + curve + ends
                };
                before = before.iter().map(|was| 0.6 * was + normal() / (tokens as f64).sqrt()).collect();
                let vector = before.iter().enumerate().map(|(i, went)| value(i, *went) as f32).collect();
                all.push(Segment { text, voice: turn % 2, start, tokens, vector });
                start += tokens;
            }
        }
        all
    }

    #[test]
    fn turns_alone_do_not_make_voices_distinct() {
        let found: Vec<Distinct> = (0..200).map(|seed| distinct(&turns(seed), 39, seed)).collect();
        let small = |of: fn(&Distinct) -> Option<Tested>| {
            found.iter().filter(|one| of(one).is_some_and(|tested| tested.p <= 0.05)).count()
        };
        let all = [
            small(|one| one.distance),
            small(|one| one.probe),
            small(|one| one.contrast.as_ref().map(|contrast| contrast.split_half)),
        ];
        // 10 are expected; more than 18 come once in a hundred times.
        assert!(all.iter().all(|count| *count <= 18), "{all:?}");
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
