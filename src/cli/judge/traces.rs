//! `ppo-train judge --traces FILE`: a judge reads texts of any model, also people's.

use super::super::common::{print, print_json};
use anyhow::{Context, Result};
use clap::Args;
use ppo_train::hooks::judges::{Panel, panel};
use ppo_train::hooks::persona::{self, JUDGED, Judged, Lacking};
use ppo_train::judge::{Auc, Trace, figures, separate, words};
use ppo_train::plan::use_device;
use ppo_train::recipe::{self, Recipe};
use ppo_train::run::signals;
use ppo_train::stats::{Figure, RESAMPLES};
use ppo_train::terminal::{figure, interval, table};
use ppo_train::{OrBadInput, Stopped, bad, rows};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Which texts are judged.
#[derive(Args)]
pub struct Traces {
    /// Judge the texts of a file (.jsonl, .json, .parquet) rather than a run: rows with `text`, and `problem` if there
    /// is one. The judge is that of --recipe, or of --set hooks.persona.judge.kind=... (default: the lexical judge).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "steps", "hooks", "again", "agree", "differ"])]
    traces: Option<PathBuf>,
    /// The recipe whose [hooks.persona] judges --traces.
    #[arg(long, value_name = "RECIPE", requires = "traces")]
    recipe: Option<PathBuf>,
    /// Judge the texts of a second file too, and say how well each behaviour tells the two apart: areas under the ROC
    /// curves, as they are and at matched length in words.
    #[arg(long, value_name = "FILE", requires = "traces")]
    against: Option<PathBuf>,
    /// The column of the texts; a second one is that of --against.
    #[arg(long, value_name = "NAME", num_args = 1..=2, default_value = "text", requires = "traces")]
    column: Vec<String>,
}

/// What a recipe must have besides a judge; none of it is used.
const REST: &str = "name = \"judge\"\n[model]\npath = \".\"\n[task]\nkind = \"countdown\"\n\
                    [prompt]\ntemplate = \"compact\"\n[hooks.persona]\n";

impl Traces {
    /// Whether a file is to be judged.
    pub fn are_wanted(&self) -> bool {
        self.traces.is_some()
    }

    /// Judges the files; `out`: where the judgements are written, if anywhere.
    pub fn run(&self, sets: &[String], out: Option<&Path>, json: bool) -> Result<()> {
        let Some(file) = &self.traces else { return Ok(()) };
        let (recipe, _) = match &self.recipe {
            Some(path) => recipe::read(path, sets)?,
            None => recipe::read_text("the judge's settings", REST, sets)?,
        };
        let Some(settings) = &recipe.hooks.persona else {
            return Err(bad!("the recipe has no [hooks.persona], whose judge could read the texts"));
        };
        let first = read(file, self.column.first().map_or("text", String::as_str))?;
        let second = match &self.against {
            Some(other) => Some(read(other, self.column.last().map_or("text", String::as_str))?),
            None => None,
        };
        // An endpoint's answers are kept with the judgements, or for this time only.
        let passing = std::env::temp_dir().join(format!("ppo-train-judge-{}", std::process::id()));
        let panel = open(&recipe, &settings.judge, &out.map_or(passing.clone(), |out| out.join("answers")))?;
        let judged = judge(&panel, first, settings.max_missing).and_then(|first| {
            Ok((first, second.map(|traces| judge(&panel, traces, settings.max_missing)).transpose()?))
        });
        let _ = std::fs::remove_dir_all(&passing);
        let is_lost = out.is_none() && matches!(settings.judge, recipe::Judge::Endpoint(_));
        let (first, second) = judged.map_err(|error| match is_lost && error.is::<Stopped>() {
            true => Stopped("without --out no answer is kept").into(),
            false => error,
        })?;
        if let Some(out) = out {
            std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
            persona::write(&out.join(JUDGED), &first.0)?;
            if let Some((second, _)) = &second {
                persona::write(&out.join(format!("against.{JUDGED}")), second)?;
            }
        }
        let found = figures(&views(&first.0), RESAMPLES);
        let apart = second.as_ref().map(|second| separate(&views(&first.0), &views(&second.0), RESAMPLES));
        let mut notes = persona::notes(panel.0.as_ref(), panel.1.as_ref());
        for lacking in [Some(&first.1), second.as_ref().map(|second| &second.1)].into_iter().flatten() {
            notes.extend(lacking.traces.iter().chain(&lacking.parts).cloned());
        }
        if json {
            let identity = panel.0.identity();
            return print_json(&json!({ "judge": identity, "figures": found, "against": apart, "notes": notes }));
        }
        match apart {
            Some(apart) => print(areas(&apart))?,
            None => print(values(&found))?,
        }
        notes.iter().try_for_each(|note| print(format_args!("note: {note}")))
    }
}

/// The judge, on the device of a recipe's hooks.
fn open(recipe: &Recipe, judge: &recipe::Judge, answers: &Path) -> Result<Panel> {
    panel(judge, answers, use_device(&recipe.hooks_machine())?, &signals::watch()?.0)
}

fn read(file: &Path, column: &str) -> Result<Vec<Trace>> {
    let mut traces = vec![];
    for row in rows::read(file, &[column, "problem"]).bad_input()? {
        let (number, row) = row.bad_input()?;
        let text = |name: &str| rows::field(&row, name).and_then(|text| text.as_str()).map(str::to_string);
        let place = rows::place(file, number);
        let Some(own) = text(column) else { return Err(bad!("{place}: expected a text in `{column}`")) };
        traces.push(Trace { problem: text("problem").unwrap_or_default(), text: own });
    }
    if traces.is_empty() {
        return Err(bad!("{} has no rows", file.display()));
    }
    Ok(traces)
}

/// Judged traces. No model of ours wrote them, so that their length is in words, and nobody graded them.
fn judge((judge, embedder): &Panel, traces: Vec<Trace>, most: f64) -> Result<(Vec<Judged>, Lacking)> {
    let judgements = judge.judge(&traces)?;
    let all = traces.into_iter().zip(judgements).enumerate();
    let mut judged: Vec<Judged> = all
        .map(|(index, (trace, judgement))| {
            let words = Some(words(&trace.text).all as usize);
            Judged { index, words, ..Judged::new(trace, judgement) }
        })
        .collect();
    let lacking = persona::complete(&mut judged, embedder.as_ref(), most)?;
    Ok((judged, lacking))
}

fn views(judged: &[Judged]) -> Vec<ppo_train::judge::Judged<'_>> {
    judged.iter().map(Judged::view).collect()
}

fn ends(low: Option<f64>, high: Option<f64>) -> String {
    low.zip(high).map_or(String::new(), |(low, high)| interval([low, high]))
}

fn values(figures: &[Figure]) -> String {
    let row = |f: &Figure| {
        let [low, high] = f.interval.map_or([None; 2], |ends| ends.map(Some));
        vec![f.name.clone(), figure(f.value), ends(low, high), f.n.map_or(String::new(), |n| n.to_string())]
    };
    table(&["figure", "value", "95 % interval", "traces"], &figures.iter().map(row).collect::<Vec<_>>())
}

fn areas(all: &[Auc]) -> String {
    let row = |auc: &Auc| {
        let [first, second] = auc.prevalence.map(|share| format!("{:.0} %", 100.0 * share));
        let matched = auc.matched.map_or("no common length".into(), |value| format!("{value:.3}"));
        let (own, within) = (ends(auc.low, auc.high), ends(auc.matched_low, auc.matched_high));
        vec![auc.name.clone(), first, second, format!("{:.3}", auc.auc), own, matched, within]
    };
    let head = ["behaviour", "first", "second", "AUC", "95 % interval", "at matched length", "95 % interval"];
    table(&head, &all.iter().map(row).collect::<Vec<_>>())
}
