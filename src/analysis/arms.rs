//! Which runs belong together. An arm is a set of runs with one recipe apart from its seed; arms may differ in their
//! warm start. Whatever else differs makes a comparison doubtful, so that it is refused unless the user says otherwise.

use super::runs::Run;
use super::spread::{Allowed, BETWEEN, Spread, WITHIN};
use crate::bad;
use crate::recipe::Recipe;
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
    pub notes: Vec<String>,
}

impl Arms {
    /// Arms from recipes. `forced`: arms that the user has put together, with the places of their runs.
    ///
    /// # Errors
    /// Bad input: runs that differ in more than arm and seed, with the keys, their values and the runs; a run without
    /// a recipe.
    pub fn of(runs: &[Run], forced: Vec<Arm>, allowed: &Allowed) -> Result<Self> {
        let recipes = recipes(runs, allowed)?;
        let everyone = Spread::over(&recipes, &(0..runs.len()).collect::<Vec<_>>());
        check(runs, &recipes, &everyone, &forced, allowed)?;
        let mut arms = forced;
        let named = arms.len();
        for run in 0..runs.len() {
            if arms.iter().any(|arm| arm.runs.contains(&run)) {
                continue;
            }
            let same = |arm: &Arm| {
                let pair = [arm.runs[0], run];
                pair.iter().all(|run| recipes[*run].is_some()) && Spread::over(&recipes, &pair).is_within_an_arm()
            };
            match arms[named..].iter().position(same) {
                Some(at) => arms[named + at].runs.push(run),
                None => arms.push(Arm { name: String::new(), runs: vec![run] }),
            }
        }
        label(&mut arms[named..], runs, &everyone);
        distinct(&mut arms);
        let own = |run: usize| arms.iter().find(|arm| arm.runs.contains(&run)).map_or("", |arm| &arm.name).to_string();
        let mut notes = if arms.len() > 1 { everyone.between(own) } else { vec![] };
        notes.extend(everyone.rounding(|run| runs[run].name.clone()));
        notes.extend(repeated_seeds(runs, &arms));
        Ok(Self { arms, notes })
    }
}

fn recipes<'a>(runs: &'a [Run], allowed: &Allowed) -> Result<Vec<Option<&'a Recipe>>> {
    let recipe = |run: &'a Run| match &run.recipe {
        Err(reason) if !allowed.any => Err(bad!(
            "{} has no recipe that can be read, so nothing shows that it is the same experiment; --any compares it \
             nevertheless\n{reason}",
            run.dir.display()
        )),
        recipe => Ok(recipe.as_ref().ok()),
    };
    runs.iter().map(recipe).collect()
}

/// Refuses runs that differ in more than they may: all of them, and those of an arm that the user has put together.
fn check(
    runs: &[Run],
    recipes: &[Option<&Recipe>],
    everyone: &Spread,
    forced: &[Arm],
    allowed: &Allowed,
) -> Result<()> {
    let name = |run: usize| runs[run].name.clone();
    let mut refused = everyone.refused(&[&WITHIN[..], &BETWEEN].concat(), allowed, name);
    if refused.is_empty() {
        for arm in forced {
            let inner = Spread::over(recipes, &arm.runs).refused(&WITHIN, allowed, name);
            refused.extend(inner.into_iter().map(|line| format!("within the arm {}: {line}", arm.name)));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let list: String = refused.iter().map(|line| format!("\n  {line}")).collect();
    let unused: String = everyone.unused(allowed).iter().map(|line| format!("\n{line}")).collect();
    Err(bad!(
        "the runs differ in more than arm and seed:{list}\n\
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
