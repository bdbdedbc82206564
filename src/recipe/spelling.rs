//! The closest valid name for a wrong one.

use super::schema::{Kind, Section};
use crate::instead_of_file;
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
    ("device", "machine"),
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
    ("lr_warmup_steps", "warmup_ratio"),
    ("lr_warmup_steps_ratio", "warmup_ratio"),
    ("warmup_steps", "warmup_ratio"),
];

/// Every section of a file by its path, with its keys; for a section of several kinds, the keys of all of them.
struct Sections<'a> {
    root: &'a Section,
    all: Vec<(String, Vec<&'a str>)>,
}

impl<'a> Sections<'a> {
    fn of(root: &'a Section) -> Self {
        let mut sections = Self { root, all: vec![] };
        sections.collect("", root);
        sections
    }

    fn collect(&mut self, path: &str, section: &'a Section) {
        for key in &section.keys {
            match self.all.iter_mut().find(|(known, _)| known == path) {
                Some((_, keys)) if keys.contains(&key.name.as_str()) => {}
                Some((_, keys)) => keys.push(&key.name),
                None => self.all.push((path.to_string(), vec![&key.name])),
            }
        }
        for key in &section.keys {
            let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
            match &key.kind {
                Kind::Section(inner) => self.collect(&path, inner),
                Kind::Named(inner) => self.collect(&format!("{path}.NAME"), inner),
                Kind::Variants(all) => all.iter().for_each(|(_, inner)| self.collect(&path, inner)),
                _ => {}
            }
        }
    }

    /// The keys of a section, or those outside all sections (`""`).
    fn keys(&self, section: &str) -> &[&'a str] {
        self.all.iter().find(|(name, _)| name == section).map_or(&[], |(_, keys)| keys)
    }

    /// The kinds of a section that have a key.
    fn kinds(&self, section: &str, key: &str) -> Vec<String> {
        let mut here = self.root;
        let mut found = Vec::new();
        for name in section.split('.') {
            match here.key(name).map(|key| &key.kind) {
                Some(Kind::Section(inner)) => here = inner,
                Some(Kind::Variants(all)) => {
                    let having = all.iter().filter(|(_, section)| section.key(key).is_some());
                    found = having.map(|(kind, _)| format!("kind = \"{kind}\"")).collect();
                }
                _ => {}
            }
        }
        found
    }

    /// The sections that have a key.
    fn homes(&self, key: &str) -> Vec<String> {
        let home = |section: &str| match section {
            "" => "at the top, outside all sections".to_string(),
            _ => format!("in [{section}]"),
        };
        self.all.iter().filter(|(_, keys)| keys.contains(&key)).map(|(section, _)| home(section)).collect()
    }
}

/// What to write instead of the unknown key `word` of `section`, in a file whose keys are those of `root`.
pub fn advice(root: &Section, section: &str, word: &str) -> String {
    let sections = Sections::of(root);
    let here = sections.keys(section);
    if here.contains(&word) {
        return format!("`{word}` needs {}", sections.kinds(section, word).join(" or "));
    }
    if let Some(known) = alias(here, word) {
        return format!("did you mean `{known}`?");
    }
    if let Some((section, known)) = word.split_once('.').filter(|(s, key)| sections.keys(s).contains(key)) {
        return format!("write it without quotes: {section}.{known}");
    }
    if !sections.homes(word).is_empty() {
        return format!("`{word}` belongs {}", sections.homes(word).join(" or "));
    }
    if let Some(known) = nearest(word, names(here)).and_then(|name| resolve(here, name)) {
        return format!("did you mean `{known}`?");
    }
    let all = sections.all.iter().flat_map(|(_, keys)| names(keys));
    let elsewhere =
        nearest(word, all).map(|name| ALIASES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |a| a.1));
    if let Some(known) = elsewhere {
        return format!("did you mean `{known}`? It belongs {}", sections.homes(known).join(" or "));
    }
    let place = if section.is_empty() { "the top".to_string() } else { format!("[{section}]") };
    format!("{place} has: {}", here.join(", "))
}

/// Keys and their aliases.
fn names<'a>(keys: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let others = ALIASES.iter().filter(|(_, ours)| keys.contains(ours)).map(|(theirs, _)| *theirs);
    keys.iter().copied().chain(others)
}

fn resolve<'a>(keys: &[&'a str], name: &str) -> Option<&'a str> {
    keys.iter().copied().find(|key| *key == name).or_else(|| alias(keys, name))
}

fn alias<'a>(keys: &[&'a str], word: &str) -> Option<&'a str> {
    ALIASES.iter().filter(|(theirs, _)| *theirs == word).find_map(|(_, ours)| keys.iter().copied().find(|k| k == ours))
}

/// The candidate most similar to `word`, if any is: at most two in five letters differ.
pub fn nearest<T: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    // The distance is quadratic in the length, and no name is longer.
    let word: String = word.chars().take(200).collect::<String>().to_lowercase().replace('-', "_");
    let likeness = |c: &str| strsim::normalized_damerau_levenshtein(&word, &c.to_lowercase().replace('-', "_"));
    let all = candidates.into_iter().map(|c| (likeness(c.as_ref()), c)).filter(|(likeness, _)| *likeness >= 0.6);
    all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// Names in a folder, sorted; none if it cannot be read.
pub fn entries(dir: &Path) -> Vec<String> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = all.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Why a path is not a file that can be read, with a similar one that is there.
pub fn no_file(path: &Path) -> String {
    let shown = path.display();
    match instead_of_file(path) {
        Some(other) => format!("{shown} is {other}, not a file"),
        None => format!("there is no file {shown}{}", similar(path)),
    }
}

/// `; did you mean PATH?` for a path that does not exist, if its folder has a similar name; else what is missing.
pub fn similar(path: &Path) -> String {
    let parent = path.parent().unwrap_or(Path::new(""));
    if !parent.as_os_str().is_empty() && !parent.is_dir() {
        return format!("; there is no folder {} either", parent.display());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let found = nearest(&name, entries(parent));
    found.map_or(String::new(), |found| format!("; did you mean {}?", parent.join(found).display()))
}

#[cfg(test)]
mod tests {
    use super::super::schema::RECIPE;
    use super::*;

    #[test]
    fn aliases_lead_to_keys() {
        let sections = Sections::of(&RECIPE);
        for (theirs, ours) in ALIASES {
            assert!(sections.all.iter().any(|(_, keys)| keys.contains(ours)), "{theirs} -> {ours}");
        }
    }

    #[test]
    fn advice_names_the_nearest_key() {
        let advice = |section, word| advice(&RECIPE, section, word);
        assert_eq!(advice("ppo", "lerning_rate"), "did you mean `actor_lr`?");
        assert_eq!(advice("sft", "lerning_rate"), "did you mean `lr`?");
        assert_eq!(advice("ppo", "lr"), "did you mean `actor_lr`?");
        assert_eq!(advice("ppo", "temperature"), "`temperature` belongs in [rollout]");
        assert_eq!(advice("ppo", "temprature"), "did you mean `temperature`? It belongs in [rollout]");
        assert_eq!(advice("ppo", "name"), "`name` belongs at the top, outside all sections");
        assert_eq!(advice("", "data"), "`data` belongs in [sft]");
        assert_eq!(advice("sft", "insight"), "`insight` belongs in [sft.data]");
        assert_eq!(advice("logging", "qqq"), "[logging] has: tensorboard, jsonl");
    }
}
