//! A hook's figures for `ppo-train compare`: their values at each judged step, and where the hook's folder keeps single
//! traces or answers, the figure trace by trace, so that runs are compared on the same problems.

use super::found::{Found, Judged, place};
use super::schedule::{PERSONA, TRANSFER};
use super::{persona, transfer};
use crate::analysis::{Allowed, Metric, Run, Singles};
use crate::bad;
use crate::checkpoint::RunFolder;
use crate::judge;
use crate::recipe::Decoding;
use crate::stats::Grid;
use crate::terminal;
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a metric's name is one of a hook's figures.
pub fn is_of_hook(name: &str) -> bool {
    name.starts_with("hooks/")
}

/// The metric that a user means by `hooks/HOOK/FIGURE`, and what to know about it; gives `runs` what the hook left in
/// their folders. Results that cannot be read are left out with a warning.
///
/// # Errors
/// Bad input: a figure that the first run does not have; results that depend on different things, unless these are
/// `allowed`. A run folder that cannot be read.
pub fn choose(
    runs: &mut [Run],
    name: &str,
    decoding: Option<Decoding>,
    allowed: &Allowed,
) -> Result<(Metric, Vec<String>)> {
    let all = runs.iter().map(|run| Found::read(&RunFolder::new(&run.dir))).collect::<Result<Vec<_>>>()?;
    for (run, found) in runs.iter_mut().zip(&all) {
        // A log lacks what was judged while another process wrote it.
        let outcomes = found.hooks.values().flatten().map(|judged| &judged.outcome);
        outcomes.for_each(|outcome| run.add(outcome.record()));
    }
    let mut metric = Metric::choose(&runs[0], Some(name), decoding)?;
    let Some((hook, figure)) = metric.of_hook().map(|(hook, figure)| (hook.to_string(), figure.to_string())) else {
        return Ok((metric, vec![]));
    };
    let notes = of_one_kind(runs, &all, &hook, allowed)?;
    metric.is_share = place(&hook, &figure).is_some_and(|place| place.axis.ends_with('%'));
    for (run, found) in runs.iter_mut().zip(&all) {
        let warn = |why: &str| terminal::warn(&format!("warning: {}: {why}", run.name));
        let own = format!("hook {hook} at ");
        found.missing.iter().filter(|missing| missing.starts_with(&own)).for_each(|missing| warn(missing));
        let mut singles = vec![];
        for judged in found.of(&hook) {
            match self::singles(&hook, judged, &figure).and_then(|found| agreeing(found, judged, &figure)) {
                Ok(found) => singles.extend(found.map(|found| (judged.outcome.step as u64, found))),
                Err(error) => warn(&format!("{error:#}; only the means of that step are compared")),
            }
        }
        singles.into_iter().for_each(|(step, singles)| run.add_singles(&hook, step, singles));
    }
    Ok((metric, notes))
}

/// Checks that all results of a hook depend on the same: the judge, its traces, the prompt and so on; the seed is that
/// of the run. What a user allows is noted.
fn of_one_kind(runs: &[Run], all: &[Found], hook: &str, allowed: &Allowed) -> Result<Vec<String>> {
    let results = runs.iter().zip(all).flat_map(|(run, found)| found.of(hook).iter().map(move |judged| (run, judged)));
    let mut others: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let first = results.clone().next();
    for (run, judged) in results {
        for part in first.map_or(vec![], |(_, first)| judged.outcome.apart(&first.outcome)) {
            others.entry(part).or_default().insert(&run.name);
        }
    }
    let name = first.map_or("", |(run, _)| &run.name);
    let line = |(part, runs): (&String, &BTreeSet<&str>)| {
        let runs: Vec<&str> = runs.iter().copied().collect();
        format!("not the same {part} in {} as first in {name}", runs.join(", "))
    };
    let is_allowed = |part: &str| {
        let named = |key: &String| key == "hooks" || key.split('.').any(|own| own == part);
        allowed.any || allowed.keys.iter().any(named)
    };
    let refused: Vec<String> = others.iter().filter(|(part, _)| !is_allowed(part)).map(line).collect();
    if !refused.is_empty() {
        let list: String = refused.iter().map(|line| format!("\n  {line}")).collect();
        return Err(bad!(
            "the results of the hook {hook} depend on different things:{list}\n\
             compare them nevertheless with --allow hooks, or with --any; `ppo-train judge --again` judges anew"
        ));
    }
    let note = |other| format!("results of the hook {hook} depend on different things: {}", line(other));
    Ok(others.iter().map(note).collect())
}

/// A figure trace by trace, if the hook keeps traces; of answers, also what they are compared by at matched length.
fn singles(hook: &str, judged: &Judged, figure: &str) -> Result<Option<Singles>> {
    match hook {
        PERSONA => {
            let traces = persona::read(&judged.folder)?;
            let views: Vec<judge::Judged> = traces.iter().map(persona::Judged::view).collect();
            let problems: Vec<&str> = traces.iter().map(|trace| trace.problem.as_str()).collect();
            Ok(judge::parts(&views, figure).map(|parts| {
                let mut singles = Singles::new(&problems);
                singles.set(figure, parts);
                singles
            }))
        }
        TRANSFER => {
            let answers = transfer::read(&judged.folder)?;
            let problems: Vec<&str> = answers.iter().map(|answer| answer.problem.as_str()).collect();
            let mut singles = Singles::new(&problems);
            for (name, of) in transfer::KEPT {
                let values: Option<Vec<f64>> = answers.iter().map(of).collect();
                if let Some(values) = values {
                    singles.set(name, values.into_iter().map(|value| Some((value, 1.0))).collect());
                }
            }
            Ok(Some(singles))
        }
        _ => Ok(None),
    }
}

/// Single traces, if they make the figure that was recorded. Others are of another version of this program, or somebody
/// has changed them.
fn agreeing(singles: Option<Singles>, judged: &Judged, figure: &str) -> Result<Option<Singles>> {
    let parts = singles.as_ref().and_then(|singles| singles.parts(figure));
    let made = parts.and_then(|parts| Grid::of_parts(vec![parts.to_vec()])).map(|grid| grid.mean());
    if let (Some(made), Some(known)) = (made, judged.figure(figure).map(|known| known.value)) {
        let folder = judged.folder.display();
        ensure!(
            (made - known).abs() <= 1e-6 * known.abs().max(1.0),
            "the single results in {folder} make a {figure} of {made}, but {known} was recorded"
        );
    }
    Ok(singles)
}
