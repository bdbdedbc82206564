//! Arms against each other, two at a time: differences on the same problems, and exact tests.

use super::arms::Arm;
use super::data::{Data, Pairs};
use crate::stats::{Bootstrap, Grid, Part, area_weights, mcnemar, sign_flip};
use crate::terminal::figure;
use serde::Serialize;

/// The difference `second - first` of two arms.
#[derive(Serialize)]
pub struct Differing {
    /// `None`: between the areas of the whole curves.
    pub step: Option<u64>,
    pub first: String,
    pub second: String,
    pub difference: f64,
    /// Its 95 % interval, by bootstrap over seeds and problems.
    pub interval: Option<[f64; 2]>,
    /// Whether the runs are pairs of equal seeds.
    pub paired: bool,
    /// Runs of each arm.
    pub seeds: [usize; 2],
    /// Problems that all of these runs answered; 1 if only means are known.
    pub problems: usize,
    /// The p-value of the exact sign-flip test over pairs of seeds, if there are at least two.
    pub sign_flip: Option<f64>,
}

/// McNemar's exact test of two runs on the same problems.
#[derive(Serialize)]
pub struct Exact {
    pub step: u64,
    pub first: String,
    pub second: String,
    pub first_run: String,
    pub second_run: String,
    /// Problems for which the metric is 1 in both runs, only in the first, only in the second, in neither.
    pub both: u64,
    pub only_first: u64,
    pub only_second: u64,
    pub neither: u64,
    pub p: f64,
}

/// Two sets of answers to the same problems: which were right in the first, the second, both or neither.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// The share right in the first minus that in the second.
    pub difference: f64,
    /// Its 95 % interval, by bootstrap over problems.
    pub interval: Option<[f64; 2]>,
    pub both: u64,
    pub only_first: u64,
    pub only_second: u64,
    pub neither: u64,
    /// The p-value of McNemar's exact test.
    pub p: f64,
}

impl Paired {
    /// `first` and `second` are 1 for each problem that was right, else 0, [P]; `None` if they differ in length, are
    /// empty, or have other values. `bootstrap` is one of as many problems.
    pub fn of(first: &[f64], second: &[f64], bootstrap: &Bootstrap) -> Option<Self> {
        let differences = Grid::new(vec![first.to_vec()])?.minus(&Grid::new(vec![second.to_vec()])?)?;
        let parts = |values: &[f64]| values.iter().map(|value| Some((*value, 1.0))).collect::<Vec<Part>>();
        let [both, only_first, only_second, neither] = fourfold(&parts(first), &parts(second))?;
        Some(Self {
            difference: differences.mean(),
            interval: bootstrap.mean(&differences),
            both,
            only_first,
            only_second,
            neither,
            p: mcnemar(only_first, only_second),
        })
    }

    /// In two sentences; `first` and `second` are what to call the two.
    pub fn text(&self, first: &str, second: &str) -> String {
        let Self { both, only_first, only_second, neither, .. } = self;
        let interval =
            self.interval.map_or("".into(), |[low, high]| format!(" [{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high));
        format!(
            "accuracy of {first} minus that of {second}: {:+.1} points{interval}\nright in both {both}, only in the \
             first \
             {only_first}, only in the second {only_second}, in neither {neither}; McNemar's exact test: p = {}",
            100.0 * self.difference,
            figure(self.p)
        )
    }
}

/// All pairs of arms, an earlier one first.
pub fn two_by_two(arms: &[Arm]) -> impl Iterator<Item = (&Arm, &Arm)> {
    arms.iter().enumerate().flat_map(|(i, first)| arms[i + 1..].iter().map(move |second| (first, second)))
}

/// Which runs of two arms have no partner.
pub fn unpaired(data: &Data, arms: &[Arm]) -> Vec<String> {
    let mut notes = Vec::new();
    for (first, second) in two_by_two(arms) {
        let (runs, names) = (data.pairs(first, second), format!("{} and {}", first.name, second.name));
        let all = || first.runs.iter().chain(&second.runs);
        let left = all().filter(|run| !runs.first.contains(run) && !runs.second.contains(run));
        let left: Vec<&str> = left.map(|run| data.runs[*run].name.as_str()).collect();
        if !runs.paired {
            notes.push(format!("{names} have no seed in common: their differences are not paired by seed"));
        } else if !left.is_empty() {
            notes.push(format!("differences between {names} leave out {}, without a partner", left.join(", ")));
        }
    }
    notes
}

/// The differences at each of `steps`, and between the areas over `common`.
pub fn differences(data: &Data, arms: &[Arm], steps: &[u64], common: &[u64], bootstrap: &Bootstrap) -> Vec<Differing> {
    let weights = area_weights(common);
    let mut all = Vec::new();
    for (first, second) in two_by_two(arms) {
        let runs = data.pairs(first, second);
        let groups = [&runs.first[..], &runs.second[..]];
        let area = (common.len() > 1).then(|| (None, over_steps(data, &groups, common, &weights)));
        let at = steps.iter().map(|step| (Some(*step), data.grids(&groups, *step)));
        for (step, grids) in at.chain(area) {
            if let Some([a, b]) = grids.as_deref() {
                all.push(differing(step, [first, second], &runs, [a, b], bootstrap));
            }
        }
    }
    all
}

fn differing(step: Option<u64>, arms: [&Arm; 2], runs: &Pairs, grids: [&Grid; 2], bootstrap: &Bootstrap) -> Differing {
    let [a, b] = grids;
    let pairs = if runs.paired { b.minus(a) } else { None };
    let flipped = pairs.as_ref().filter(|pairs| pairs.seeds() > 1).and_then(|pairs| sign_flip(&pairs.means()));
    Differing {
        step,
        first: arms[0].name.clone(),
        second: arms[1].name.clone(),
        difference: b.mean() - a.mean(),
        interval: pairs.map_or_else(|| bootstrap.difference(a, b), |pairs| bootstrap.mean(&pairs)),
        paired: runs.paired,
        seeds: [a.seeds(), b.seeds()],
        problems: a.problems(),
        sign_flip: flipped,
    }
}

/// The grids of several steps added up with a weight each.
pub fn over_steps(data: &Data, groups: &[&[usize]], steps: &[u64], weights: &[f64]) -> Option<Vec<Grid>> {
    let at: Vec<Vec<Grid>> = steps.iter().map(|step| data.grids(groups, *step)).collect::<Option<_>>()?;
    let total = |cells: fn(&Grid) -> Grid| -> Option<Vec<Grid>> {
        let cells: Vec<Vec<Grid>> = at.iter().map(|grids| grids.iter().map(cells).collect()).collect();
        let sum =
            |group: usize| Grid::weighted_sum(&cells.iter().map(|grids| &grids[group]).collect::<Vec<_>>(), weights);
        (0..groups.len()).map(sum).collect()
    };
    // Where a step lacks single problems, or has others, means are what all steps have.
    total(Grid::clone).or_else(|| total(Grid::by_seed))
}

/// McNemar's test at each of `steps`, for pairs of runs with equal seeds, or for two arms of one run each; only for
/// metrics that are 0 or 1 for each problem.
pub fn exact(data: &Data, arms: &[Arm], steps: &[u64]) -> Vec<Exact> {
    let mut all = Vec::new();
    for (first, second) in two_by_two(arms) {
        let runs = data.pairs(first, second);
        if !runs.paired && (runs.first.len(), runs.second.len()) != (1, 1) {
            continue;
        }
        for step in steps {
            for (a, b) in runs.first.iter().zip(&runs.second) {
                let counts = data.singles(&[*a, *b], *step).and_then(|singles| {
                    let [a, b] = [singles[0], singles[1]].map(|own| own.parts(data.metric.of_singles()));
                    fourfold(a?, b?)
                });
                let Some([both, only_first, only_second, neither]) = counts else { continue };
                all.push(Exact {
                    step: *step,
                    first: first.name.clone(),
                    second: second.name.clone(),
                    first_run: data.runs[*a].name.clone(),
                    second_run: data.runs[*b].name.clone(),
                    both,
                    only_first,
                    only_second,
                    neither,
                    p: mcnemar(only_first, only_second),
                });
            }
        }
    }
    all
}

/// How many problems are 1 for both, only the first, only the second, neither, of those that neither lacks; `None` if
/// a value is neither 0 nor 1, or there is none.
fn fourfold(first: &[Part], second: &[Part]) -> Option<[u64; 4]> {
    let mut counts = [0; 4];
    for (a, b) in first.iter().zip(second).filter_map(|(a, b)| a.zip(*b)) {
        let is_one = |part: (f64, f64)| match part {
            (1.0, 1.0) => Some(true),
            (0.0, 1.0) => Some(false),
            _ => None,
        };
        let cell = match (is_one(a)?, is_one(b)?) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        counts[cell] += 1;
    }
    (counts != [0; 4]).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_the_same_problems_are_held_against_each_other() {
        let right = |ones: usize, from: usize| -> Vec<f64> {
            (0..200).map(|i| f64::from(u8::from((from..from + ones).contains(&i)))).collect()
        };
        let (first, second) = (right(90, 10), right(60, 0));
        let paired = Paired::of(&first, &second, &Bootstrap::new(2000, 200)).unwrap();
        assert_eq!([paired.both, paired.only_first, paired.only_second, paired.neither], [50, 40, 10, 100]);
        assert!((paired.difference - 0.15).abs() < 1e-12);
        // The standard error of a mean of differences that are 1 for 40, -1 for 10 and 0 for 150 problems.
        let error = ((50.0 / 200.0 - 0.15f64.powi(2)) / 200.0).sqrt();
        let [low, high] = paired.interval.unwrap();
        assert!((low - (0.15 - 1.96 * error)).abs() < 0.008 && (high - (0.15 + 1.96 * error)).abs() < 0.008);
        assert_eq!(paired.p, mcnemar(40, 10));
        let text = paired.text("a", "b");
        assert!(
            text.starts_with("accuracy of a minus that of b: +15.0 points [+") && text.contains("p = 2.4e-5"),
            "{text}"
        );
        let bootstrap = Bootstrap::new(10, 2);
        assert_eq!(Paired::of(&[1.0, 0.0], &[1.0], &bootstrap), None);
        assert_eq!(Paired::of(&[1.0, 0.5], &[1.0, 0.0], &bootstrap), None);
        assert_eq!(Paired::of(&[], &[], &bootstrap), None);
    }
}
