//! `report`: runs and what their hooks found as one HTML page without scripts, fonts or addresses, so that it can be
//! mailed, printed and read in ten years.
//!
//! Texts of models are escaped by the template engine, and what would act unseen in them is made visible; pictures are
//! SVG. A run alone is shown in full. Of runs side by side, arms are compared, and each run's own figures are folded.

mod behaviours;
mod charts;
mod hooks;
mod paper;
mod profile;
#[cfg(test)]
mod tests;
mod traces;
mod transfer;

use crate::analysis::{Allowed, Arm, Arms, Run, thinned};
use crate::checkpoint::RunFolder;
use crate::hooks::found::{self, Aside, Found};
use crate::hooks::persona::{self, Judged};
use crate::hooks::schedule::PERSONA;
use crate::model::ModelConfig;
use crate::recipe::identity::Difference;
use crate::terminal;
use crate::text::visible;
use anyhow::{Context, Result};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Output, State, Value, context, escape_formatter};
use profile::{Profile, profile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

const TEMPLATE: &str = include_str!("report.html.jinja");
const STYLE: &str = include_str!("report.css");
/// Judged steps whose profiles are drawn.
const PROFILES: usize = 4;

/// A run as the page shows it.
#[derive(Serialize)]
struct Shown {
    name: String,
    arm: String,
    seed: Option<u64>,
    /// The recipe as TOML.
    recipe: String,
    /// What differs from the paper: key, the paper's value, the run's.
    differences: Vec<[String; 3]>,
    tables: Vec<hooks::Table>,
    transfer: Option<transfer::Transfer>,
    examples: Vec<traces::Example>,
    /// Results that failed or cannot be read.
    missing: Vec<String>,
    /// How many traces were not judged, and why.
    unjudged: Vec<String>,
}

/// Profiles of a run, or of the runs of an arm together.
#[derive(Serialize)]
struct Profiles {
    name: String,
    profiles: Vec<Profile>,
}

/// The judged traces of some steps.
type Traces = BTreeMap<usize, Vec<Judged>>;

/// The page about the runs in these folders. `examples`: traces shown per judged step.
///
/// # Errors
/// Bad input: a folder that is not one of a run, or whose records cannot be read. Results of hooks that cannot be read
/// are named on the page, and in a warning.
pub fn page(dirs: &[PathBuf], examples: usize) -> Result<String> {
    let runs = Run::read_all(dirs)?;
    let arms = Arms::of(&runs, vec![], &Allowed { any: true, ..Allowed::default() })?.arms;
    let mut found = runs.iter().map(|run| Found::read(&RunFolder::new(&run.dir))).collect::<Result<Vec<_>>>()?;
    let aside = found::set_apart(&mut found);
    let (mut shown, mut judged) = (vec![], vec![]);
    for (at, ((run, found), aside)) in runs.iter().zip(&found).zip(&aside).enumerate() {
        let mut missing = found.missing.clone();
        missing.extend(aside.iter().map(apart));
        let traces = traces(found, &mut missing);
        let ends = traces.first_key_value().into_iter().chain(traces.last_key_value().filter(|_| traces.len() > 1));
        shown.push(Shown {
            name: run.name.clone(),
            arm: arms.iter().find(|arm| arm.runs.contains(&at)).map_or(String::new(), |arm| arm.name.clone()),
            seed: run.seed(),
            recipe: std::fs::read_to_string(RunFolder::new(&run.dir).recipe()).unwrap_or_default(),
            differences: differences(run),
            tables: hooks::tables(found, aside),
            transfer: transfer::transfer(found, &mut missing),
            examples: ends.flat_map(|(step, own)| traces::examples(*step, own, examples)).collect(),
            unjudged: unjudged(&traces),
            missing,
        });
        judged.push(traces);
    }
    for run in &shown {
        run.missing.iter().for_each(|what| terminal::warn(&visible(&format!("{}: {what}", run.name))));
    }
    let (behaviours, more) = match found.as_slice() {
        [only] => behaviours::of_run(only)?,
        all => (behaviours::of_arms(&arms, &all.iter().collect::<Vec<_>>())?, vec![]),
    };
    let title = match shown.as_slice() {
        [one] => one.name.clone(),
        all => format!("{} runs", all.len()),
    };
    render(context! {
        title,
        curves => Value::from(Serde(&charts::curves(&runs, &arms)?)),
        behaviours => Value::from(Serde(&behaviours)),
        more => Value::from(Serde(&more)),
        profiles => Value::from(Serde(&profiles(&arms, &judged))),
        runs => Value::from(Serde(&shown)),
        axis => profile::AXIS,
        style => Value::from_safe_string(STYLE.into()),
        version => env!("CARGO_PKG_VERSION"),
    })
}

fn render(context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(|out: &mut Output, state: &mut State, value: &Value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(visible(text).into_owned())),
        _ => escape_formatter(out, state, value),
    });
    environment.add_template("report", TEMPLATE).context("the report's template")?;
    environment.get_template("report")?.render(context).context("the report")
}

/// Says which results stand apart, and why.
fn apart(aside: &Aside) -> String {
    let steps: Vec<String> = aside.judged.iter().map(|one| one.outcome.step.to_string()).collect();
    let (noun, hook) = (if steps.len() == 1 { "step" } else { "steps" }, &aside.hook);
    let steps = steps.join(", ");
    format!("hook {hook} at {noun} {steps} has a table of its own and is in no picture: {}", aside.why)
}

/// What differs from the paper, as rows.
fn differences(run: &Run) -> Vec<[String; 3]> {
    let Ok(recipe) = &run.recipe else { return vec![] };
    let folder = RunFolder::new(&run.dir);
    // A run without a warm start begins with the model itself, which may be elsewhere by now.
    let newest = folder.latest().ok().flatten().map(|checkpoint| checkpoint.language_model());
    let models = [Some(folder.start()), newest, Some(recipe.model.path.clone())];
    let model = models.into_iter().flatten().find_map(|dir| ModelConfig::from_dir(&dir).ok());
    paper::differences(recipe, model.as_ref()).into_iter().map(row).collect()
}

/// The judged traces of some steps of a run, with the first and the last. What cannot be read is told to `missing`.
fn traces(found: &Found, missing: &mut Vec<String>) -> Traces {
    let mut all = Traces::new();
    let steps: Vec<&found::Judged> = found.of(PERSONA).iter().collect();
    for judged in thinned(&steps, PROFILES) {
        let step = judged.outcome.step;
        match persona::read(&judged.folder) {
            Ok(traces) => drop(all.insert(step, traces)),
            Err(error) => missing.push(format!("the traces of step {step} are left out: {error:#}")),
        }
    }
    all
}

/// A line for each step with traces that were not judged.
fn unjudged(traces: &Traces) -> Vec<String> {
    let line = |(step, traces): (&usize, &Vec<Judged>)| {
        let none: Vec<&Judged> = traces.iter().filter(|trace| trace.judgement.is_none()).collect();
        let reason = none.first()?.missing.as_deref().unwrap_or("no reason");
        let (count, all) = (none.len(), traces.len());
        Some(format!("step {step}: {count} of {all} traces were not judged; the first: {reason}"))
    };
    traces.iter().filter_map(line).collect()
}

/// The profiles of each arm, its runs together.
fn profiles(arms: &[Arm], judged: &[Traces]) -> Vec<Profiles> {
    let of = |arm: &Arm| {
        let mut steps: BTreeMap<usize, Vec<&Judged>> = BTreeMap::new();
        for (step, traces) in arm.runs.iter().flat_map(|run| &judged[*run]) {
            steps.entry(*step).or_default().extend(traces);
        }
        let steps: Vec<(usize, Vec<&Judged>)> = steps.into_iter().collect();
        let chosen = thinned(&steps.iter().collect::<Vec<_>>(), PROFILES);
        let profiles = chosen.into_iter().filter_map(|(step, traces)| profile(format!("step {step}"), traces));
        Profiles { name: arm.name.clone(), profiles: profiles.collect() }
    };
    arms.iter().map(of).filter(|own| !own.profiles.is_empty()).collect()
}

fn row(difference: Difference) -> [String; 3] {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "absent".into());
    [difference.key, shown(difference.before), shown(difference.now)]
}
