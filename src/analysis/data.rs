//! The values that a comparison is about: of every run, by step, and where an evaluation was recorded problem by
//! problem, by problem.

use super::arms::Arm;
use super::runs::{Metric, Run};
use super::singles::Singles;
use crate::metrics::Stage;
use crate::stats::{Grid, HIGH, LOW};
use std::collections::{BTreeMap, BTreeSet};

/// A metric of several runs. Runs are named by their place in the list.
pub struct Data<'a> {
    pub runs: &'a [Run],
    pub metric: &'a Metric,
    points: Vec<BTreeMap<u64, f64>>,
    singles: Vec<BTreeMap<u64, Singles>>,
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
            singles: runs.iter().map(|run| run.singles(metric)).collect(),
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

    /// The single problems of `runs` at a step, if all have them and they are the same.
    pub fn singles(&self, runs: &[usize], step: u64) -> Option<Vec<&Singles>> {
        let all = runs.iter().map(|run| self.singles[*run].get(&step)).collect::<Option<Vec<_>>>()?;
        let first = all.first()?;
        (all.iter().all(|own| own.same_problems(first)) && !first.is_empty()).then_some(all)
    }

    /// Most problems of an evaluation, or 1 if there is none.
    pub fn problems(&self) -> usize {
        self.singles.iter().flat_map(BTreeMap::values).map(Singles::len).max().unwrap_or(1).max(1)
    }

    /// The values of groups of runs at a step, a grid for each group: by problem if all runs of all groups answered the
    /// same problems, else their means alone. `None` if a run has no value at the step.
    pub fn grids(&self, groups: &[&[usize]], step: u64) -> Option<Vec<Grid>> {
        self.by_problem(groups, step).or_else(|| {
            let mean = |run: &usize| Some(vec![*self.points[*run].get(&step)?]);
            groups.iter().map(|group| Grid::new(group.iter().map(mean).collect::<Option<_>>()?)).collect()
        })
    }

    fn by_problem(&self, groups: &[&[usize]], step: u64) -> Option<Vec<Grid>> {
        let singles = self.singles(&groups.concat(), step)?;
        let parts = singles.iter().map(|own| own.parts(self.metric.of_singles()));
        let mut rows = parts.map(|parts| parts.map(<[_]>::to_vec)).collect::<Option<Vec<_>>>()?.into_iter();
        groups.iter().map(|group| Grid::of_parts(rows.by_ref().take(group.len()).collect())).collect()
    }

    /// The interval that a hook gave with a run's value at a step.
    pub fn recorded(&self, run: usize, step: u64) -> Option<[f64; 2]> {
        self.metric.of_hook()?;
        let end = |end: &str| {
            let name = format!("{}/{end}", self.metric.name);
            let points = self.runs[run].points(&Metric { name, ..self.metric.clone() });
            points.iter().find(|(own, _)| *own == step).map(|(_, value)| *value)
        };
        Some([end(LOW)?, end(HIGH)?])
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
        let source = match self.metric.of_hook() {
            // Not every figure of a hook is one of single problems.
            Some(_) if !self.singles.iter().flat_map(BTreeMap::values).any(|own| self.has(own)) => return vec![],
            Some((hook, _)) => format!("what the hook {hook} left"),
            None if self.metric.stage == Stage::Evaluation => "evaluations.jsonl".into(),
            None => return vec![],
        };
        let mut gaps = Vec::new();
        let rest = "what needs single problems is left out, and bands are over seeds alone";
        if let Some(names) = named(&|run| self.singles[run].is_empty()) {
            gaps.push(format!("without single problems in {source}: {names}; {rest}"));
        } else if let Some(names) = named(&|run| steps.iter().any(|step| !self.singles[run].contains_key(step))) {
            gaps.push(format!("{source} lacks steps in {names}; there {rest}"));
        } else if steps.iter().any(|step| self.singles(&(0..self.runs.len()).collect::<Vec<_>>(), *step).is_none()) {
            gaps.push(format!("the runs were not evaluated on the same problems; {rest}"));
        }
        gaps
    }

    /// Whether single problems have the metric's figure.
    fn has(&self, singles: &Singles) -> bool {
        singles.parts(self.metric.of_singles()).is_some()
    }
}
