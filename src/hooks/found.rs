//! What the hooks of a run left in its folder, step by step, for a page or a comparison. A result that cannot be read
//! is named and left out: the others are no worse for it.

use super::outcome::Outcome;
use super::schedule::{DISTINCT, Job, PERSONA, TRANSFER};
use super::{distinct, transfer};
use crate::checkpoint::RunFolder;
use crate::judge::metrics;
use crate::stats::{Figure, Place};
use crate::terminal::counted;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The results of a run.
#[derive(Default)]
pub struct Found {
    /// The judged steps of each hook.
    pub hooks: BTreeMap<String, Vec<Judged>>,
    /// What is missing, and why.
    pub missing: Vec<String>,
}

/// What a hook made of a step.
pub struct Judged {
    pub outcome: Outcome,
    pub folder: PathBuf,
}

impl Judged {
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.outcome.figures.iter().find(|figure| figure.name == name)
    }
}

impl Found {
    /// # Errors
    /// The run's folder cannot be read.
    pub fn read(run: &RunFolder) -> Result<Self> {
        let mut found = Self::default();
        for job in jobs(run)? {
            let what = format!("hook {} at step {}", job.hook, job.step);
            if let Some(failed) = job.failed(run) {
                let times = counted(failed.attempts, "attempt");
                found.missing.push(format!("{what} failed, {times}: {}", failed.error));
            }
            if job.has_result(run) {
                match Outcome::read(run, &job) {
                    Ok(outcome) => {
                        let judged = Judged { outcome, folder: job.folder(run) };
                        found.hooks.entry(job.hook).or_default().push(judged);
                    }
                    Err(error) => found.missing.push(format!("{what} is left out: {error:#}")),
                }
            }
        }
        Ok(found)
    }

    /// The judged steps of a hook.
    pub fn of(&self, hook: &str) -> &[Judged] {
        self.hooks.get(hook).map_or(&[], Vec::as_slice)
    }
}

/// Results that stand apart from the others of their hook, since they depend on something else.
pub struct Aside {
    pub hook: String,
    /// In which parts, by name.
    pub parts: Vec<String>,
    /// What they are not like, in words.
    pub why: String,
    pub judged: Vec<Judged>,
}

/// Takes out of the results of runs side by side what must not be joined by a line or a mean: results of another judge
/// than the newest of all runs, and of each run those that depend on anything else than its newest by that judge. The
/// newest is that of the last step, and of several that of the first run.
pub fn set_apart(all: &mut [Found]) -> Vec<Vec<Aside>> {
    let mut aside: Vec<Vec<Aside>> = all.iter().map(|_| vec![]).collect();
    let hooks: BTreeSet<String> = all.iter().flat_map(|found| found.hooks.keys().cloned()).collect();
    for hook in hooks {
        let last = |found: &Found| found.of(&hook).last().map(|judged| judged.outcome.clone());
        let later = |known: Outcome, next: Outcome| if next.step > known.step { next } else { known };
        let Some(newest) = all.iter().filter_map(last).reduce(later) else { continue };
        for (found, aside) in all.iter_mut().zip(&mut aside) {
            let judged = found.hooks.remove(&hook).unwrap_or_default();
            let by_it = judged.iter().rev().find(|one| one.outcome.judged_apart(&newest).is_empty());
            let own = by_it.map(|one| one.outcome.clone());
            let mut kept = vec![];
            for one in judged {
                let other = match one.outcome.judged_apart(&newest) {
                    parts if !parts.is_empty() => Some((parts, &newest)),
                    _ => own.as_ref().map(|own| (one.outcome.apart(own), own)),
                };
                match other.filter(|(parts, _)| !parts.is_empty()) {
                    None => kept.push(one),
                    Some((parts, other)) => put_aside(aside, &hook, one, parts, other),
                }
            }
            if !kept.is_empty() {
                found.hooks.insert(hook.clone(), kept);
            }
        }
    }
    aside
}

/// Puts a result to those that stand apart for the same reason.
fn put_aside(aside: &mut Vec<Aside>, hook: &str, one: Judged, parts: Vec<String>, other: &Outcome) {
    let names = parts.join(" and ");
    let judges = if one.outcome.judged_apart(other).is_empty() { None } else { Some(one.outcome.judges(other)) };
    let judges = judges.map_or(String::new(), |judges| format!(" ({judges})"));
    let why = format!("another {names} than the newest result, that of step {}{judges}", other.step);
    match aside.iter_mut().find(|known| known.hook == hook && known.why == why) {
        Some(known) => known.judged.push(one),
        None => aside.push(Aside { hook: hook.into(), parts, why, judged: vec![one] }),
    }
}

/// The jobs that left anything in the run folder, by step and hook.
fn jobs(run: &RunFolder) -> Result<Vec<Job>> {
    let mut jobs = BTreeSet::new();
    let folder = run.hooks(0);
    let Some(all) = folder.parent().filter(|all| all.is_dir()) else { return Ok(vec![]) };
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(step) = name.rsplit('_').next().and_then(|step| step.parse().ok()) else { continue };
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            jobs.insert((step, name.trim_end_matches(".failed.json").to_string()));
        }
    }
    Ok(jobs.into_iter().map(|(step, hook)| Job { step, hook }).collect())
}

/// The names of the figures of any step, in their order.
pub fn names<'a>(judged: impl IntoIterator<Item = &'a Judged>) -> Vec<&'a str> {
    let mut names: Vec<&str> = vec![];
    let mut seen = BTreeSet::new();
    for found in judged.into_iter().flat_map(|one| &one.outcome.figures) {
        if seen.insert(found.name.as_str()) {
            names.push(&found.name);
        }
    }
    names
}

/// In which picture a figure of a hook is shown. Those of a command of the user's share one with what has the same
/// start.
pub fn place(hook: &str, name: &str) -> Option<Place> {
    match hook {
        PERSONA => metrics::place(name),
        TRANSFER => transfer::place(name),
        DISTINCT => distinct::place(name),
        _ => {
            let (start, line) = name.rsplit_once('/').unwrap_or((name, name));
            Some(Place::new(format!("{hook}: {}", start.replace('_', " ")), line, "", true))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(results: &[(usize, Value)]) -> Found {
        let judged = |(step, identity): &(usize, Value)| Judged {
            outcome: Outcome {
                hook: PERSONA.into(),
                step: *step,
                identity: identity.clone(),
                summary: String::new(),
                missing: None,
                notes: vec![],
                figures: vec![],
            },
            folder: PathBuf::new(),
        };
        let hooks = BTreeMap::from([(PERSONA.to_string(), results.iter().map(judged).collect())]);
        Found { hooks, missing: vec![] }
    }

    fn by(judge: &str, prompt: &str) -> Value {
        json!({ "judge": { "kind": judge }, "prompt": prompt })
    }

    type Steps = Vec<usize>;

    /// The steps that are kept, and those that stand apart with the reason.
    fn split(all: &mut [Found]) -> (Vec<Steps>, Vec<(Steps, String)>) {
        let steps = |all: &[Judged]| all.iter().map(|one| one.outcome.step).collect::<Steps>();
        let aside = set_apart(all);
        let apart = aside.iter().flatten().map(|own| (steps(&own.judged), own.why.clone())).collect();
        (all.iter().map(|found| steps(found.of(PERSONA))).collect(), apart)
    }

    #[test]
    fn other_judges_than_the_newest_stand_apart() {
        let (a, b) = (by("lexical", "p"), by("endpoint", "p"));
        let (kept, apart) = split(&mut [found(&[(0, a.clone()), (8, a.clone()), (16, b.clone())])]);
        let why = "another judge than the newest result, that of step 16 (lexical here, endpoint there)";
        assert_eq!((kept, apart), (vec![vec![16]], vec![(vec![0, 8], why.into())]));
        // Of several runs too, and a run may have nothing left; other prompts are other experiments.
        let runs = [vec![(0, b.clone()), (8, a.clone())], vec![(16, by("endpoint", "q"))], vec![(0, a)], vec![]];
        let (kept, apart) = split(&mut runs.map(|own| found(&own)));
        assert_eq!(kept, [vec![0], vec![16], vec![], vec![]]);
        assert_eq!(apart.iter().map(|(steps, _)| steps.clone()).collect::<Vec<_>>(), [[8], [0]]);
    }

    #[test]
    fn within_a_run_everything_else_counts_too() {
        let results = [(0, by("lexical", "p")), (8, by("lexical", "q")), (16, by("lexical", "q"))];
        let (kept, apart) = split(&mut [found(&results)]);
        assert_eq!(kept, [[8, 16]]);
        assert_eq!(apart, [(vec![0], "another prompt than the newest result, that of step 16".to_string())]);
        let same = [(0, json!({ "seed": 1 })), (8, json!({ "seed": 2 }))];
        assert_eq!(split(&mut [found(&same)]), (vec![vec![0, 8]], vec![]));
    }
}
