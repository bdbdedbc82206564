//! What several runs differ in, keys of their recipes and hashes of what these led to, and what each kind means for a
//! comparison.
//!
//! Decided: an arm is what the rows of its warm start are. How a warm start is trained is no part of it: of two arms
//! with other rows and another learning rate, nobody could say which of the two made the difference.

use super::origin::{FROM, Origin, SFT};
use crate::recipe::identity::is_in;
use crate::recipe::spelling::nearest;
use std::collections::{BTreeMap, BTreeSet};

/// The seed of the warm start.
const SFT_SEED: &str = "sft.seed";
/// What the runs of an arm may differ in.
pub const WITHIN: [&str; 3] = ["name", "seed", SFT_SEED];
/// What arms may differ in besides: the rows of the warm start, whether there is one, and what their layout earns.
pub const BETWEEN: [&str; 3] = ["sft.data", FROM, "reward.dialogue_format"];
/// What cannot change a number of a run.
const WITHOUT_EFFECT: [&str; 5] = ["checkpoints", "hooks", "logging", "memory", "sft.min_answered"];
/// What changes only how sums are rounded: the run differs as by chance, and not in one direction. It is mentioned.
const ROUNDING: [&str; 8] = [
    "machine.attention",
    "machine.device",
    "machine.threads",
    "ppo.micro_batch_tokens",
    "ppo.packing",
    "sft.micro_batch_tokens",
    "sft.packing",
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

impl Allowed {
    fn has(&self, key: &str) -> bool {
        self.any || is_in(key, &self.keys)
    }
}

/// The values of a key or a hash, and the runs that have each.
type Values = Vec<(String, Vec<usize>)>;

/// What differs.
pub struct Spread {
    /// Keys, with their values as TOML.
    keys: BTreeMap<String, Values>,
    /// Hashes that differ though nothing that decides them does.
    hashes: BTreeMap<String, Values>,
    /// The runs without a warm start.
    without: Vec<usize>,
}

impl Spread {
    /// Over the runs `which`; `origins` has one for each run, if it is known.
    pub fn over(origins: &[Option<Origin>], which: &[usize]) -> Self {
        let known: Vec<(usize, &Origin)> =
            which.iter().filter_map(|&run| Some((run, origins[run].as_ref()?))).collect();
        let names: BTreeSet<&String> = known.iter().flat_map(|(_, origin)| origin.keys.keys()).collect();
        let values = |key: &String| {
            let value = |origin: &Origin| origin.keys.get(key).cloned().unwrap_or_else(|| ABSENT.into());
            (key.clone(), grouped(known.iter().map(|(run, origin)| (value(origin), *run))))
        };
        let keys = names.into_iter().map(values).filter(|(_, values)| values.len() > 1).collect();

        let mut promised: BTreeMap<_, Vec<(String, usize)>> = BTreeMap::new();
        for (run, hash) in known.iter().flat_map(|(run, origin)| origin.hashes.iter().map(move |hash| (*run, hash))) {
            if !(has_no_bearing(&hash.key) || is_in(&hash.key, &WITHIN)) {
                promised.entry((&hash.key, &hash.promise)).or_default().push((hash.value.clone(), run));
            }
        }
        let mut hashes: BTreeMap<String, Values> = BTreeMap::new();
        for ((key, _), found) in promised {
            let values = grouped(found);
            if values.len() > 1 {
                hashes.entry(key.clone()).or_default().extend(values);
            }
        }
        let without = known.iter().filter(|(_, origin)| !origin.has_warm_start).map(|(run, _)| *run).collect();
        Self { keys, hashes, without }
    }

    /// Whether runs that differ in nothing else than this are one arm.
    pub fn is_within_an_arm(&self) -> bool {
        self.hashes.is_empty() && self.keys.keys().all(|key| is_in(key, &WITHIN) || has_no_bearing(key))
    }

    /// `KEY: VALUE in RUNS; VALUE in RUNS`, for the keys that are neither `free` nor allowed, and for the hashes that
    /// are not allowed. `name`: of a run.
    pub fn refused(&self, free: &[&str], allowed: &Allowed, name: impl Fn(usize) -> String) -> Vec<String> {
        let keys =
            self.keys.keys().filter(|key| !(has_no_bearing(key) || is_in(key, free) || self.is_of_one_side(key)));
        let all = keys.chain(self.hashes.keys()).filter(|key| !allowed.has(key));
        all.map(|key| self.line(key, &name)).collect()
    }

    /// Whether a hash differs that is not allowed.
    pub fn refuses_hashes(&self, allowed: &Allowed) -> bool {
        self.hashes.keys().any(|key| !allowed.has(key))
    }

    /// Lines about allowed keys in which no run differs.
    pub fn unused(&self, allowed: &Allowed) -> Vec<String> {
        let all = || self.keys.keys().chain(self.hashes.keys());
        let unused = allowed.keys.iter().filter(|key| !all().any(|own| is_in(own, &[key])));
        let line = |key: &String| {
            let hint = nearest(key, all()).map_or(String::new(), |own| format!("; did you mean {own}?"));
            format!("no run differs in the allowed key {key}{hint}")
        };
        unused.map(line).collect()
    }

    /// What makes runs more than repetitions of each other, in lines such as those of `refused`.
    pub fn told(&self, name: impl Fn(usize) -> String) -> Vec<String> {
        let hashes = self.hashes.keys().map(String::as_str);
        self.telling().into_iter().chain(hashes).map(|key| self.line(key, &name)).collect()
    }

    /// What changes rounding only. `name`: of a run.
    pub fn rounding(&self, name: impl Fn(usize) -> String) -> Vec<String> {
        let keys = self.keys.keys().filter(|key| is_in(key, &ROUNDING) && self.values(key) > 1);
        keys.map(|key| format!("runs differ, by rounding only, in {}", self.line(key, &name))).collect()
    }

    /// The seeds of warm starts, if they differ. `name`: of a run.
    pub fn seeds_of_warm_starts(&self, name: impl Fn(usize) -> String) -> Option<String> {
        self.keys.contains_key(SFT_SEED).then(|| self.line(SFT_SEED, name))
    }

    /// What tells a run's arm from others, for its name: a text, or a key and its value.
    pub fn mark(&self, run: usize) -> Option<String> {
        let key = self.telling().into_iter().next()?;
        let value = self.value(key, run)?;
        let unquoted = |value: &str| Some(value.strip_prefix('"')?.strip_suffix('"')?.to_string());
        if value == ABSENT && is_in(key, &[SFT]) {
            // Of a finished warm start nothing may be known but its place.
            let from = self.value(FROM, run).and_then(unquoted);
            return Some(match self.without.contains(&run) {
                true => "no warm start".into(),
                false => from.unwrap_or_else(|| "warm start".into()),
            });
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        Some(match unquoted(value) {
            _ if key == KIND && self.values(key) == 1 => "warm start".into(),
            Some(text) => text,
            None => format!("{last} {value}"),
        })
    }

    /// The keys that arms differ in. Where some arms have no warm start, all keys of [sft] differ; only those of which
    /// there are two values say something; if there is none, one stands for all.
    fn telling(&self) -> Vec<&str> {
        let keys: Vec<&str> =
            self.keys.keys().map(String::as_str).filter(|key| !is_in(key, &WITHIN) && !has_no_bearing(key)).collect();
        let two: Vec<&str> = keys.iter().copied().filter(|key| self.values(key) > 1).collect();
        match two.is_empty() {
            true => keys.iter().find(|key| **key == KIND).or(keys.first()).copied().into_iter().collect(),
            false => two,
        }
    }

    /// Whether a key is one of how warm starts are trained, and those runs that train one agree in it.
    fn is_of_one_side(&self, key: &str) -> bool {
        is_in(key, &[SFT]) && !is_in(key, &BETWEEN) && self.values(key) == 1
    }

    /// The number of values that a key has.
    fn values(&self, key: &str) -> usize {
        self.keys[key].iter().filter(|(value, _)| value != ABSENT).count()
    }

    /// The value that a run has, of a key in which runs differ.
    fn value(&self, key: &str, run: usize) -> Option<&str> {
        self.keys.get(key)?.iter().find(|(_, runs)| runs.contains(&run)).map(|(value, _)| value.as_str())
    }

    fn line(&self, key: &str, name: impl Fn(usize) -> String) -> String {
        let all = self.keys.get(key).or_else(|| self.hashes.get(key)).into_iter().flatten();
        let values = all.map(|(value, runs)| {
            let mut names: Vec<String> = runs.iter().map(|run| name(*run)).collect();
            names.dedup();
            format!("{value} in {}", names.join(", "))
        });
        format!("{key}: {}", values.collect::<Vec<_>>().join("; "))
    }
}

/// Which runs have each value, in the order of the runs.
fn grouped(found: impl IntoIterator<Item = (String, usize)>) -> Values {
    let mut values = Values::new();
    for (value, run) in found {
        match values.iter_mut().find(|(known, _)| *known == value) {
            Some((_, runs)) => runs.push(run),
            None => values.push((value, vec![run])),
        }
    }
    values
}

/// Whether a key does not make runs differ by more than chance.
fn has_no_bearing(key: &str) -> bool {
    is_in(key, &WITHOUT_EFFECT) || is_in(key, &ROUNDING)
}
