//! Squared distances between segments of one text, of different voices against those of one.

use super::shared::{Segment, Tested, basis, centre, take_out};
use nalgebra::{DMatrix, DVector};

/// The coefficient of "of different voices" in a regression of squared distances, in units of their mean, on it, the
/// logarithm of the gap in tokens, what the lengths add to a distance of means, and the text (as in the regressions of
/// quadratic assignment, Krackhardt, Social Networks 10, 1988).
pub fn distance(segments: &[Segment], permuted: &[Vec<usize>]) -> Option<Tested> {
    let mut pairs = vec![];
    let mut first = 0;
    for text in segments.chunk_by(|a, b| a.text == b.text) {
        for i in first..first + text.len() {
            pairs.extend((i + 1..first + text.len()).map(|j| (i, j)));
        }
        first += text.len();
    }
    let squared = |(i, j): &(usize, usize)| {
        let both = segments[*i].vector.iter().zip(&segments[*j].vector);
        both.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let distances: Vec<f64> = pairs.iter().map(squared).collect();
    let mean = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
    if mean.is_nan() || mean <= 0.0 {
        return None;
    }
    let middle = |at: usize| segments[at].start as f64 + segments[at].tokens as f64 / 2.0;
    let noise = |at: usize| 1.0 / segments[at].tokens as f64;
    let covariate = |(i, j): (usize, usize), column: usize| match column {
        0 => (1.0 + (middle(j) - middle(i)).abs()).ln(),
        _ => noise(i) + noise(j),
    };
    let groups: Vec<usize> = pairs.iter().map(|(i, _)| segments[*i].text).collect();
    let mut covariates = DMatrix::from_fn(pairs.len(), 2, |row, column| covariate(pairs[row], column));
    centre(&mut covariates, &groups);
    let basis = basis(covariates);
    let clean = |column: Vec<f64>| -> DVector<f64> {
        let mut column = DMatrix::from_vec(pairs.len(), 1, column);
        centre(&mut column, &groups);
        take_out(&mut column, &basis);
        column.column(0).into_owned()
    };
    let own = clean(distances.iter().map(|distance| distance / mean).collect());
    // The coefficient, and what is tested: the partial correlation but for a constant. The coefficient itself varies
    // more, the better gaps predict who differs, and they do so better for voices that take turns than for permuted
    // ones.
    let of = |voices: &[usize]| {
        let differ = pairs.iter().map(|(i, j)| f64::from(u8::from(voices[*i] != voices[*j])));
        let differ = clean(differ.collect());
        let spread = differ.norm_squared();
        (spread > 1e-9).then(|| (own.dot(&differ) / spread, own.dot(&differ) / spread.sqrt()))
    };
    let voices: Vec<usize> = segments.iter().map(|segment| segment.voice).collect();
    let (value, statistic) = of(&voices)?;
    let (values, statistics): (Vec<f64>, Vec<f64>) = permuted.iter().filter_map(|voices| of(voices)).unzip();
    let p = Tested::new(statistic, &statistics).p;
    Some(Tested { p, ..Tested::new(value, &values) })
}
