//! The nearest right name for a wrong one.
//!
//! The names of sections and keys are asked of the recipe's structs themselves, so there is no second list to keep.

use super::raw;
use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use std::path::Path;

/// What a key is called elsewhere (verl, TRL, transformers), and here.
const ALIASES: &[(&str, &str)] = &[
    ("adv_estimator", "advantage"),
    ("batch_size", "mini_batch"),
    ("batch_size", "prompts_per_step"),
    ("batch_size", "batch"),
    ("beta", "kl_coef"),
    ("clip", "clip_high"),
    ("clip_range", "clip_high"),
    ("clip_ratio", "clip_high"),
    ("critic_learning_rate", "critic_lr"),
    ("dtype", "precision"),
    ("enable_gradient_checkpointing", "gradient_checkpointing"),
    ("gae_lambda", "lambda"),
    ("group_size", "samples_per_prompt"),
    ("keep", "keep_last"),
    ("learning_rate", "actor_lr"),
    ("learning_rate", "lr"),
    ("lr", "actor_lr"),
    ("max_grad_norm", "grad_clip"),
    ("max_length", "context"),
    ("max_new_tokens", "max_response_tokens"),
    ("max_tokens", "max_response_tokens"),
    ("micro_batch", "micro_batch_tokens"),
    ("num_epochs", "epochs"),
    ("num_generations", "samples_per_prompt"),
    ("ppo_epochs", "epochs"),
    ("save_every", "every"),
    ("target_kl", "kl_target"),
    ("vf_coef", "value_coef"),
    ("warmup_ratio", "warmup"),
];

/// Every section with its keys.
pub fn sections() -> [(&'static str, &'static [&'static str]); 14] {
    [
        ("model", fields::<raw::Model>()),
        ("task", fields::<raw::Task>()),
        ("prompt", fields::<raw::Prompt>()),
        ("reward", fields::<raw::Reward>()),
        ("sft", fields::<raw::Sft>()),
        ("ppo", fields::<raw::Ppo>()),
        ("rollout", fields::<raw::Rollout>()),
        ("evaluation", fields::<raw::Evaluation>()),
        ("checkpoints", fields::<raw::Checkpoints>()),
        ("hooks", fields::<raw::Hooks>()),
        ("logging", fields::<raw::Logging>()),
        ("device", fields::<raw::Device>()),
        ("memory", fields::<raw::Memory>()),
        ("", fields::<raw::Recipe>()),
    ]
}

/// The keys of a section, or those outside all sections (`""`).
pub fn keys(section: &str) -> &'static [&'static str] {
    sections().into_iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// What to write in place of the unknown key `word` of `section`.
pub fn advice(section: &str, word: &str) -> String {
    let here = keys(section);
    if let Some(known) = alias(here, word) {
        return format!("did you mean `{known}`?");
    }
    if let Some((section, known)) = word.split_once('.').filter(|(s, key)| keys(s).contains(key)) {
        return format!("write it without quotes: {section}.{known}");
    }
    if !homes(word).is_empty() {
        return format!("`{word}` belongs {}", homes(word).join(" or "));
    }
    if let Some(known) = nearest(word, names(here)).and_then(|name| resolve(here, name)) {
        return format!("did you mean `{known}`?");
    }
    let all = sections().into_iter().flat_map(|(_, keys)| names(keys));
    let elsewhere =
        nearest(word, all).map(|name| ALIASES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |a| a.1));
    if let Some(known) = elsewhere {
        return format!("did you mean `{known}`? It belongs {}", homes(known).join(" or "));
    }
    let place = if section.is_empty() { "a recipe".to_string() } else { format!("[{section}]") };
    format!("{place} has: {}", here.join(", "))
}

/// Where a key is known.
fn homes(key: &str) -> Vec<String> {
    let home = |section: &str| match section {
        "" => "at the top, outside all sections".to_string(),
        _ => format!("in [{section}]"),
    };
    sections().iter().filter(|(_, keys)| keys.contains(&key)).map(|(section, _)| home(section)).collect()
}

/// Keys and what else they are called.
fn names(keys: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    let others = ALIASES.iter().filter(|(_, ours)| keys.contains(ours)).map(|(theirs, _)| *theirs);
    keys.iter().copied().chain(others)
}

fn resolve(keys: &[&'static str], name: &'static str) -> Option<&'static str> {
    if keys.contains(&name) { Some(name) } else { alias(keys, name) }
}

fn alias(keys: &[&'static str], word: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(theirs, ours)| *theirs == word && keys.contains(ours)).map(|(_, ours)| *ours)
}

/// The candidate most like `word`, where one is like it: at most two of five letters differ.
pub fn nearest<T: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    // The distance is quadratic in the length, and no name is longer.
    let word: String = word.chars().take(200).collect::<String>().to_lowercase().replace('-', "_");
    let likeness = |c: &str| strsim::normalized_damerau_levenshtein(&word, &c.to_lowercase().replace('-', "_"));
    let all = candidates.into_iter().map(|c| (likeness(c.as_ref()), c)).filter(|(likeness, _)| *likeness >= 0.6);
    all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// Names in a folder, sorted; none where it cannot be read.
pub fn entries(dir: &Path) -> Vec<String> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = all.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// `; did you mean PATH?` for a path that does not exist, when its folder holds a like name; else what is missing.
pub fn similar(path: &Path) -> String {
    let parent = path.parent().unwrap_or(Path::new(""));
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return format!("; there is no folder {} either", parent.display());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let found = nearest(&name, entries(parent));
    found.map_or(String::new(), |found| format!("; did you mean {}?", parent.join(found).display()))
}

/// The field names of a struct, as serde's derive tells them to a deserializer.
fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The listener answers with an error: what it heard is all that is wanted.
    let _ = T::deserialize(Listener(&mut names));
    names
}

struct Listener<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("heard"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_listed() {
        let listed: Vec<&str> = sections().iter().map(|(name, _)| *name).collect();
        for key in keys("") {
            assert!(
                listed.contains(key) || ["extends", "name", "seed"].contains(key),
                "{key} is neither a section nor a scalar"
            );
        }
        assert!(sections().iter().all(|(_, keys)| !keys.is_empty()));
    }

    #[test]
    fn aliases_lead_to_keys() {
        for (theirs, ours) in ALIASES {
            assert!(sections().iter().any(|(_, keys)| keys.contains(ours)), "{theirs} -> {ours}");
        }
    }

    #[test]
    fn advice_names_the_nearest_key() {
        assert_eq!(advice("ppo", "lerning_rate"), "did you mean `actor_lr`?");
        assert_eq!(advice("sft", "lerning_rate"), "did you mean `lr`?");
        assert_eq!(advice("ppo", "lr"), "did you mean `actor_lr`?");
        assert_eq!(advice("ppo", "temperature"), "`temperature` belongs in [rollout]");
        assert_eq!(advice("ppo", "temprature"), "did you mean `temperature`? It belongs in [rollout]");
        assert_eq!(advice("ppo", "name"), "`name` belongs at the top, outside all sections");
        assert_eq!(advice("", "data"), "`data` belongs in [sft]");
        assert_eq!(advice("hooks", "qqq"), "[hooks] has: samples");
    }
}
