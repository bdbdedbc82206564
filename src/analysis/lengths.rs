//! Accuracy at matched response length, and format apart from accuracy.
//!
//! An arm may be more often right only because it writes longer, or shorter: `stats::Bins` compares within bins of
//! length.

use super::arms::Arm;
use super::data::Data;
use super::pairs::two_by_two;
use super::singles::Singles;
use crate::metrics::Stage;
use crate::stats::{Bins, Bootstrap, Draw, mean, percentile_interval};
use serde::Serialize;

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
            let Some(singles) = data.singles(&[&runs.first[..], &runs.second].concat(), *step) else { continue };
            let (a, b) = singles.split_at(runs.first.len());
            let Some(responses) = Responses::of(a, b) else { continue };
            let Some([one, other]) = responses.accuracies(&Weights::ones(a, b)) else { continue };
            let seeds = if runs.paired { [a.len(), 0] } else { [a.len(), b.len()] };
            let differences = bootstrap.draws(seeds, singles[0].len()).filter_map(|draw| {
                responses.accuracies(&Weights::drawn(&draw, runs.paired)).map(|[one, other]| other - one)
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
                bins: responses.bins.counted(),
                covered: responses.bins.covered(),
            });
        }
    }
    all
}

/// The mean of a figure over all responses of an arm.
fn over(arm: &[&Singles], figure: &str) -> f64 {
    mean(&arm.iter().filter_map(|singles| singles.values(figure)).flatten().collect::<Vec<_>>())
}

/// The responses of two arms by length, in the order of runs and problems.
struct Responses {
    bins: Bins,
    /// Of each arm, for each run, the accuracy by problem.
    accuracy: [Vec<Vec<f64>>; 2],
}

impl Responses {
    /// `None` if responses are not known by their accuracy and length.
    fn of(first: &[&Singles], second: &[&Singles]) -> Option<Self> {
        let figure = |arm: &[&Singles], name| arm.iter().map(|run| run.values(name)).collect::<Option<Vec<_>>>();
        let lengths = |arm| figure(arm, "response_length").map(|runs| runs.concat());
        let accuracy = [figure(first, "accuracy")?, figure(second, "accuracy")?];
        Some(Self { bins: Bins::new([&lengths(first)?, &lengths(second)?]), accuracy })
    }

    /// The mean accuracy over bins of each arm, with responses weighted. `None` if no bin is left.
    fn accuracies(&self, weights: &Weights) -> Option<[f64; 2]> {
        let parts = |arm: usize| {
            self.accuracy[arm].iter().zip(&weights.seeds[arm]).flat_map(|(row, seed)| {
                row.iter().zip(&weights.problems).map(move |(right, problem)| (seed * problem * right, seed * problem))
            })
        };
        self.bins.quotients([&mut parts(0), &mut parts(1)])
    }
}

/// How often each seed of two arms and each problem counts.
struct Weights {
    seeds: [Vec<f64>; 2],
    problems: Vec<f64>,
}

impl Weights {
    fn ones(first: &[&Singles], second: &[&Singles]) -> Self {
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
    let is_hook = data.metric.stage == Stage::Hook;
    if data.metric.stage != Stage::Evaluation && !is_hook {
        return vec![];
    }
    let [format, accuracy] = ["format", "accuracy"].map(|figure| data.metric.with_figure(figure));
    let [formats, accuracies] = [&format, &accuracy].map(|metric| Data::new(data.runs, metric));
    let mut all = Vec::new();
    for step in steps {
        for arm in arms {
            let value = |data: &Data| data.grids(&[&arm.runs], *step).map(|grids| grids[0].mean());
            let (Some(format), Some(accuracy)) = (value(&formats), value(&accuracies)) else { continue };
            let fourfold = data.singles(&arm.runs, *step).and_then(|singles| shares(&singles));
            // What a hook of the user's calls so may be anything.
            if is_hook && fourfold.is_none() {
                continue;
            }
            all.push(Layout { step: *step, arm: arm.name.clone(), format, accuracy, fourfold });
        }
    }
    all
}

fn shares(singles: &[&Singles]) -> Option<[f64; 4]> {
    let both = singles.iter().map(|run| Some((run.values("accuracy")?, run.values("format")?)));
    let both = both.collect::<Option<Vec<_>>>()?;
    let cells = both.iter().flat_map(|(accuracy, format)| accuracy.iter().zip(format)).map(|(right, laid_out)| {
        [right * laid_out, right * (1.0 - laid_out), (1.0 - right) * laid_out, (1.0 - right) * (1.0 - laid_out)]
    });
    let cells: Vec<[f64; 4]> = cells.collect();
    Some([0, 1, 2, 3].map(|cell| mean(&cells.iter().map(|own| own[cell]).collect::<Vec<_>>())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Outcomes;

    fn outcomes(lengths: Vec<u64>, accuracy: Vec<f64>, format: Vec<f64>) -> Singles {
        let n = lengths.len();
        Singles::of(&Outcomes {
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
        })
    }

    #[test]
    fn responses_are_weighted_by_seed_and_problem() {
        // Two runs of the first arm, the second of which is drawn twice and the first never; short and long responses.
        let lengths: Vec<u64> = (0..20).map(|i| if i < 10 { 10 } else { 90 }).collect();
        let run = |right: fn(usize) -> bool| {
            let right: Vec<f64> = (0..20).map(|i| f64::from(u8::from(right(i)))).collect();
            outcomes(lengths.clone(), right, vec![1.0; 20])
        };
        let (never, odd, early) = (run(|_| false), run(|i| i % 2 == 1), run(|i| i < 10));
        let responses = Responses::of(&[&never, &odd], &[&early, &early]).unwrap();
        let plain = responses.accuracies(&Weights::ones(&[&never, &odd], &[&early, &early])).unwrap();
        assert_eq!(plain, [0.25, 0.5]);
        let problems: Vec<f64> = (0..20).map(|i| f64::from(u8::from(i % 5 == 1))).collect();
        let drawn = Draw { seeds: [vec![0.0, 2.0], vec![1.0, 1.0]], problems };
        // Of the problems 1, 6, 11 and 16, the first two are short.
        assert_eq!(responses.accuracies(&Weights::drawn(&drawn, false)).unwrap(), [0.5, 0.5]);
        assert_eq!(responses.accuracies(&Weights::drawn(&drawn, true)).unwrap(), [0.5, 0.5]);
        assert_eq!((responses.bins.counted(), responses.bins.covered()), (2, 1.0));
    }

    #[test]
    fn shares_of_accuracy_and_format_add_up() {
        let run = outcomes(vec![1; 4], vec![1.0, 1.0, 0.0, 0.0], vec![1.0, 0.0, 1.0, 1.0]);
        assert_eq!(shares(&[&run]), Some([0.25, 0.25, 0.5, 0.0]));
    }
}
