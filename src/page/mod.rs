//! `report`: runs and what their hooks found as one HTML page without scripts, fonts or addresses, so that it can be
//! mailed, printed and read in ten years.
//!
//! Texts of models are escaped by the template engine; pictures are the SVG of `analysis`.

mod charts;
mod hooks;
mod paper;
mod traces;

use crate::analysis::{Allowed, Arms, Run};
use crate::checkpoint::RunFolder;
use crate::recipe::identity::Difference;
use anyhow::{Context, Result};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;
use std::path::PathBuf;

const TEMPLATE: &str = include_str!("report.html.jinja");

/// A run as the page shows it.
#[derive(Serialize)]
struct Shown {
    name: String,
    arm: String,
    /// Lines of one arm have one colour.
    colour: usize,
    seed: Option<u64>,
    /// The recipe as TOML.
    recipe: String,
    /// What differs from the paper: key, the paper's value, the run's.
    differences: Vec<[String; 3]>,
    hooks: Vec<hooks::Hook>,
    traces: Vec<traces::Example>,
}

/// The page about the runs in these folders. `examples`: traces shown per judged step.
///
/// # Errors
/// Bad input: a folder that is not one of a run, or whose files cannot be read.
pub fn page(dirs: &[PathBuf], examples: usize) -> Result<String> {
    let runs = Run::read_all(dirs)?;
    let arms = Arms::of(&runs, vec![], &Allowed { any: true, ..Allowed::default() })?;
    let shown = runs.iter().enumerate().map(|(at, run)| {
        let folder = RunFolder::new(&run.dir);
        let colour = arms.arms.iter().position(|arm| arm.runs.contains(&at)).unwrap_or(0);
        let recipe = std::fs::read_to_string(folder.recipe()).unwrap_or_default();
        Ok(Shown {
            name: run.name.clone(),
            arm: arms.arms[colour].name.clone(),
            colour,
            seed: run.seed(),
            recipe,
            differences: run.recipe.as_ref().map_or(vec![], |r| paper::differences(r).into_iter().map(row).collect()),
            hooks: hooks::read(&folder)?,
            traces: traces::read(&folder, examples)?,
        })
    });
    let shown: Vec<Shown> = shown.collect::<Result<_>>()?;
    let curves = charts::curves(&runs, &arms.arms)?;
    let found: Vec<_> = shown.iter().map(|run| (run.name.as_str(), run.hooks.as_slice())).collect();
    let behaviours = charts::behaviours(&found)?;
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report", TEMPLATE).context("the report's template")?;
    let title = match shown.as_slice() {
        [one] => one.name.clone(),
        all => format!("{} runs", all.len()),
    };
    let template = environment.get_template("report")?;
    let page = template.render(context! {
        title,
        curves => Value::from(Serde(&curves)),
        behaviours => Value::from(Serde(&behaviours)),
        runs => Value::from(Serde(&shown)),
        version => env!("CARGO_PKG_VERSION"),
    });
    page.context("the report")
}

fn row(difference: Difference) -> [String; 3] {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "absent".into());
    [difference.key, shown(difference.before), shown(difference.now)]
}
