//! What is measured in answers, and how two conditions differ in it.
//!
//! Conditions are paired: the same problems, the same random numbers. A difference has its bootstrap interval over
//! problems, and an exact test of whether as many problems rise as fall: of what is there or not that is McNemar's, of
//! a length the sign test, which leaves out ties (both are the binomial test of the discordant pairs).
//!
//! What a judge does not say is missing, never 0: a figure is over the problems of which it is known, a difference over
//! those of which it is known under both conditions.

use crate::judge::{COGNITIVE, CONVERSATIONAL, Judgement};
use crate::stats::{Bootstrap, Grid, mcnemar, mean};
use crate::train::rollouts::Rollout;
use serde::Serialize;

/// A figure of an answer: its name, and how it is read.
type Outcome = (&'static str, fn(&Rollout) -> f64);

/// The figures of answers besides behaviours.
const OUTCOMES: [Outcome; 4] = [
    ("accuracy", |rollout| rollout.grade.accuracy),
    ("format", |rollout| rollout.grade.format),
    ("terminated", |rollout| f64::from(u8::from(rollout.terminated))),
    ("response_length", |rollout| rollout.sequence.response.len() as f64),
];

/// The figure that is a length in tokens; all others are shares.
pub const LENGTH: &str = "response_length";

/// A figure for each problem, [P]; none where it is not known.
type Known = Vec<Option<f64>>;

/// A mean over problems, and how many they are, 1 at least.
pub type Mean = (f64, usize);

/// What was measured under a condition.
#[derive(Clone, Debug)]
pub struct Values {
    /// The names of the figures; behaviours are those that judged traces have.
    pub names: Vec<String>,
    /// The value of each figure for each problem, [figures, P]; none where the judge does not say it.
    pub values: Vec<Known>,
}

impl Values {
    /// Of the answers to the problems, [P], and what a judge says about each, if it says anything.
    pub fn of(rollouts: &[Rollout], judgements: &[Option<&Judgement>]) -> Self {
        let each = |of: fn(&Rollout) -> f64| -> Known { rollouts.iter().map(|own| Some(of(own))).collect() };
        let outcomes = OUTCOMES.iter().map(|(name, of)| (name.to_string(), each(*of)));
        let (names, values) = outcomes.chain(behaviours(judgements)).unzip();
        Self { names, values }
    }

    /// For each figure the mean difference from another condition, over the problems of which it is known under both;
    /// none if there is no such problem.
    pub fn differences(&self, other: &Self) -> Vec<Option<Mean>> {
        self.values.iter().zip(&other.values).map(|(own, other)| mean_of_known(&changes(own, other))).collect()
    }
}

/// Whether answers have each behaviour, 1 or 0, under the behaviour's name.
fn behaviours(judgements: &[Option<&Judgement>]) -> Vec<(String, Known)> {
    let of = |group: &str, kinds: [&str; 4], counts: fn(&Judgement) -> Option<[u32; 4]>| {
        let has = |which: usize| -> Known {
            let one = |own: &Option<&Judgement>| Some(f64::from(u8::from(counts((*own)?)?[which] > 0)));
            judgements.iter().map(one).collect()
        };
        let named = |(which, kind): (usize, &&str)| (format!("{group}/{kind}/prevalence"), has(which));
        kinds.iter().enumerate().map(named).collect::<Vec<_>>()
    };
    let conversational = of("conversational", CONVERSATIONAL, |judgement| judgement.conversational);
    [conversational, of("cognitive", COGNITIVE, |judgement| judgement.cognitive)].concat()
}

/// Problem by problem, what is known under both of two conditions.
fn changes(own: &[Option<f64>], other: &[Option<f64>]) -> Known {
    own.iter().zip(other).map(|(own, other)| Some((*own)? - (*other)?)).collect()
}

fn mean_of_known(values: &[Option<f64>]) -> Option<Mean> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    (!known.is_empty()).then(|| (mean(&known), known.len()))
}

/// The interval of a mean over the problems that are known, in resamples of all problems. Fewer than two have none.
fn interval(values: &[Option<f64>], bootstrap: &Bootstrap) -> Option<[f64; 2]> {
    if values.iter().flatten().count() < 2 {
        return None;
    }
    let parts = values.iter().map(|value| value.map(|value| (value, 1.0))).collect();
    Grid::of_parts(vec![parts]).and_then(|grid| bootstrap.mean(&grid))
}

/// A figure under a condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    /// The mean over the problems of which it is known.
    pub value: f64,
    /// How many these are.
    pub n: usize,
    /// Its 95 % interval, by bootstrap over problems.
    pub interval: Option<[f64; 2]>,
    /// Against strength 0; none at strength 0, and where no problem is known under both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

impl Figure {
    /// Whether it, or its difference, is known of fewer than all `problems`.
    pub fn is_partial(&self, problems: usize) -> bool {
        self.n.min(self.against.as_ref().map_or(self.n, |against| against.n)) < problems
    }
}

/// How a condition differs from strength 0 on the same problems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    pub difference: f64,
    /// How many problems are known under both.
    pub n: usize,
    pub interval: Option<[f64; 2]>,
    /// How many of these have a larger and a smaller value than at strength 0.
    pub more: u64,
    pub less: u64,
    /// The exact test's.
    pub p: f64,
    /// The same by Holm's correction over all figures and strengths of the report.
    pub p_holm: f64,
}

/// The figures of a condition, held against those of another; p values are not corrected yet. What is known of no
/// problem is left out.
pub fn figures(own: &Values, zero: Option<&Values>, bootstrap: &Bootstrap) -> Vec<Figure> {
    let figure = |(at, name): (usize, &String)| {
        let values = &own.values[at];
        let (value, n) = mean_of_known(values)?;
        let against = zero.and_then(|zero| against(&changes(values, &zero.values[at]), bootstrap));
        Some(Figure { name: name.clone(), value, n, interval: interval(values, bootstrap), against })
    };
    own.names.iter().enumerate().filter_map(figure).collect()
}

fn against(changes: &[Option<f64>], bootstrap: &Bootstrap) -> Option<Against> {
    let (difference, n) = mean_of_known(changes)?;
    let count = |is: fn(f64) -> bool| changes.iter().flatten().filter(|change| is(**change)).count() as u64;
    let (more, less) = (count(|change| change > 0.0), count(|change| change < 0.0));
    let p = mcnemar(more, less);
    Some(Against { difference, n, interval: interval(changes, bootstrap), more, less, p, p_holm: p })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(accuracy: &[Option<f64>], length: &[Option<f64>]) -> Values {
        let names = vec!["accuracy".into(), LENGTH.into()];
        Values { names, values: vec![accuracy.to_vec(), length.to_vec()] }
    }

    #[test]
    fn differences_are_those_of_the_same_problems() {
        let whole = |accuracy: [f64; 6], length: [f64; 6]| values(&accuracy.map(Some), &length.map(Some));
        let zero = whole([1.0, 0.0, 0.0, 0.0, 0.0, 1.0], [9.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let own = whole([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], [9.0, 5.0, 6.0, 8.0, 8.0, 7.0]);
        let bootstrap = Bootstrap::new(500, 6);
        let [accuracy, length] = &figures(&own, Some(&zero), &bootstrap)[..] else { panic!("two figures") };
        let against = accuracy.against.as_ref().unwrap();
        assert_eq!((accuracy.value, against.difference, against.more, against.less), (5.0 / 6.0, 0.5, 4, 1));
        assert_eq!((accuracy.n, against.n, accuracy.is_partial(6)), (6, 6, false));
        // 2 (1 + 5) / 2^5
        assert!((against.p - 0.375).abs() < 1e-12, "{}", against.p);
        let [low, high] = against.interval.unwrap();
        assert!((-0.4..0.1).contains(&low) && high == 1.0, "{low} {high}");
        let against = length.against.as_ref().unwrap();
        // Ties are left out: 4 of 5 rise.
        assert_eq!((against.difference, against.more, against.less), (4.0 / 6.0, 4, 1));
        assert!((against.p - 0.375).abs() < 1e-12, "{}", against.p);
        assert!(figures(&zero, None, &bootstrap).iter().all(|figure| figure.against.is_none()));
        assert_eq!(own.differences(&zero), [Some((0.5, 6)), Some((4.0 / 6.0, 6))]);
    }

    #[test]
    fn what_is_missing_is_not_zero() {
        let none = [None; 6];
        let zero = values(&[Some(0.0), Some(0.0), None, Some(0.0), Some(1.0), Some(1.0)], &none);
        let own = values(&[Some(1.0), Some(1.0), Some(1.0), None, Some(0.0), Some(1.0)], &none);
        let bootstrap = Bootstrap::new(500, 6);
        // Of lengths nothing is known, so that there is no figure.
        let [figure] = &figures(&own, Some(&zero), &bootstrap)[..] else { panic!("one figure") };
        assert_eq!((figure.value, figure.n, figure.is_partial(6)), (4.0 / 5.0, 5, true));
        // Four problems are known under both: two rise, one falls.
        let against = figure.against.as_ref().unwrap();
        assert_eq!((against.difference, against.n, against.more, against.less), (0.25, 4, 2, 1));
        assert!((against.p - 1.0).abs() < 1e-12, "{}", against.p);
        assert_eq!(own.differences(&zero), [Some((0.25, 4)), None]);
        // A figure that is known everywhere, of which a difference is not.
        let whole = values(&[Some(1.0); 6], &none);
        let figure = &figures(&whole, Some(&own), &bootstrap)[0];
        assert_eq!((figure.n, figure.against.as_ref().unwrap().n, figure.is_partial(6)), (6, 5, true));

        // Three problems with 1 and three that are missing: every resample has the mean 1.
        let ones = values(&[Some(1.0), None, Some(1.0), None, Some(1.0), None], &none);
        assert_eq!(figures(&ones, None, &bootstrap)[0].interval, Some([1.0, 1.0]));
        // One problem has no interval, and two conditions without a common problem no difference.
        let one = values(&[None, Some(0.0), None, None, None, None], &none);
        let [figure] = &figures(&one, Some(&ones), &bootstrap)[..] else { panic!("one figure") };
        assert_eq!((figure.value, figure.n, figure.interval, &figure.against), (0.0, 1, None, &None));
        assert_eq!(one.differences(&ones), [None, None]);
    }

    #[test]
    fn behaviours_are_those_that_the_judge_speaks_of() {
        let conversational = Judgement { conversational: Some([2, 0, 1, 0]), ..Judgement::default() };
        let both = Judgement { cognitive: Some([0, 0, 0, 3]), ..conversational.clone() };
        let found = behaviours(&[Some(&conversational), None, Some(&both)]);
        let of = |name: &str| found.iter().find(|(own, _)| own == name).unwrap().1.clone();
        assert_eq!(found.len(), 8);
        assert_eq!(of("conversational/question_answering/prevalence"), [Some(1.0), None, Some(1.0)]);
        assert_eq!(of("conversational/reconciliation/prevalence"), [Some(0.0), None, Some(0.0)]);
        assert_eq!(of("cognitive/verification/prevalence"), [None, None, Some(0.0)]);
        assert_eq!(of("cognitive/backward_chaining/prevalence"), [None, None, Some(1.0)]);
    }
}
