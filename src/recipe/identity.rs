//! Whether two recipes are the same experiment: what may change when a run is resumed, and what may not.

use super::keys::Recipe;
use std::collections::BTreeMap;
use std::fmt;
use toml::Value;

/// Sections and keys that may change when a run is resumed: how long it runs, what it shows and keeps, where it is
/// computed and in parts of what size. Any other change would make it a different experiment.
pub const MAY_CHANGE: [&str; 18] = [
    "name",
    "ppo.steps",
    "ppo.micro_batch_tokens",
    "ppo.packing",
    "sft.micro_batch_tokens",
    "sft.packing",
    "rollout.batch",
    "evaluation",
    "checkpoints",
    "hooks",
    "watch",
    "logging",
    "machine.attention",
    "machine.device",
    "machine.graphs",
    "machine.peak_tflops",
    "machine.threads",
    "memory",
];

/// A key with two values; `None` if a recipe does not have the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub key: String,
    pub before: Option<String>,
    pub now: Option<String>,
}

impl Difference {
    /// Whether a resumed run may differ in this key.
    pub fn is_allowed(&self) -> bool {
        self.is_in(&MAY_CHANGE)
    }

    /// Whether the key is one of `keys`, or in a section that is.
    pub fn is_in<T: AsRef<str>>(&self, keys: &[T]) -> bool {
        is_in(&self.key, keys)
    }
}

/// Whether a key is one of `keys`, or in a section that is.
pub fn is_in<T: AsRef<str>>(key: &str, keys: &[T]) -> bool {
    let in_section = |rest: &str| rest.is_empty() || rest.starts_with('.');
    keys.iter().any(|own| key.strip_prefix(own.as_ref()).is_some_and(in_section))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
        write!(f, "{}: was {}, is {}", self.key, shown(&self.before), shown(&self.now))
    }
}

/// The keys in which two recipes differ, defaults written out, in alphabetical order.
pub fn differences(before: &Recipe, now: &Recipe) -> Vec<Difference> {
    let (before, now) = (leaves(before), leaves(now));
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| {
            let shown = |leaves: &BTreeMap<String, Value>| leaves.get(key).map(Value::to_string);
            Difference { key: key.clone(), before: shown(&before), now: shown(&now) }
        })
        .filter(|difference| difference.before != difference.now)
        .collect()
}

/// Every key that is not a section, as `section.key`, with its value.
pub fn leaves(recipe: &Recipe) -> BTreeMap<String, Value> {
    fn collect(path: &str, value: Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    collect(&path, value, found);
                }
            }
            value => {
                found.insert(path.into(), value);
            }
        }
    }
    let mut found = BTreeMap::new();
    // Cannot fail: a plan has already written the recipe out as text.
    if let Ok(value) = Value::try_from(recipe) {
        collect("", value, &mut found);
    }
    found
}
