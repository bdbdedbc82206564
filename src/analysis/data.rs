//! The values that a comparison is about: of every run, by step, and where an evaluation was recorded problem by
//! problem, by problem.

use super::arms::Arm;
use super::runs::{Metric, Run};
use crate::metrics::Outcomes;
use crate::stats::Grid;
use std::collections::{BTreeMap, BTreeSet};

/// A metric of several runs. Runs are named by their place in the list.
pub struct Data<'a> {
    pub runs: &'a [Run],
    pub metric: &'a Metric,
    points: Vec<BTreeMap<u64, f64>>,
    evaluations: Vec<BTreeMap<u64, &'a Outcomes>>,
}

/// Runs of two arms, and whether they are pairs of one seed each.
pub struct Pairs {
    pub first: Vec<usize>,
    pub second: Vec<usize>,
    pub paired: bool,
}

impl<'a> Data<'a> {
    pub fn new(runs: &'a [Run], metric: &'a Metric) -> Self {
        Self {
            points: runs.iter().map(|run| run.points(metric).into_iter().collect()).collect(),
            evaluations: runs.iter().map(|run| run.evaluations(metric)).collect(),
            runs,
            metric,
        }
    }

    /// The values of a run, by step.
    pub fn points(&self, run: usize) -> Vec<(u64, f64)> {
        self.points[run].iter().map(|(step, value)| (*step, *value)).collect()
    }

    /// The steps that all of `runs` have.
    pub fn common_steps(&self, runs: &[usize]) -> Vec<u64> {
        let sets = runs.iter().map(|run| self.points[*run].keys().copied().collect::<BTreeSet<u64>>());
        sets.reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default().into_iter().collect()
    }

    /// The evaluations of `runs` at a step, if all have one and of the same problems.
    pub fn evaluations(&self, runs: &[usize], step: u64) -> Option<Vec<&'a Outcomes>> {
        let all = runs.iter().map(|run| self.evaluations[*run].get(&step).copied()).collect::<Option<Vec<_>>>()?;
        let first = all.first()?;
        let same = all.iter().all(|own| own.problems == first.problems && own.len() == first.len());
        (same && !first.is_empty()).then_some(all)
    }

    /// Most problems of an evaluation, or 1 if there is none.
    pub fn problems(&self) -> usize {
        let lengths = self.evaluations.iter().flat_map(BTreeMap::values).map(|outcomes| outcomes.len());
        lengths.max().unwrap_or(1).max(1)
    }

    /// The values of groups of runs at a step, a grid for each group: by problem if all runs of all groups answered the
    /// same problems, else their means alone. `None` if a run has no value at the step.
    pub fn grids(&self, groups: &[&[usize]], step: u64) -> Option<Vec<Grid>> {
        let all = groups.concat();
        let problems = self.evaluations(&all, step).and_then(|outcomes| {
            outcomes.iter().map(|own| own.figure(self.metric.figure())).collect::<Option<Vec<_>>>()
        });
        let mean = |run: &usize| Some(vec![*self.points[*run].get(&step)?]);
        let mut rows = problems.or_else(|| all.iter().map(mean).collect())?.into_iter();
        groups.iter().map(|group| Grid::new(rows.by_ref().take(group.len()).collect())).collect()
    }

    /// The runs of two arms: pairs with equal seeds, for the seeds that each arm has once; if there is none, all runs.
    pub fn pairs(&self, first: &Arm, second: &Arm) -> Pairs {
        let once = |arm: &Arm| {
            let mut found: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for &run in &arm.runs {
                if let Some(seed) = self.runs[run].seed() {
                    found.entry(seed).or_default().push(run);
                }
            }
            found.retain(|_, runs| runs.len() == 1);
            found
        };
        let (ours, theirs) = (once(first), once(second));
        let both = ours.iter().filter_map(|(seed, run)| Some((run[0], theirs.get(seed)?[0])));
        let (a, b): (Vec<usize>, Vec<usize>) = both.unzip();
        if a.is_empty() {
            Pairs { first: first.runs.clone(), second: second.runs.clone(), paired: false }
        } else {
            Pairs { first: a, second: b, paired: true }
        }
    }

    /// What is missing for a comparison problem by problem, in a line for each kind of gap.
    pub fn gaps(&self, steps: &[u64]) -> Vec<String> {
        let named = |which: &dyn Fn(usize) -> bool| {
            let names: Vec<&str> =
                (0..self.runs.len()).filter(|r| which(*r)).map(|r| self.runs[r].name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if self.metric.stage != crate::metrics::Stage::Evaluation {
            return vec![];
        }
        let mut gaps = Vec::new();
        let rest = "what needs single problems is left out, and bands are over seeds alone";
        if let Some(names) = named(&|run| !self.runs[run].has_evaluations()) {
            gaps.push(format!("without an evaluations.jsonl: {names}; {rest}"));
        } else if let Some(names) = named(&|run| steps.iter().any(|step| !self.evaluations[run].contains_key(step))) {
            gaps.push(format!("evaluations.jsonl lacks steps in {names}; there {rest}"));
        } else if steps.iter().any(|step| self.evaluations(&(0..self.runs.len()).collect::<Vec<_>>(), *step).is_none())
        {
            gaps.push(format!("the runs were not evaluated on the same problems; {rest}"));
        }
        gaps
    }
}
