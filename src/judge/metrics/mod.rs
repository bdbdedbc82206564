//! From judged traces to figures: how often behaviours and roles occur, how many voices there are, and how they differ.
//!
//! | figure | what it is |
//! |---|---|
//! | `conversational/NAME/prevalence` | share of traces with the behaviour |
//! | `conversational/NAME/mean` | how often it occurs in a trace |
//! | `.../per_1000_tokens`, `.../per_1000_words` | all its occurrences per 1,000 tokens of all traces, or words said |
//! | `cognitive/...`, `roles/...`, `role_groups/...` | the same; groups are positive, give, ask, negative |
//! | `balance/ask_give`, `balance/positive_negative` | Jaccard: traces with both groups over traces with either |
//! | `perspectives/mean`, `perspectives/two_or_more` | voices of a trace; share of traces with at least two |
//! | `personality/TRAIT/diversity` | standard deviation over the voices of a trace, mean over traces |
//! | `personality/TRAIT/mean` | mean over all voices |
//! | `expertise/diversity` | mean cosine distance of the voices' expertise to their centroid, mean over traces |
//! | `collectivity` | "we" per 100 words said, over the words of all traces |
//! | `missing` | how many traces the judge said nothing about |
//! | `missing/PART` | how many of the others have no such part, if any: `segments`, `roles` and so on |
//!
//! What a judge cannot see has no figure. Traces that are missing are left out and counted, never taken as zero. The
//! intervals are 95 % percentile intervals of a bootstrap over traces.

mod measure;
mod personality;
mod places;
#[cfg(test)]
mod tests;

pub use measure::Judged;
pub use personality::{expertise_diversity, trait_diversity, traits};
pub use places::place;

use crate::stats::{Bins, Bootstrap, Figure, Part, percentile_interval};
use measure::{Measure, measures};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The figures of judged traces, named as in the table above, in a fixed order, without those that nothing is known
/// about. Counts of traces have no interval, nor has what fewer than two traces are behind. `resamples`: of the
/// bootstrap; 0 for no intervals.
pub fn figures(traces: &[Judged], resamples: usize) -> Vec<Figure> {
    let judged: Vec<Judged> = traces.iter().filter(|trace| trace.judgement.is_some()).copied().collect();
    let measures = measures(&judged);
    let mut drawn = vec![Vec::with_capacity(resamples); measures.len()];
    for draw in Bootstrap::new(resamples, 1).draws([judged.len(), 0], 1) {
        for (values, measure) in drawn.iter_mut().zip(&measures) {
            values.extend(measure.figure(&draw.seeds[0]));
        }
    }
    let all = vec![1.0; judged.len()];
    let figure = |(measure, values): (&Measure, Vec<f64>)| {
        let value = measure.figure(&all).filter(|value| value.is_finite())?;
        let n = measure.traces();
        let interval = (n > 1).then(|| percentile_interval(values)).flatten();
        Some(Figure { name: measure.name.clone(), value, interval, n: Some(n) })
    };
    let mut figures: Vec<Figure> = measures.iter().zip(drawn).filter_map(figure).collect();
    let missing = (traces.len() - judged.len()) as f64;
    figures.push(Figure { n: Some(traces.len()), ..Figure::plain("missing", missing) });
    let parts = missing_parts(&judged).into_iter();
    figures.extend(parts.map(|(part, count)| Figure {
        n: Some(judged.len()),
        ..Figure::plain(format!("missing/{part}"), count as f64)
    }));
    figures
}

/// What each trace adds to a figure, in their order: a part of the quotient that the figure is, or nothing if the trace
/// is missing from it. `None` for a figure that is not one over traces.
pub fn parts(traces: &[Judged], figure: &str) -> Option<Vec<Part>> {
    measures(traces).into_iter().find(|measure| measure.name == figure).map(|measure| measure.parts)
}

/// In how many of the traces that were judged a part of the judgement is missing, by the part's name.
pub fn missing_parts(traces: &[Judged]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for missing in traces.iter().filter_map(|trace| trace.judgement).flat_map(|judgement| &judgement.missing) {
        *counts.entry(missing.part.clone()).or_default() += 1;
    }
    counts
}

/// A figure of two sets of traces (two checkpoints, two arms), as it is and at matched length.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub name: String,
    /// The figures as they are.
    pub first: f64,
    pub second: f64,
    /// The figures at matched length (`Judged::length`), and `second - first` with its 95 % interval (`stats::Bins`).
    /// None if the sets have no length in common.
    pub matched: Option<Matched>,
    /// The traces behind the figures.
    pub n: [usize; 2],
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Matched {
    pub first: f64,
    pub second: f64,
    pub difference: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Bins of length that count, and the share of traces that are in them.
    pub bins: usize,
    pub covered: f64,
}

/// The figures of two sets of traces side by side, those that both have. `paired`: the traces are answers to the same
/// problems in the same order, and the bootstrap draws problems; otherwise it draws traces of each set.
pub fn differences(first: &[Judged], second: &[Judged], paired: bool, resamples: usize) -> Vec<Difference> {
    let paired = paired && first.len() == second.len();
    let sets = [first, second];
    let all = sets.map(measures);
    let lengths = sets.map(|set| set.iter().map(Judged::length).collect::<Vec<_>>());
    let bins: Vec<Bins> = all[0].iter().zip(&all[1]).map(|(a, b)| bins(&lengths, [a, b])).collect();
    let mut drawn = vec![Vec::with_capacity(resamples); bins.len()];
    for draw in Bootstrap::new(resamples, 1).draws([first.len(), second.len()], 1) {
        let weights = [&draw.seeds[0], &draw.seeds[usize::from(!paired)]];
        for (at, values) in drawn.iter_mut().enumerate() {
            let matched = quotients(&bins[at], [&all[0][at], &all[1][at]], weights);
            values.extend(matched.map(|[one, other]| other - one));
        }
    }
    let ones = sets.map(|set| vec![1.0; set.len()]);
    let difference = |(at, values): (usize, Vec<f64>)| {
        let own = [&all[0][at], &all[1][at]];
        let (one, other) = (own[0].figure(&ones[0])?, own[1].figure(&ones[1])?);
        let matched = quotients(&bins[at], own, [&ones[0], &ones[1]]).map(|[first, second]| {
            let [low, high] = percentile_interval(values).map_or([None; 2], |ends| ends.map(Some));
            let (bins, covered) = (bins[at].counted(), bins[at].covered());
            Matched { first, second, difference: second - first, low, high, bins, covered }
        });
        Some(Difference { name: own[0].name.clone(), first: one, second: other, matched, n: own.map(Measure::traces) })
    };
    drawn.into_iter().enumerate().filter_map(difference).collect()
}

/// Bins over the traces that a measure knows.
fn bins(lengths: &[Vec<f64>; 2], own: [&Measure; 2]) -> Bins {
    let known = [0, 1].map(|set: usize| {
        let known = lengths[set].iter().zip(&own[set].parts).filter(|(_, parts)| parts.is_some());
        known.map(|(length, _)| *length).collect::<Vec<_>>()
    });
    Bins::new([&known[0], &known[1]])
}

fn quotients(bins: &Bins, own: [&Measure; 2], weights: [&Vec<f64>; 2]) -> Option<[f64; 2]> {
    let parts = |set: usize| {
        let all = own[set].parts.iter().zip(weights[set]);
        all.filter_map(|(parts, weight)| parts.map(|(above, below)| (weight * above, weight * below)))
    };
    bins.quotients([&mut parts(0), &mut parts(1)])
}
