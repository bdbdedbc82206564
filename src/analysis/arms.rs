//! Which runs belong together. An arm is a set of runs with one recipe apart from its seed; arms may differ in their
//! warm start. Whatever else differs makes a comparison doubtful, so that it is refused unless the user says otherwise.

use super::runs::Run;
use crate::bad;
use crate::recipe::Recipe;
use crate::recipe::identity::{Difference, differences};
use crate::recipe::spelling::nearest;
use anyhow::Result;
use std::collections::BTreeMap;

/// What the runs of an arm may differ in.
const WITHIN: [&str; 2] = ["name", "seed"];
/// What arms may differ in besides.
const BETWEEN: [&str; 1] = ["sft"];
/// What cannot change a number of a run.
const WITHOUT_EFFECT: [&str; 4] = ["checkpoints", "hooks", "logging", "memory"];
/// What changes only how sums are rounded: the run differs as by chance, and not in one direction. It is mentioned.
const ROUNDING: [&str; 5] =
    ["machine.device", "machine.threads", "ppo.micro_batch_tokens", "sft.micro_batch_tokens", "rollout.batch"];

/// Runs of one recipe with different seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    pub name: String,
    /// Their places in the list of runs.
    pub runs: Vec<usize>,
}

/// The differences that a user allows.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Keys and sections of recipes.
    pub keys: Vec<String>,
    /// All of them.
    pub any: bool,
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
        let mut arms = forced.clone();
        for run in 0..runs.len() {
            if arms.iter().any(|arm| arm.runs.contains(&run)) {
                continue;
            }
            let own = arms[forced.len()..].iter().position(|arm| same_arm(recipes[arm.runs[0]], recipes[run]));
            match own {
                Some(at) => arms[forced.len() + at].runs.push(run),
                None => arms.push(Arm { name: String::new(), runs: vec![run] }),
            }
        }
        let everyone = Spread::over(runs, &recipes, &(0..runs.len()).collect::<Vec<_>>());
        let mut refused = everyone.refused(&[&WITHIN[..], &BETWEEN].concat(), allowed, "");
        for arm in &forced {
            let place = format!(" within the arm {}", arm.name);
            let inner = Spread::over(runs, &recipes, &arm.runs).refused(&WITHIN, allowed, &place);
            refused.extend(
                inner
                    .into_iter()
                    .filter(|line| !refused.iter().any(|known| line.starts_with(known)))
                    .collect::<Vec<_>>(),
            );
        }
        if !refused.is_empty() {
            return Err(bad!(
                "the runs differ in more than arm and seed:{}\n{}",
                refused.iter().map(|line| format!("\n  {line}")).collect::<String>(),
                everyone.advice(allowed)
            ));
        }
        label(&mut arms[forced.len()..], runs, &everyone);
        distinct(&mut arms);
        let mut notes = everyone.notes();
        notes.extend(repeated_seeds(runs, &arms));
        Ok(Self { arms, notes })
    }
}

fn recipes<'a>(runs: &'a [Run], allowed: &Allowed) -> Result<Vec<Option<&'a Recipe>>> {
    let recipe = |run: &'a Run| match &run.recipe {
        None if !allowed.any => Err(bad!(
            "{} has no recipe.toml that can be read, so nothing shows that it is the same experiment; \
             --any compares it nevertheless",
            run.dir.display()
        )),
        recipe => Ok(recipe.as_ref()),
    };
    runs.iter().map(recipe).collect()
}

fn same_arm(one: Option<&Recipe>, other: Option<&Recipe>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let free = [&WITHIN[..], &WITHOUT_EFFECT, &ROUNDING].concat();
    differences(one, other).iter().all(|difference| difference.is_in(&free))
}

/// The keys in which runs differ, with the runs that have each value.
struct Spread(BTreeMap<String, Vec<(String, Vec<String>)>>);

impl Spread {
    fn over(runs: &[Run], recipes: &[Option<&Recipe>], which: &[usize]) -> Self {
        let known: Vec<(usize, &Recipe)> = which.iter().filter_map(|&run| Some((run, recipes[run]?))).collect();
        let Some((_, first)) = known.first() else { return Self(BTreeMap::new()) };
        let found: Vec<Vec<Difference>> = known.iter().map(|(_, recipe)| differences(first, recipe)).collect();
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
        let mut keys = BTreeMap::new();
        for (key, usual) in found.iter().flatten().map(|difference| (&difference.key, &difference.before)) {
            let mut values: Vec<(String, Vec<String>)> = Vec::new();
            for ((run, _), own) in known.iter().zip(&found) {
                let value = shown(own.iter().find(|d| d.key == *key).map_or(usual, |difference| &difference.now));
                let name = runs[*run].name.clone();
                match values.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, names)) => names.push(name),
                    None => values.push((value, vec![name])),
                }
            }
            keys.insert(key.clone(), values);
        }
        Self(keys)
    }

    /// `KEY: VALUE in RUNS; VALUE in RUNS`.
    fn line(&self, key: &str) -> String {
        let values = self.0[key].iter().map(|(value, runs)| format!("{value} in {}", runs.join(", ")));
        format!("{key}: {}", values.collect::<Vec<_>>().join("; "))
    }

    fn keys(&self, within: &[&str]) -> Vec<&String> {
        self.0.keys().filter(|key| difference(key).is_in(within)).collect()
    }

    /// Lines for the keys that are neither free nor allowed.
    fn refused(&self, free: &[&str], allowed: &Allowed, place: &str) -> Vec<String> {
        let free = [free, &WITHOUT_EFFECT, &ROUNDING].concat();
        let refused =
            |key: &&String| !allowed.any && !difference(key).is_in(&free) && !difference(key).is_in(&allowed.keys);
        self.0.keys().filter(refused).map(|key| self.line(key) + place).collect()
    }

    fn advice(&self, allowed: &Allowed) -> String {
        let unused = allowed.keys.iter().filter(|key| !self.0.keys().any(|own| difference(own).is_in(&[key])));
        let unused: Vec<String> = unused
            .map(|key| {
                let hint = nearest(key, self.0.keys()).map_or(String::new(), |own| format!("; did you mean {own}?"));
                format!("\nno run differs in the allowed key {key}{hint}")
            })
            .collect();
        format!(
            "--allow KEY compares them nevertheless, for each key or its section; --any, whatever differs{}",
            unused.concat()
        )
    }

    /// What the arms differ in, and what changes rounding.
    fn notes(&self) -> Vec<String> {
        let silent = [&WITHIN[..], &WITHOUT_EFFECT, &ROUNDING].concat();
        let told = |key: &&String| !difference(key).is_in(&silent) && self.real(key);
        let mut notes: Vec<String> =
            self.0.keys().filter(told).map(|key| format!("the arms differ in {}", self.line(key))).collect();
        let rounding = self.keys(&ROUNDING).into_iter().filter(|key| self.real(key));
        notes.extend(rounding.map(|key| format!("runs differ, by rounding only, in {}", self.line(key))));
        notes
    }

    /// Whether there are two values: keys of a warm start that some arms do not have are told by one of them.
    fn real(&self, key: &str) -> bool {
        key == "sft.data.kind" || self.0[key].iter().filter(|(value, _)| value != "absent").count() > 1
    }
}

fn difference(key: &str) -> Difference {
    Difference { key: key.into(), before: None, now: None }
}

/// Names arms after their recipes: what the recipes' names begin with, or the whole name if they have one in common.
fn label(arms: &mut [Arm], runs: &[Run], spread: &Spread) {
    for arm in arms.iter_mut() {
        let name =
            |run: &usize| runs[*run].recipe.as_ref().map_or(runs[*run].name.clone(), |recipe| recipe.name.clone());
        let names: Vec<String> = arm.runs.iter().map(name).collect();
        arm.name = common_start(&names);
    }
    // Recipes changed on the command line share a name: the first key that tells them apart is added.
    let names: Vec<String> = arms.iter().map(|arm| arm.name.clone()).collect();
    for (arm, name) in arms.iter_mut().zip(&names) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            let own = &runs[arm.runs[0]].name;
            let telling = spread.0.keys().filter(|key| {
                let silent = [&WITHIN[..], &WITHOUT_EFFECT, &ROUNDING].concat();
                !difference(key).is_in(&silent) && spread.real(key)
            });
            if let Some(key) = telling.min_by_key(|key| spread.0[*key].iter().any(|(value, _)| value == "absent")) {
                let value = spread.0[key].iter().find(|(_, runs)| runs.contains(own));
                arm.name += &value.map_or(String::new(), |(value, _)| format!(" ({})", told(key, value)));
            }
        }
    }
}

/// A value in a name: texts alone, anything else with its key.
fn told(key: &str, value: &str) -> String {
    let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    text.map_or_else(|| format!("{} {value}", key.rsplit('.').next().unwrap_or(key)), String::from)
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
