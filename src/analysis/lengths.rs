//! Accuracy at matched response length, and format apart from accuracy.
//!
//! An arm may be more often right only because it writes longer, or shorter. To compare arms at equal length, the
//! responses of both at a step are put into bins of length, and accuracies are compared within bins. The edges are the
//! deciles of both arms' lengths together. A bin counts if each arm has at least `LEAST` responses in it, and all bins
//! that count weigh the same, whatever the arms' shares in them (direct standardisation to a uniform population).

use super::arms::Arm;
use super::data::Data;
use super::pairs::two_by_two;
use super::resample::{Bootstrap, Draw};
use super::statistics::{mean, percentile_interval, quantile};
use crate::metrics::{Outcomes, Stage};
use serde::Serialize;

/// Bins of response length.
const BINS: usize = 10;
/// Fewest responses of each arm in a bin that counts.
const LEAST: usize = 5;

/// Accuracies of two arms at matched response length.
#[derive(Serialize)]
pub struct Matched {
    pub step: u64,
    pub first: String,
    pub second: String,
    /// Accuracies as they are, and the mean lengths in tokens.
    pub plain: [f64; 2],
    pub lengths: [f64; 2],
    /// Mean accuracy over the bins that count.
    pub matched: [f64; 2],
    /// `second - first` of `matched`.
    pub difference: f64,
    pub interval: Option<[f64; 2]>,
    /// Bins that count, and the share of all responses that are in them.
    pub bins: usize,
    pub covered: f64,
}

/// How often responses are right and well laid out, over the runs of an arm.
#[derive(Serialize)]
pub struct Layout {
    pub step: u64,
    pub arm: String,
    pub format: f64,
    pub accuracy: f64,
    /// Right and laid out, only right, only laid out, neither: shares that add up to 1, if single problems are known.
    pub fourfold: Option<[f64; 4]>,
}

/// Accuracies at matched length of each two arms, at the steps where all their runs answered the same problems.
pub fn matched(data: &Data, arms: &[Arm], steps: &[u64], bootstrap: &Bootstrap) -> Vec<Matched> {
    let mut all = Vec::new();
    for (first, second) in two_by_two(arms) {
        let runs = data.pairs(first, second);
        for step in steps {
            let Some(outcomes) = data.evaluations(&[&runs.first[..], &runs.second].concat(), *step) else { continue };
            let (a, b) = outcomes.split_at(runs.first.len());
            let bins = Bins::of(a, b);
            let Some([one, other]) = bins.accuracies(&Weights::ones(a, b)) else { continue };
            let seeds = if runs.paired { [a.len(), 0] } else { [a.len(), b.len()] };
            let differences = bootstrap.draws(seeds, outcomes[0].len()).filter_map(|draw| {
                bins.accuracies(&Weights::drawn(&draw, runs.paired)).map(|[one, other]| other - one)
            });
            all.push(Matched {
                step: *step,
                first: first.name.clone(),
                second: second.name.clone(),
                plain: [a, b].map(|arm| over(arm, "accuracy")),
                lengths: [a, b].map(|arm| over(arm, "response_length")),
                matched: [one, other],
                difference: other - one,
                interval: percentile_interval(differences.collect()),
                bins: bins.counted.len(),
                covered: bins.covered,
            });
        }
    }
    all
}

/// The mean of a figure over all responses of an arm.
fn over(arm: &[&Outcomes], figure: &str) -> f64 {
    mean(&arm.iter().filter_map(|outcomes| outcomes.figure(figure)).flatten().collect::<Vec<_>>())
}

/// The responses of two arms by length.
struct Bins {
    /// Of each arm, for each run and problem: the bin, and the accuracy.
    arms: [Vec<Vec<(usize, f64)>>; 2],
    /// The bins in which both arms have enough responses.
    counted: Vec<usize>,
    covered: f64,
}

impl Bins {
    fn of(first: &[&Outcomes], second: &[&Outcomes]) -> Self {
        let mut lengths: Vec<f64> = first
            .iter()
            .chain(second)
            .flat_map(|run| run.response_length.iter().map(|length| *length as f64))
            .collect();
        lengths.sort_by(f64::total_cmp);
        let mut edges: Vec<f64> = (1..BINS).map(|i| quantile(&lengths, i as f64 / BINS as f64)).collect();
        edges.dedup();
        // A length on an edge belongs to the bin below.
        let bin = |length: &u64| edges.partition_point(|edge| *edge < *length as f64);
        let place = |runs: &[&Outcomes]| -> Vec<Vec<(usize, f64)>> {
            let row = |run: &&Outcomes| run.response_length.iter().map(bin).zip(run.accuracy.iter().copied()).collect();
            runs.iter().map(row).collect()
        };
        let arms = [place(first), place(second)];
        let size = |arm: &[Vec<(usize, f64)>], bin: usize| arm.iter().flatten().filter(|(own, _)| *own == bin).count();
        let counted: Vec<usize> =
            (0..=edges.len()).filter(|bin| arms.iter().all(|arm| size(arm, *bin) >= LEAST)).collect();
        let inside: usize = counted.iter().map(|bin| size(&arms[0], *bin) + size(&arms[1], *bin)).sum();
        Self { covered: inside as f64 / lengths.len() as f64, arms, counted }
    }

    /// The mean accuracy over bins of each arm, with responses weighted; a bin without weight is left out. `None` if no
    /// bin is left.
    fn accuracies(&self, weights: &Weights) -> Option<[f64; 2]> {
        let sums = [0, 1].map(|arm| {
            let mut sums = [(0.0, 0.0); BINS];
            for (row, seed) in self.arms[arm].iter().zip(&weights.seeds[arm]).filter(|(_, seed)| **seed > 0.0) {
                for ((bin, right), problem) in row.iter().zip(&weights.problems) {
                    sums[*bin].0 += seed * problem * right;
                    sums[*bin].1 += seed * problem;
                }
            }
            sums
        });
        let filled = self.counted.iter().filter(|bin| sums.iter().all(|arm| arm[**bin].1 > 0.0));
        let filled: Vec<usize> = filled.copied().collect();
        let accuracy =
            |arm: usize| mean(&filled.iter().map(|bin| sums[arm][*bin].0 / sums[arm][*bin].1).collect::<Vec<_>>());
        (!filled.is_empty()).then(|| [accuracy(0), accuracy(1)])
    }
}

/// How often each seed of two arms and each problem counts.
struct Weights {
    seeds: [Vec<f64>; 2],
    problems: Vec<f64>,
}

impl Weights {
    fn ones(first: &[&Outcomes], second: &[&Outcomes]) -> Self {
        Self { seeds: [vec![1.0; first.len()], vec![1.0; second.len()]], problems: vec![1.0; first[0].len()] }
    }

    /// `paired`: the seeds are the same ones in both arms.
    fn drawn(draw: &Draw, paired: bool) -> Self {
        let second = &draw.seeds[usize::from(!paired)];
        Self { seeds: [draw.seeds[0].clone(), second.clone()], problems: draw.problems.clone() }
    }
}

/// Format and accuracy of each arm, at the evaluations behind a validation metric.
pub fn layout(data: &Data, arms: &[Arm], steps: &[u64]) -> Vec<Layout> {
    if data.metric.stage != Stage::Evaluation {
        return vec![];
    }
    let [format, accuracy] = ["format", "accuracy"].map(|figure| data.metric.with_figure(figure));
    let [formats, accuracies] = [&format, &accuracy].map(|metric| Data::new(data.runs, metric));
    let mut all = Vec::new();
    for step in steps {
        for arm in arms {
            let value = |data: &Data| data.grids(&[&arm.runs], *step).map(|grids| grids[0].mean());
            let (Some(format), Some(accuracy)) = (value(&formats), value(&accuracies)) else { continue };
            let fourfold = data.evaluations(&arm.runs, *step).map(|outcomes| shares(&outcomes));
            all.push(Layout { step: *step, arm: arm.name.clone(), format, accuracy, fourfold });
        }
    }
    all
}

fn shares(outcomes: &[&Outcomes]) -> [f64; 4] {
    let cells = outcomes.iter().flat_map(|run| run.accuracy.iter().zip(&run.format)).map(|(right, laid_out)| {
        [right * laid_out, right * (1.0 - laid_out), (1.0 - right) * laid_out, (1.0 - right) * (1.0 - laid_out)]
    });
    let cells: Vec<[f64; 4]> = cells.collect();
    [0, 1, 2, 3].map(|cell| mean(&cells.iter().map(|own| own[cell]).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn outcomes(lengths: Vec<u64>, accuracy: Vec<f64>, format: Vec<f64>) -> Outcomes {
        let n = lengths.len();
        Outcomes {
            task: "t".into(),
            decoding: "greedy".into(),
            problems: "p".into(),
            reward: vec![0.0; n],
            terminated: vec![true; n],
            class: vec![],
            answer: vec![],
            response_length: lengths,
            accuracy,
            format,
        }
    }

    #[test]
    fn accuracies_at_matched_length_are_those_of_numpy() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/stats.json")).unwrap();
        for case in golden["matched"].as_array().unwrap() {
            let arm = |at: usize| {
                let numbers = |key: &str| case[key][at].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
                let lengths: Vec<u64> = numbers("lengths").map(|length| length as u64).collect();
                let n = lengths.len();
                outcomes(lengths, numbers("right").collect(), vec![1.0; n])
            };
            let (first, second) = (arm(0), arm(1));
            let bins = Bins::of(&[&first], &[&second]);
            let [one, other] = bins.accuracies(&Weights::ones(&[&first], &[&second])).unwrap();
            let got = [one, other, bins.covered, bins.counted.len() as f64];
            for (got, key) in got.iter().zip(["first", "second", "covered", "bins"]) {
                assert!((got - case[key].as_f64().unwrap()).abs() < 1e-12, "{key}: {got}");
            }
        }
    }

    /// Two arms that are equally good at any length, one of which writes longer.
    #[test]
    fn a_difference_that_is_one_of_length_vanishes() {
        let arm = |short: usize, long: usize| {
            let lengths = (0..short).map(|i| 10 + i as u64 % 5).chain((0..long).map(|i| 90 + i as u64 % 5));
            let right = (0..short).map(|i| f64::from(u8::from(i % 5 == 0)));
            let right: Vec<f64> = right.chain((0..long).map(|i| f64::from(u8::from(i % 5 != 0)))).collect();
            let n = right.len();
            outcomes(lengths.collect(), right, vec![1.0; n])
        };
        let (first, second) = (arm(100, 25), arm(25, 100));
        let [one, other] = Bins::of(&[&first], &[&second]).accuracies(&Weights::ones(&[&first], &[&second])).unwrap();
        let plain = over(&[&second], "accuracy") - over(&[&first], "accuracy");
        assert!(plain > 0.3 && (other - one).abs() < 0.05, "{plain} {one} {other}");
        // Without a common length there is nothing to compare.
        let (short, long) = (arm(50, 0), arm(0, 50));
        assert!(Bins::of(&[&short], &[&long]).accuracies(&Weights::ones(&[&short], &[&long])).is_none());
    }

    #[test]
    fn shares_of_accuracy_and_format_add_up() {
        let run = outcomes(vec![1; 4], vec![1.0, 1.0, 0.0, 0.0], vec![1.0, 0.0, 1.0, 1.0]);
        assert_eq!(shares(&[&run]), [0.25, 0.25, 0.5, 0.0]);
    }
}
