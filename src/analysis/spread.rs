//! The keys in which the recipes of several runs differ, and what each kind of key means for a comparison.

use crate::recipe::Recipe;
use crate::recipe::identity::{Difference, differences};
use crate::recipe::spelling::nearest;
use std::collections::BTreeMap;

/// What the runs of an arm may differ in.
pub const WITHIN: [&str; 2] = ["name", "seed"];
/// What arms may differ in besides.
pub const BETWEEN: [&str; 1] = ["sft"];
/// What cannot change a number of a run.
const WITHOUT_EFFECT: [&str; 4] = ["checkpoints", "hooks", "logging", "memory"];
/// What changes only how sums are rounded: the run differs as by chance, and not in one direction. It is mentioned.
const ROUNDING: [&str; 6] = [
    "machine.attention",
    "machine.device",
    "machine.threads",
    "ppo.micro_batch_tokens",
    "sft.micro_batch_tokens",
    "rollout.batch",
];
const ABSENT: &str = "absent";
/// The key that every warm start has.
const KIND: &str = "sft.data.kind";

/// The differences that a user allows.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Keys and sections of recipes.
    pub keys: Vec<String>,
    /// All of them.
    pub any: bool,
}

/// For each key that differs: its values as TOML, and the runs that have each.
pub struct Spread(BTreeMap<String, Vec<(String, Vec<usize>)>>);

impl Spread {
    /// Over the runs `which`; `recipes` has one for each run, if it is known.
    pub fn over(recipes: &[Option<&Recipe>], which: &[usize]) -> Self {
        let known: Vec<(usize, &Recipe)> = which.iter().filter_map(|&run| Some((run, recipes[run]?))).collect();
        let Some((_, first)) = known.first() else { return Self(BTreeMap::new()) };
        let found: Vec<Vec<Difference>> = known.iter().map(|(_, recipe)| differences(first, recipe)).collect();
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| ABSENT.into());
        let mut keys = BTreeMap::new();
        for (key, usual) in found.iter().flatten().map(|difference| (&difference.key, &difference.before)) {
            let mut values: Vec<(String, Vec<usize>)> = Vec::new();
            for ((run, _), own) in known.iter().zip(&found) {
                let value = shown(own.iter().find(|d| d.key == *key).map_or(usual, |difference| &difference.now));
                match values.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, runs)) => runs.push(*run),
                    None => values.push((value, vec![*run])),
                }
            }
            keys.insert(key.clone(), values);
        }
        Self(keys)
    }

    /// Whether runs that differ in nothing else than this are one arm.
    pub fn is_within_an_arm(&self) -> bool {
        self.0.keys().all(|key| is_in(key, &WITHIN) || has_no_bearing(key))
    }

    /// `KEY: VALUE in RUNS; VALUE in RUNS`, for the keys that are neither `free` nor allowed. `name`: of a run.
    pub fn refused(&self, free: &[&str], allowed: &Allowed, name: impl Fn(usize) -> String) -> Vec<String> {
        let refused =
            |key: &&String| !(allowed.any || has_no_bearing(key) || is_in(key, free) || is_in(key, &allowed.keys));
        self.0.keys().filter(refused).map(|key| self.line(key, &name)).collect()
    }

    /// Lines about allowed keys in which no run differs.
    pub fn unused(&self, allowed: &Allowed) -> Vec<String> {
        let unused = allowed.keys.iter().filter(|key| !self.0.keys().any(|own| is_in(own, &[key])));
        let line = |key: &String| {
            let hint = nearest(key, self.0.keys()).map_or(String::new(), |own| format!("; did you mean {own}?"));
            format!("no run differs in the allowed key {key}{hint}")
        };
        unused.map(line).collect()
    }

    /// What arms differ in. `arm`: the name of a run's arm.
    pub fn between(&self, arm: impl Fn(usize) -> String) -> Vec<String> {
        self.telling().into_iter().map(|key| format!("the arms differ in {}", self.line(key, &arm))).collect()
    }

    /// What changes rounding only. `name`: of a run.
    pub fn rounding(&self, name: impl Fn(usize) -> String) -> Vec<String> {
        let keys = self.0.keys().filter(|key| is_in(key, &ROUNDING) && self.values(key) > 1);
        keys.map(|key| format!("runs differ, by rounding only, in {}", self.line(key, &name))).collect()
    }

    /// What tells a run's arm from others, for its name: a text, or a key and its value.
    pub fn mark(&self, run: usize) -> Option<String> {
        let key = self.telling().into_iter().next()?;
        let (value, _) = self.0[key].iter().find(|(_, runs)| runs.contains(&run))?;
        let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let last = key.rsplit('.').next().unwrap_or(key);
        Some(match text {
            _ if value == ABSENT && is_in(key, &BETWEEN) => "no warm start".into(),
            _ if key == KIND && self.values(key) == 1 => "warm start".into(),
            Some(text) => text.into(),
            None => format!("{last} {value}"),
        })
    }

    /// The keys that arms differ in. Where some arms have no warm start, all keys of [sft] differ; only those of which
    /// there are two values say something; if there is none, one stands for all.
    fn telling(&self) -> Vec<&str> {
        let keys: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|key| !is_in(key, &WITHIN) && !has_no_bearing(key)).collect();
        let two: Vec<&str> = keys.iter().copied().filter(|key| self.values(key) > 1).collect();
        match two.is_empty() {
            true => keys.iter().find(|key| **key == KIND).or(keys.first()).copied().into_iter().collect(),
            false => two,
        }
    }

    /// The number of values that a key has.
    fn values(&self, key: &str) -> usize {
        self.0[key].iter().filter(|(value, _)| value != ABSENT).count()
    }

    fn line(&self, key: &str, name: impl Fn(usize) -> String) -> String {
        let values = self.0[key].iter().map(|(value, runs)| {
            let mut names: Vec<String> = runs.iter().map(|run| name(*run)).collect();
            names.dedup();
            format!("{value} in {}", names.join(", "))
        });
        format!("{key}: {}", values.collect::<Vec<_>>().join("; "))
    }
}

fn is_in<T: AsRef<str>>(key: &str, keys: &[T]) -> bool {
    Difference { key: key.into(), before: None, now: None }.is_in(keys)
}

/// Whether a key does not make runs differ by more than chance.
fn has_no_bearing(key: &str) -> bool {
    is_in(key, &WITHOUT_EFFECT) || is_in(key, &ROUNDING)
}
