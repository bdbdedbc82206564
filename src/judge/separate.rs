//! How well a judge tells two sets of traces apart, behaviour by behaviour.

use super::collectivity::words;
use super::interface::{COGNITIVE, CONVERSATIONAL, Judgement, ROLES};
use super::metrics::Judged;
use crate::stats::{Bins, Bootstrap, Draw, auc, percentile_interval};
use serde::{Deserialize, Serialize};

/// The area under the ROC curve of a count: the probability that a trace of the first set has more of something than
/// one of the second, ties counting half.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auc {
    /// As in `conversational/conflict`. `conversational/total` is all of a group together; `collectivity` is "we" by
    /// words said.
    pub name: String,
    /// Over all pairs of traces, with the 95 % interval of a bootstrap over traces.
    pub auc: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The same at matched length (`Judged::length`): the mean over bins of length (`stats::Bins`). None if the sets
    /// have no length in common.
    pub matched: Option<f64>,
    pub matched_low: Option<f64>,
    pub matched_high: Option<f64>,
    /// Share of the traces of each set that have any of it.
    pub prevalence: [f64; 2],
    /// The traces behind it, of each set.
    pub n: [usize; 2],
}

/// How well each count that the judge sees in both sets tells `first` from `second`. `resamples`: of the bootstrap; 0
/// for no intervals.
pub fn separate(first: &[Judged], second: &[Judged], resamples: usize) -> Vec<Auc> {
    let sets = [first, second].map(|set| set.iter().map(|trace| (trace, trace.length())).collect::<Vec<_>>());
    let mut all = vec![];
    let mut of = |name: String, value: &dyn Fn(&Judged, &Judgement) -> Option<f64>| {
        let samples = [0, 1].map(|set: usize| {
            let all = sets[set].iter();
            let known = all.filter_map(|&(trace, length)| Some((length, value(trace, trace.judgement?)?)));
            let (lengths, values): (Vec<f64>, Vec<f64>) = known.unzip();
            Sample { lengths, values }
        });
        all.extend(compare(name, &samples, resamples));
    };
    let total = |counts: &[u32]| counts.iter().map(|count| f64::from(*count)).sum::<f64>();
    for (which, name) in CONVERSATIONAL.iter().enumerate() {
        of(format!("conversational/{name}"), &|_, j| j.conversational.map(|counts| f64::from(counts[which])));
    }
    of("conversational/total".into(), &|_, j| j.conversational.map(|counts| total(&counts)));
    for (which, name) in COGNITIVE.iter().enumerate() {
        of(format!("cognitive/{name}"), &|_, j| j.cognitive.map(|counts| f64::from(counts[which])));
    }
    of("cognitive/total".into(), &|_, j| j.cognitive.map(|counts| total(&counts)));
    for (which, name) in ROLES.iter().enumerate() {
        of(format!("roles/{name}"), &|_, j| j.roles.map(|counts| f64::from(counts[which])));
    }
    of("perspectives".into(), &|_, j| j.perspectives.as_ref().map(|voices| voices.len() as f64));
    of("collectivity".into(), &|trace, _| {
        let words = words(trace.text);
        (words.all > 0).then(|| f64::from(words.we) / f64::from(words.all))
    });
    all
}

struct Sample {
    lengths: Vec<f64>,
    values: Vec<f64>,
}

fn compare(name: String, samples: &[Sample; 2], resamples: usize) -> Option<Auc> {
    let [first, second] = samples;
    let value = auc(&first.values, &second.values)?;
    let bins = Bins::new([&first.lengths, &second.lengths]);
    let (mut plain, mut matched) = (vec![], vec![]);
    for draw in Bootstrap::new(resamples, 1).draws([first.values.len(), second.values.len()], 1) {
        let drawn = |set: usize, which: &[usize]| drawn(&samples[set].values, &draw, set, which);
        let all = [0, 1].map(|set| drawn(set, &(0..samples[set].values.len()).collect::<Vec<_>>()));
        plain.extend(auc(&all[0], &all[1]));
        matched.extend(bins.within(|a, b| auc(&drawn(0, a), &drawn(1, b))));
    }
    let ends = |values: Vec<f64>| percentile_interval(values).map_or([None; 2], |ends| ends.map(Some));
    let ([low, high], [matched_low, matched_high]) = (ends(plain), ends(matched));
    let own = |values: &[f64], which: &[usize]| which.iter().map(|at| values[*at]).collect::<Vec<_>>();
    let any = |sample: &Sample| {
        sample.values.iter().filter(|value| **value > 0.0).count() as f64 / sample.values.len() as f64
    };
    Some(Auc {
        name,
        auc: value,
        low,
        high,
        matched: bins.within(|a, b| auc(&own(&first.values, a), &own(&second.values, b))),
        matched_low,
        matched_high,
        prevalence: [any(first), any(second)],
        n: [first.values.len(), second.values.len()],
    })
}

/// The values of some traces, each as often as it was drawn.
fn drawn(values: &[f64], draw: &Draw, set: usize, which: &[usize]) -> Vec<f64> {
    let times = |at: &usize| std::iter::repeat_n(values[*at], draw.seeds[set][*at] as usize);
    which.iter().flat_map(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::lexical;

    #[test]
    fn traces_are_told_apart_by_what_they_do() {
        let talk = |i: usize| {
            format!("<think1>{}Is it {i}?</think1><think2>No, it is. I agree we go.</think2>", "a ".repeat(i))
        };
        let plain = |i: usize| format!("<think>{}It is {i}.</think>", "a ".repeat(i + 5));
        let judge = |texts: Vec<String>| -> Vec<(String, Judgement)> {
            texts.into_iter().map(|text| (text.clone(), lexical::judgement(&text))).collect()
        };
        let (talks, plains) = (judge((0..60).map(talk).collect()), judge((0..60).map(plain).collect()));
        let first: Vec<Judged> = talks.iter().map(of).collect();
        let second: Vec<Judged> = plains.iter().map(of).collect();
        let found = separate(&first, &second, 100);
        let names: Vec<&str> = found.iter().map(|auc| auc.name.as_str()).collect();
        assert!(names.contains(&"conversational/total") && !names.iter().any(|name| name.starts_with("roles")));
        let get = |name: &str| found.iter().find(|auc| auc.name == name).unwrap();
        for name in ["conversational/question_answering", "conversational/conflict", "perspectives", "collectivity"] {
            let own = get(name);
            assert_eq!((own.auc, own.matched, own.low, own.matched_high), (1.0, Some(1.0), Some(1.0), Some(1.0)));
            assert_eq!(own.n, [60, 60]);
        }
        assert_eq!(get("conversational/conflict").prevalence, [1.0, 0.0]);
        assert_eq!((get("cognitive/verification").auc, get("cognitive/total").matched), (0.5, Some(0.5)));
        assert!(separate(&first, &[], 10).is_empty());
    }

    fn of((text, judgement): &(String, Judgement)) -> Judged<'_> {
        let tokens = Some(text.split_whitespace().count());
        Judged { text, tokens, judgement: Some(judgement), embeddings: None }
    }
}
