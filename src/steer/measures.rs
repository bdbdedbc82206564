//! What is measured in answers, and how two conditions differ in it.
//!
//! Conditions are paired: the same problems, the same random numbers. A difference has its bootstrap interval over
//! problems, and an exact test of whether as many problems rise as fall: of what is there or not that is McNemar's, of
//! a length the sign test, which leaves out ties (both are the binomial test of the discordant pairs).

use super::conditions::Answers;
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

/// What was measured under a condition.
#[derive(Clone, Debug)]
pub struct Values {
    /// The names of the figures; behaviours are those that judged traces have.
    pub names: Vec<String>,
    /// The value of each figure for each problem, [figures, P].
    pub values: Vec<Vec<f64>>,
}

impl Values {
    pub fn of(answers: &Answers) -> Self {
        let outcome = |of: fn(&Rollout) -> f64| answers.rollouts.iter().map(of).collect::<Vec<f64>>();
        let mut names: Vec<String> = OUTCOMES.iter().map(|(name, _)| (*name).into()).collect();
        let mut values: Vec<Vec<f64>> = OUTCOMES.iter().map(|(_, of)| outcome(*of)).collect();
        let mut behaviours = |group: &str, kinds: [&str; 4], of: fn(&Judgement) -> Option<[u32; 4]>| {
            for (which, kind) in kinds.into_iter().enumerate() {
                let has = |own: &Judgement| of(own).is_some_and(|counts| counts[which] > 0);
                names.push(format!("{group}/{kind}/prevalence"));
                values.push(answers.judgements.iter().map(|own| f64::from(u8::from(has(own)))).collect());
            }
        };
        behaviours("conversational", CONVERSATIONAL, |judgement| judgement.conversational);
        behaviours("cognitive", COGNITIVE, |judgement| judgement.cognitive);
        Self { names, values }
    }

    /// Each figure's mean minus that of the same problems under another condition.
    pub fn differences(&self, other: &Self) -> Vec<f64> {
        self.values.iter().zip(&other.values).map(|(own, other)| mean(own) - mean(other)).collect()
    }
}

/// A figure under a condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    /// The mean over problems.
    pub value: f64,
    /// Its 95 % interval, by bootstrap over problems.
    pub interval: Option<[f64; 2]>,
    /// Against strength 0; none at strength 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// How a condition differs from strength 0 on the same problems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    pub difference: f64,
    pub interval: Option<[f64; 2]>,
    /// Problems with a larger and a smaller value than at strength 0.
    pub more: u64,
    pub less: u64,
    /// The exact test's.
    pub p: f64,
    /// The same by Holm's correction over all figures and strengths of the report.
    pub p_holm: f64,
}

/// The figures of a condition, held against those of another; p values are not corrected yet.
pub fn figures(own: &Values, zero: Option<&Values>, bootstrap: &Bootstrap) -> Vec<Figure> {
    let interval = |values: Vec<f64>| Grid::new(vec![values]).and_then(|grid| bootstrap.mean(&grid));
    let figure = |(at, name): (usize, &String)| {
        let values = &own.values[at];
        let against = zero.map(|zero| {
            let differences: Vec<f64> = values.iter().zip(&zero.values[at]).map(|(own, zero)| own - zero).collect();
            let count = |is: fn(&f64) -> bool| differences.iter().filter(|d| is(d)).count() as u64;
            let (more, less) = (count(|d| *d > 0.0), count(|d| *d < 0.0));
            let p = mcnemar(more, less);
            Against { difference: mean(&differences), interval: interval(differences), more, less, p, p_holm: p }
        });
        Figure { name: name.clone(), value: mean(values), interval: interval(values.clone()), against }
    };
    own.names.iter().enumerate().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_the_same_problems() {
        let values = |accuracy: &[f64], length: &[f64]| Values {
            names: vec!["accuracy".into(), LENGTH.into()],
            values: vec![accuracy.to_vec(), length.to_vec()],
        };
        let zero = values(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], &[9.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let own = values(&[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], &[9.0, 5.0, 6.0, 8.0, 8.0, 7.0]);
        let bootstrap = Bootstrap::new(500, 6);
        let [accuracy, length] = &figures(&own, Some(&zero), &bootstrap)[..] else { panic!("two figures") };
        let against = accuracy.against.as_ref().unwrap();
        assert_eq!((accuracy.value, against.difference, against.more, against.less), (5.0 / 6.0, 0.5, 4, 1));
        // 2 (1 + 5) / 2^5
        assert!((against.p - 0.375).abs() < 1e-12, "{}", against.p);
        let [low, high] = against.interval.unwrap();
        assert!((-0.4..0.1).contains(&low) && high == 1.0, "{low} {high}");
        let against = length.against.as_ref().unwrap();
        // Ties are left out: 4 of 5 rise.
        assert_eq!((against.difference, against.more, against.less), (4.0 / 6.0, 4, 1));
        assert!((against.p - 0.375).abs() < 1e-12, "{}", against.p);
        assert!(figures(&zero, None, &bootstrap).iter().all(|figure| figure.against.is_none()));
        assert_eq!(own.differences(&zero), [5.0 / 6.0 - 2.0 / 6.0, 43.0 / 6.0 - 39.0 / 6.0]);
    }
}
