//! What the single problems of an evaluation came to, whether the run's own evaluation recorded them or a hook did.
//! Runs are held against each other problem by problem only where the problems are the same, in the same order.

use crate::hash::hash_of_texts;
use crate::metrics::Outcomes;
use crate::stats::Part;
use std::collections::BTreeMap;

/// Figures of an evaluation, problem by problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Singles {
    /// A hash of the problems and their order.
    problems: String,
    len: usize,
    figures: BTreeMap<String, Vec<Part>>,
}

impl Singles {
    /// Of these problems, in this order, without figures yet.
    pub fn new<T: AsRef<str>>(problems: &[T]) -> Self {
        Self { problems: hash_of_texts(problems), len: problems.len(), figures: BTreeMap::new() }
    }

    /// Of the run's own evaluation.
    pub fn of(outcomes: &Outcomes) -> Self {
        let (problems, len) = (outcomes.problems.clone(), outcomes.len());
        let mut singles = Self { problems, len, figures: BTreeMap::new() };
        for name in ["accuracy", "format", "reward", "response_length", "unanswered", "clip_ratio"] {
            if let Some(values) = outcomes.figure(name) {
                singles.set(name, values.into_iter().map(|value| Some((value, 1.0))).collect());
            }
        }
        singles
    }

    /// Adds a figure, a part for each problem; one of another length is left out.
    pub fn set(&mut self, name: &str, parts: Vec<Part>) {
        if parts.len() == self.len {
            self.figures.insert(name.into(), parts);
        }
    }

    /// Number of problems.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether two evaluations are of the same problems.
    pub fn same_problems(&self, other: &Self) -> bool {
        (&self.problems, self.len) == (&other.problems, other.len)
    }

    /// The parts of a figure, by problem.
    pub fn parts(&self, name: &str) -> Option<&[Part]> {
        self.figures.get(name).map(Vec::as_slice)
    }

    /// The values of a figure whose mean is a plain one, by problem; `None` if it is not, or a problem is missing.
    pub fn values(&self, name: &str) -> Option<Vec<f64>> {
        let value = |part: &Part| part.filter(|(_, below)| *below == 1.0).map(|(value, _)| value);
        self.parts(name)?.iter().map(value).collect()
    }
}
