//! Which runs belong together. An arm is a set of runs with one recipe apart from its seed, made of the same data;
//! arms may differ in the rows of their warm starts. Whatever else differs makes a comparison doubtful, so that it is
//! refused unless the user says otherwise.

use super::origin::Origin;
use super::runs::Run;
use super::spread::{Allowed, BETWEEN, Spread, WITHIN};
use super::warm_starts::WarmStarts;
use crate::bad;
use anyhow::Result;
use std::collections::BTreeMap;

/// Runs of one recipe with different seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    pub name: String,
    /// Their places in the list of runs.
    pub runs: Vec<usize>,
}

/// The arms of a comparison, in the order in which they are named, and what to know about them.
pub struct Arms {
    pub arms: Vec<Arm>,
    pub warm_starts: WarmStarts,
    pub notes: Vec<String>,
}

impl Arms {
    /// Arms from recipes, and from what the runs' folders say of their data. `forced`: arms that the user has put
    /// together, with the places of their runs.
    ///
    /// # Errors
    /// Bad input: runs that differ in more than arm and seed, with the keys or hashes, their values and the runs; a run
    /// without a recipe.
    pub fn of(runs: &[Run], forced: Vec<Arm>, allowed: &Allowed) -> Result<Self> {
        let origins = origins(runs, allowed)?;
        let everyone = Spread::over(&origins, &(0..runs.len()).collect::<Vec<_>>());
        let name = |run: usize| runs[run].name.clone();
        check(&origins, &everyone, &forced, allowed, name)?;
        let mut arms = forced;
        let named = arms.len();
        for run in 0..runs.len() {
            if arms.iter().any(|arm| arm.runs.contains(&run)) {
                continue;
            }
            let same = |arm: &Arm| {
                let all = [&arm.runs[..], &[run]].concat();
                all.iter().all(|run| origins[*run].is_some()) && Spread::over(&origins, &all).is_within_an_arm()
            };
            match arms[named..].iter().position(same) {
                Some(at) => arms[named + at].runs.push(run),
                None => arms.push(Arm { name: String::new(), runs: vec![run] }),
            }
        }
        label(&mut arms[named..], runs, &everyone);
        distinct(&mut arms);
        let own = |run: usize| arms.iter().find(|arm| arm.runs.contains(&run)).map_or("", |arm| &arm.name).to_string();
        let mut notes = vec![];
        if arms.len() > 1 {
            notes.extend(everyone.told(own).iter().map(|line| format!("the arms differ in {line}")));
        }
        for arm in &arms[..named] {
            let inner = Spread::over(&origins, &arm.runs).told(name);
            notes.extend(inner.iter().map(|line| format!("the runs of the arm {} differ in {line}", arm.name)));
        }
        notes.extend(everyone.rounding(name));
        notes.extend(seeds_of_warm_starts(&origins, name));
        notes.extend(repeated_seeds(runs, &arms));
        let warm_starts = WarmStarts::of(&origins, own, name);
        Ok(Self { arms, warm_starts, notes })
    }
}

fn origins(runs: &[Run], allowed: &Allowed) -> Result<Vec<Option<Origin>>> {
    let origin = |run: &Run| match &run.recipe {
        Err(reason) if !allowed.any => Err(bad!(
            "{} has no recipe that can be read, so nothing shows that it is the same experiment; --any compares it \
             nevertheless\n{reason}",
            run.dir.display()
        )),
        _ => Ok(Origin::of(run)),
    };
    runs.iter().map(origin).collect()
}

/// Refuses runs that differ in more than they may: all of them, and those of an arm that the user has put together.
/// `name`: of a run.
fn check(
    origins: &[Option<Origin>],
    everyone: &Spread,
    forced: &[Arm],
    allowed: &Allowed,
    name: impl Fn(usize) -> String,
) -> Result<()> {
    let mut refused = everyone.refused(&[&WITHIN[..], &BETWEEN].concat(), allowed, &name);
    if refused.is_empty() {
        for arm in forced {
            let inner = Spread::over(origins, &arm.runs).refused(&WITHIN, allowed, &name);
            refused.extend(inner.into_iter().map(|line| format!("within the arm {}: {line}", arm.name)));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let list: String = refused.iter().map(|line| format!("\n  {line}")).collect();
    let contents = match everyone.refuses_hashes(allowed) {
        true => "\na hash is that of a content, though the keys are the same (docs/compare.md)",
        false => "",
    };
    let unused: String = everyone.unused(allowed).iter().map(|line| format!("\n{line}")).collect();
    Err(bad!(
        "the runs differ in more than arm and seed:{list}{contents}\n\
         compare them nevertheless with --allow KEY for each key or its section, or with --any{unused}"
    ))
}

/// Names arms after their recipes: the name that the recipes have in common, or what their names begin with.
fn label(arms: &mut [Arm], runs: &[Run], spread: &Spread) {
    let name = |run: &usize| runs[*run].recipe.as_ref().map_or(&runs[*run].name, |recipe| &recipe.name).clone();
    let names: Vec<String> =
        arms.iter().map(|arm| common_start(&arm.runs.iter().map(name).collect::<Vec<_>>())).collect();
    for (arm, name) in arms.iter_mut().zip(&names) {
        // Recipes that were changed on the command line share a name.
        let shared = names.iter().filter(|other| *other == name).count() > 1;
        let mark = if shared { spread.mark(arm.runs[0]) } else { None };
        arm.name = mark.map_or(name.clone(), |mark| format!("{name} ({mark})"));
    }
}

/// What all names begin with, without separators at its end; the first name if that is nothing.
fn common_start(names: &[String]) -> String {
    let first = names[0].as_str();
    let shared = |name: &String| first.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let length = names.iter().map(shared).min().unwrap_or(0);
    let start = &first[..first.floor_char_boundary(length)];
    let start =
        if names.iter().all(|name| name == first) { start } else { start.trim_end_matches(['-', '_', '.', ' ']) };
    if start.is_empty() { first.into() } else { start.into() }
}

/// Numbers arms that still have the same name.
fn distinct(arms: &mut [Arm]) {
    for at in 1..arms.len() {
        let name = arms[at].name.clone();
        let mut number = 1;
        while arms[..at].iter().any(|arm| arm.name == arms[at].name) {
            number += 1;
            arms[at].name = format!("{name} #{number}");
        }
    }
}

/// Says that the seeds of warm starts differ: then bands may not all be about the same.
fn seeds_of_warm_starts(origins: &[Option<Origin>], name: impl Fn(usize) -> String) -> Option<String> {
    let has_warm_start = |run: &usize| origins[*run].as_ref().is_some_and(|origin| origin.has_warm_start);
    let having: Vec<usize> = (0..origins.len()).filter(has_warm_start).collect();
    let line = Spread::over(origins, &having).seeds_of_warm_starts(name)?;
    Some(format!("warm starts differ in {line}; of runs that share one, the spread is that of PPO alone"))
}

fn repeated_seeds(runs: &[Run], arms: &[Arm]) -> Vec<String> {
    let mut notes = Vec::new();
    for arm in arms {
        let mut seen: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for &run in &arm.runs {
            if let Some(seed) = runs[run].seed() {
                seen.entry(seed).or_default().push(&runs[run].name);
            }
        }
        for (seed, names) in seen.iter().filter(|(_, names)| names.len() > 1) {
            let names = names.join(", ");
            notes.push(format!(
                "{names} are runs of the arm {} with the same seed {seed}: they are not independent",
                arm.name
            ));
        }
    }
    notes
}
