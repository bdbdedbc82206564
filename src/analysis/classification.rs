//! How well problems were told apart: which class was taken for which, and what follows from it.
//!
//! A response may name no class. It then counts as wrong, and against the recall of its class, and against no class's
//! precision. `scripts/golden_classification.py` computes the same with scikit-learn.

use crate::stats::{Bootstrap, Grid, percentile_interval};
use crate::terminal;
use serde::{Deserialize, Serialize};

/// Problems of a few classes and the answers to them; a class is its place in `names`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    pub names: &'static [&'static str],
    /// The class of each problem, [P], below C = `names.len()`.
    pub truth: Vec<usize>,
    /// The class that was answered, [P]; `None` if none was.
    pub given: Vec<Option<usize>>,
    /// The commonest class of the training problems.
    pub majority: usize,
}

/// Figures of a confusion matrix, all of them shares; what would be 0 / 0 is 0.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Scores {
    pub accuracy: f64,
    /// The plain mean of the F1 of all classes, also of those that no problem has.
    pub macro_f1: f64,
    /// Share of the problems whose response names no class.
    pub unanswered: f64,
    /// Of the problems that got the class as their answer, the share that has it; [C].
    pub precision: Vec<f64>,
    /// Of the problems that have the class, the share that got it; [C].
    pub recall: Vec<f64>,
    /// The harmonic mean of the two, [C].
    pub f1: Vec<f64>,
}

/// A constant answer's scores.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Baseline {
    pub class: String,
    /// Whether it is the commonest class of the training problems.
    pub majority_of_train: bool,
    pub accuracy: f64,
    pub macro_f1: f64,
}

/// Everything that an evaluation says about classes, in the layout of its JSON.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Summary {
    pub classes: Vec<String>,
    /// Problems by their class (rows) and answer (columns: the classes, then none), [C, C + 1].
    pub confusion: Vec<Vec<u64>>,
    #[serde(flatten)]
    pub scores: Scores,
    /// 95 % intervals by bootstrap over problems.
    pub accuracy_interval: Option<[f64; 2]>,
    pub macro_f1_interval: Option<[f64; 2]>,
    /// What each constant answer would have got on these problems.
    pub baselines: Vec<Baseline>,
}

/// How often the problems of each class got each answer (columns: the classes, then none), [C, C + 1]; a problem counts
/// `weights` times, or once.
pub fn confusion(classes: usize, truth: &[usize], given: &[Option<usize>], weights: Option<&[f64]>) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; classes + 1]; classes];
    for (i, (truth, given)) in truth.iter().zip(given).enumerate() {
        counts[*truth][given.unwrap_or(classes)] += weights.map_or(1.0, |weights| weights[i]);
    }
    counts
}

/// The figures of a confusion matrix, [C, C + 1].
pub fn scores(confusion: &[Vec<f64>]) -> Scores {
    let classes = confusion.len();
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let hits = |class: usize| confusion[class][class];
    let having = |class: usize| confusion[class].iter().sum::<f64>();
    let given = |answer: usize| confusion.iter().map(|row| row[answer]).sum::<f64>();
    let each = |of: &dyn Fn(usize) -> f64| (0..classes).map(of).collect::<Vec<f64>>();
    let all: f64 = (0..classes).map(having).sum();
    // 2 p r / (p + r), without its 0 / 0.
    let f1 = each(&|class| ratio(2.0 * hits(class), having(class) + given(class)));
    Scores {
        accuracy: ratio((0..classes).map(hits).sum(), all),
        macro_f1: ratio(f1.iter().sum(), classes as f64),
        unanswered: ratio(given(classes), all),
        precision: each(&|class| ratio(hits(class), given(class))),
        recall: each(&|class| ratio(hits(class), having(class))),
        f1,
    }
}

/// The commonest of `classes` classes, of several the first.
pub fn commonest(classes: usize, of: &[usize]) -> usize {
    let count = |class: usize| of.iter().filter(|other| **other == class).count();
    (0..classes).rev().max_by_key(|class| count(*class)).unwrap_or(0)
}

impl Answers {
    pub fn scores(&self) -> Scores {
        scores(&confusion(self.names.len(), &self.truth, &self.given, None))
    }

    /// Macro-F1 of a resample.
    fn drawn(&self, problems: &[f64]) -> f64 {
        scores(&confusion(self.names.len(), &self.truth, &self.given, Some(problems))).macro_f1
    }

    /// The scores with intervals and baselines. `bootstrap` is one of as many problems.
    pub fn summary(&self, bootstrap: &Bootstrap) -> Summary {
        let counts = confusion(self.names.len(), &self.truth, &self.given, None);
        let right =
            self.truth.iter().zip(&self.given).map(|(truth, given)| f64::from(u8::from(Some(*truth) == *given)));
        let baseline = |class: usize| {
            let constant = vec![Some(class); self.truth.len()];
            let Scores { accuracy, macro_f1, .. } = scores(&confusion(self.names.len(), &self.truth, &constant, None));
            let class_name = self.names[class].to_string();
            Baseline { class: class_name, majority_of_train: class == self.majority, accuracy, macro_f1 }
        };
        Summary {
            classes: self.names.iter().map(ToString::to_string).collect(),
            confusion: counts.iter().map(|row| row.iter().map(|count| *count as u64).collect()).collect(),
            scores: scores(&counts),
            accuracy_interval: Grid::new(vec![right.collect()]).and_then(|grid| bootstrap.mean(&grid)),
            macro_f1_interval: self.interval(bootstrap, |problems| self.drawn(problems)),
            baselines: (0..self.names.len()).map(baseline).collect(),
        }
    }

    /// Macro-F1 minus that of other answers to the same problems, and its interval.
    pub fn macro_f1_minus(&self, other: &Self, bootstrap: &Bootstrap) -> (f64, Option<[f64; 2]>) {
        let difference = self.scores().macro_f1 - other.scores().macro_f1;
        (difference, self.interval(bootstrap, |problems| self.drawn(problems) - other.drawn(problems)))
    }

    /// The percentile interval of a figure of resampled problems.
    fn interval(&self, bootstrap: &Bootstrap, figure: impl Fn(&[f64]) -> f64) -> Option<[f64; 2]> {
        let problems = self.truth.len();
        let draws = (problems > 1).then(|| bootstrap.draws([0, 0], problems))?;
        percentile_interval(draws.map(|draw| figure(&draw.problems)).collect())
    }
}

impl Summary {
    /// For a terminal: two sentences, then which class was taken for which.
    pub fn text(&self) -> String {
        let Scores { macro_f1, unanswered, precision, recall, f1, .. } = &self.scores;
        let interval = |interval: Option<[f64; 2]>, times: f64, digits: usize| {
            interval.map_or("".into(), |[low, high]| format!(" [{:.digits$}, {:.digits$}]", times * low, times * high))
        };
        let sentence = format!(
            "95 % intervals over problems: accuracy {:.1} %{}, macro-F1 {macro_f1:.3}{}; {:.1} % name no class",
            100.0 * self.scores.accuracy,
            interval(self.accuracy_interval, 100.0, 1),
            interval(self.macro_f1_interval, 1.0, 3),
            100.0 * unanswered
        );
        let baseline = |b: &Baseline| {
            let note = if b.majority_of_train { ", the commonest of the train split" } else { "" };
            format!("{}{note}: {:.1} % and {:.3}", b.class, 100.0 * b.accuracy, b.macro_f1)
        };
        let baselines = self.baselines.iter().map(baseline).collect::<Vec<_>>().join("; ");
        let row = |class: usize| -> Vec<String> {
            let counts = self.confusion[class].iter().map(u64::to_string);
            let shares = [precision, recall, f1].map(|of| format!("{:.3}", of[class]));
            [self.classes[class].clone()].into_iter().chain(counts).chain(shares).collect()
        };
        let head = ["class"].into_iter().chain(self.classes.iter().map(String::as_str));
        let head: Vec<&str> = head.chain(["none", "precision", "recall", "F1"]).collect();
        let table = terminal::table(&head, &(0..self.classes.len()).map(row).collect::<Vec<_>>());
        format!(
            "{sentence}\nthe same answer to all would get: {baselines}\nproblems of each class by what was answered:\n\
             {table}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const NAMES: [&str; 3] = ["true", "half-true", "false"];

    fn answers(case: &Value) -> Answers {
        let list = |key: &str| case[key].as_array().unwrap().iter().map(|v| v.as_u64().map(|class| class as usize));
        let truth: Vec<usize> = list("truth").map(Option::unwrap).collect();
        let majority = case["majority"].as_u64().unwrap() as usize;
        Answers { names: &NAMES, truth, given: list("given").collect(), majority }
    }

    fn assert_close(got: &[f64], expected: &Value, bound: f64) {
        let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(got.len(), expected.len());
        let near = got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() <= bound);
        assert!(near, "{got:?}, expected {expected:?}");
    }

    #[test]
    fn the_scores_are_those_of_scikit_learn() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/classification.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let answers = answers(case);
            let counts = confusion(3, &answers.truth, &answers.given, None);
            for (row, expected) in counts.iter().zip(case["confusion"].as_array().unwrap()) {
                assert_close(row, expected, 0.0);
            }
            let scores = answers.scores();
            assert_close(&scores.precision, &case["precision"], 1e-12);
            assert_close(&scores.recall, &case["recall"], 1e-12);
            assert_close(&scores.f1, &case["f1"], 1e-12);
            let [accuracy, macro_f1] = [scores.accuracy, scores.macro_f1];
            assert_close(&[accuracy, macro_f1], &case["accuracy_and_macro_f1"], 1e-12);
            let constants = answers.summary(&Bootstrap::new(1, answers.truth.len())).baselines;
            let constants: Vec<f64> = constants.iter().flat_map(|b| [b.accuracy, b.macro_f1]).collect();
            assert_close(&constants, &case["constants"], 1e-12);
        }
    }

    /// Other draws, so that only the ends of the intervals are alike.
    #[test]
    fn intervals_are_those_of_another_bootstrap() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/classification.json")).unwrap();
        let case = &golden["bootstrap"];
        let (first, second) = (answers(&case["first"]), answers(&case["second"]));
        let bootstrap = Bootstrap::new(4000, first.truth.len());
        let summary = first.summary(&bootstrap);
        assert_close(&summary.accuracy_interval.unwrap(), &case["accuracy"], 0.005);
        assert_close(&summary.macro_f1_interval.unwrap(), &case["macro_f1"], 0.005);
        let (difference, interval) = first.macro_f1_minus(&second, &bootstrap);
        assert_close(&[difference], &case["difference"], 1e-12);
        assert_close(&interval.unwrap(), &case["difference_interval"], 0.005);
    }

    #[test]
    fn a_summary_is_printed_with_its_baselines() {
        let given = vec![Some(0), Some(2), None, Some(2)];
        let answers = Answers { names: &NAMES, truth: vec![0, 0, 1, 2], given, majority: 2 };
        let summary = answers.summary(&Bootstrap::new(100, 4));
        assert_eq!(summary.confusion, [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]);
        assert_eq!((summary.scores.accuracy, summary.scores.unanswered), (0.5, 0.25));
        let text = summary.text();
        for part in [
            "accuracy 50.0 % [",
            "; 25.0 % name no class",
            "false, the commonest of the train split: 25.0 % and 0.133",
            "problems of each class by what was answered:",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(commonest(3, &[2, 1, 1, 2]), 1);
        assert_eq!(commonest(3, &[]), 0);
        let none = Answers { truth: vec![], given: vec![], ..answers };
        let empty = none.summary(&Bootstrap::new(10, 1));
        assert_eq!((empty.scores.accuracy, empty.accuracy_interval, empty.macro_f1_interval), (0.0, None, None));
    }
}
