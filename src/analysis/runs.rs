//! A run as its folder shows it: recipe, records, evaluations problem by problem.

use super::curve::points;
use super::read_jsonl;
use super::singles::Singles;
use crate::checkpoint::RunFolder;
use crate::metrics::{Outcomes, Record, Stage, evaluations, validation};
use crate::recipe::spelling::{nearest, similar};
use crate::recipe::{self, Decoding, Recipe};
use crate::stats::{HIGH, LOW};
use crate::{OrBadInput, bad, instead_of_file, terminal};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a run has left behind.
pub struct Run {
    /// The folder's name, or its path if another run has that name.
    pub name: String,
    pub dir: PathBuf,
    /// The recipe, or why it cannot be read.
    pub recipe: Result<Recipe, String>,
    records: Vec<Record>,
    evaluations: Vec<(u64, Outcomes)>,
    /// Of each hook, what it recorded problem by problem.
    singles: BTreeMap<String, BTreeMap<u64, Singles>>,
}

impl Run {
    /// # Errors
    /// Bad input: a folder without records, or with files that cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let folder = RunFolder::new(dir);
        let shown = dir.display();
        if !dir.is_dir() {
            return Err(match instead_of_file(dir) {
                None if dir.exists() => bad!("{shown} is a file, not the folder of a run"),
                Some(other) => bad!("{shown} is {other}, not the folder of a run"),
                None => bad!("there is no run folder {shown}{}", similar(dir)),
            });
        }
        if !folder.metrics().exists() {
            return Err(bad!("{shown} is not a run folder: it has no metrics.jsonl"));
        }
        let evaluations = match folder.evaluations() {
            path if path.exists() => evaluations::read(&path, terminal::warn).bad_input()?,
            _ => vec![],
        };
        Ok(Self {
            name: dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned(),
            dir: dir.to_path_buf(),
            recipe: recipe::stored(&folder.recipe()).map_err(|error| format!("{error:#}")),
            records: read_jsonl(&folder.metrics(), terminal::warn).bad_input()?,
            evaluations,
            singles: BTreeMap::new(),
        })
    }

    /// Adds a record that is in the run folder, but perhaps not in its metrics.jsonl; of a step it wins.
    pub fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Adds what a hook recorded problem by problem at a step.
    pub fn add_singles(&mut self, hook: &str, step: u64, singles: Singles) {
        self.singles.entry(hook.into()).or_default().insert(step, singles);
    }

    /// Reads several runs; no two have the same name.
    ///
    /// # Errors
    /// As `read`; a folder that is named twice.
    pub fn read_all(dirs: &[PathBuf]) -> Result<Vec<Self>> {
        let mut runs = dirs.iter().map(|dir| Self::read(dir)).collect::<Result<Vec<_>>>()?;
        let places: Vec<_> = dirs.iter().map(|dir| dir.canonicalize().unwrap_or(dir.clone())).collect();
        for (i, place) in places.iter().enumerate() {
            if places[..i].contains(place) {
                return Err(bad!("{} is named twice", dirs[i].display()));
            }
        }
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        for run in &mut runs {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = run.dir.display().to_string();
            }
        }
        Ok(runs)
    }

    pub fn seed(&self) -> Option<u64> {
        self.recipe.as_ref().ok().map(|recipe| recipe.seed)
    }

    /// The hashes of the sets of problems that it was evaluated on: one, unless that changed during the run.
    pub fn evaluated(&self) -> BTreeSet<&str> {
        self.evaluations.iter().map(|(_, outcomes)| outcomes.problems.as_str()).collect()
    }

    /// The names of all scalars.
    pub fn scalars(&self) -> BTreeSet<&str> {
        self.records.iter().flat_map(Record::scalars).map(|(name, _)| name).collect()
    }

    /// The metric over the steps.
    pub fn points(&self, metric: &Metric) -> Vec<(u64, f64)> {
        points(&self.records, metric.stage, &metric.name).into_iter().map(|(x, y)| (x as u64, y)).collect()
    }

    /// The single problems behind a metric by step, if it is of an evaluation; a later line of a step wins.
    pub fn singles(&self, metric: &Metric) -> BTreeMap<u64, Singles> {
        if let Some((hook, _)) = metric.of_hook() {
            return self.singles.get(hook).cloned().unwrap_or_default();
        }
        let behind = |outcomes: &Outcomes| metric.prefix() == validation(&outcomes.task, &outcomes.decoding);
        let evaluations = self.evaluations.iter().filter(|(_, outcomes)| behind(outcomes));
        evaluations.map(|(step, outcomes)| (*step, Singles::of(outcomes))).collect()
    }
}

/// A scalar that runs are compared by.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: String,
    pub stage: Stage,
    /// Whether its values are shares from 0 to 1.
    pub is_share: bool,
}

/// The part of a metric's name that may be left out.
const MEAN: &str = "/mean";

impl Metric {
    /// The metric that a user means. `name`: a scalar's name, or the last part of a validation metric (default:
    /// `accuracy`), `/mean` at the end of a longer name may be left out; `decoding`: that of a validation metric
    /// (default: the first that the run has).
    ///
    /// # Errors
    /// Bad input: a metric that the first run does not have.
    pub fn choose(run: &Run, name: Option<&str>, decoding: Option<Decoding>) -> Result<Self> {
        let scalars = run.scalars();
        let shown = run.dir.display();
        if let Some(asked) = name.filter(|name| name.contains('/')) {
            let mean = format!("{asked}{MEAN}");
            let Some(full) = [asked, &mean].into_iter().find(|name| scalars.contains(name)) else {
                let ends = [LOW, HIGH].map(|end| format!("/{end}"));
                let known = || scalars.iter().filter(|name| !ends.iter().any(|end| name.ends_with(end)));
                let near = nearest(asked, known()).or_else(|| nearest(&mean, known()));
                let hint = near.map_or(String::new(), |known| format!("; did you mean {known}?"));
                return Err(bad!("{shown} has no metric {asked}{hint}"));
            };
            let metric = Self::named(full);
            if decoding.is_some_and(|decoding| metric.stage != Stage::Evaluation || metric.decoding() != decoding) {
                return Err(bad!("--decoding does not fit the metric {full}: name one of the two"));
            }
            return Ok(metric);
        }
        let short = name.unwrap_or("accuracy");
        // In the order of the records, which is that of the recipe's decoding modes.
        let validations = run.records.iter().filter(|record| record.stage == Stage::Evaluation);
        let validations: Vec<&str> = validations.flat_map(Record::scalars).map(|(name, _)| name).collect();
        let found = validations.iter().map(|name| Self::named(name)).find(|metric| {
            metric.stage == Stage::Evaluation
                && metric.figure() == short
                && decoding.is_none_or(|decoding| metric.decoding() == decoding)
        });
        found.ok_or_else(|| {
            let which = decoding.map_or(String::new(), |decoding| format!("{} ", decoding.name()));
            if !validations.iter().any(|name| name.starts_with("val/")) {
                return bad!("{shown} has no evaluation; choose a metric of its steps with --metric");
            }
            let last = scalars.iter().filter_map(|name| name.strip_prefix("val/")?.rsplit_once('/')).map(|(_, l)| l);
            let hint = nearest(short, last).map_or(String::new(), |known| format!("; did you mean {known}?"));
            let hint = if hint.contains(&format!(" {short}?")) { String::new() } else { hint };
            bad!("{shown} has no {which}evaluation of {short}{hint}")
        })
    }

    /// The metric of this name.
    pub fn named(name: &str) -> Self {
        let stage = match name.split('/').next() {
            Some("val") => Stage::Evaluation,
            Some("sft") => Stage::Sft,
            Some("hooks") => Stage::Hook,
            _ => Stage::Ppo,
        };
        let last = name.rsplit('/').next().unwrap_or_default();
        let known = ["accuracy", "format", "clip_ratio", "macro_f1", "unanswered"];
        // Hooks have names of their own.
        let is_share = stage != Stage::Hook && (known.contains(&last) || last.starts_with("f1_"));
        Self { name: name.into(), stage, is_share }
    }

    /// The hook that a figure is of, and the figure's name there.
    pub fn of_hook(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("hooks/").filter(|_| self.stage == Stage::Hook)?.split_once('/')
    }

    /// What the figure of single problems is called.
    pub fn of_singles(&self) -> &str {
        self.of_hook().map_or(self.figure(), |(_, figure)| figure)
    }

    /// What it measures: the last part of its name.
    pub fn figure(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    /// The same evaluation's metric of another figure.
    pub fn with_figure(&self, figure: &str) -> Self {
        Self::named(&format!("{}/{figure}", self.prefix()))
    }

    fn prefix(&self) -> &str {
        self.name.rsplit_once('/').map_or("", |(prefix, _)| prefix)
    }

    /// The decoding mode of a validation metric.
    pub fn decoding(&self) -> Decoding {
        let sampled = format!("_{}", Decoding::Sampled.name());
        if self.prefix().ends_with(&sampled) { Decoding::Sampled } else { Decoding::Greedy }
    }
}
