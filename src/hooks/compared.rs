//! A hook's figures for `ppo-train compare`: their values at each judged step, and where the hook's folder keeps single
//! traces or answers, the figure trace by trace, so that runs are compared on the same problems.

use super::found::{Found, Judged, place};
use super::schedule::{PERSONA, TRANSFER};
use super::{persona, transfer};
use crate::analysis::{Metric, Run, Singles};
use crate::checkpoint::RunFolder;
use crate::judge;
use crate::recipe::Decoding;
use crate::terminal;
use anyhow::Result;

/// Whether a metric's name is one of a hook's figures.
pub fn is_of_hook(name: &str) -> bool {
    name.starts_with("hooks/")
}

/// The metric that a user means by `hooks/HOOK/FIGURE`; gives `runs` what the hook left in their folders. Results that
/// cannot be read are left out with a warning.
///
/// # Errors
/// Bad input: a figure that the first run does not have. A run folder that cannot be read.
pub fn choose(runs: &mut [Run], name: &str, decoding: Option<Decoding>) -> Result<Metric> {
    let all = runs.iter().map(|run| Found::read(&RunFolder::new(&run.dir))).collect::<Result<Vec<_>>>()?;
    for (run, found) in runs.iter_mut().zip(&all) {
        // A log lacks what was judged while another process wrote it.
        let outcomes = found.hooks.values().flatten().map(|judged| &judged.outcome);
        outcomes.for_each(|outcome| run.add(outcome.record()));
    }
    let mut metric = Metric::choose(&runs[0], Some(name), decoding)?;
    let Some((hook, figure)) = metric.of_hook().map(|(hook, figure)| (hook.to_string(), figure.to_string())) else {
        return Ok(metric);
    };
    metric.is_share = place(&hook, &figure).is_some_and(|place| place.axis.ends_with('%'));
    for (run, found) in runs.iter_mut().zip(&all) {
        let warn = |why: &str| terminal::warn(&format!("warning: {}: {why}", run.name));
        let own = format!("hook {hook} at ");
        found.missing.iter().filter(|missing| missing.starts_with(&own)).for_each(|missing| warn(missing));
        let mut singles = vec![];
        for judged in found.of(&hook) {
            match self::singles(&hook, judged, &figure) {
                Ok(found) => singles.extend(found.map(|found| (judged.outcome.step as u64, found))),
                Err(error) => warn(&format!("{error:#}; only the means of that step are compared")),
            }
        }
        singles.into_iter().for_each(|(step, singles)| run.add_singles(&hook, step, singles));
    }
    Ok(metric)
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
