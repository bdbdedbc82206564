//! Checks of the setting: name, model, task, prompt, reward, device, evaluation.

use crate::model::{ADAPTER, ModelConfig};
use crate::recipe::spelling::{entries, nearest, similar};
use crate::recipe::{Evaluation, Machine, Prompt, Recipe, Reward, Sources, Task};
use crate::task::settings;
use crate::text::BUILT_IN;
use crate::torch::{DEVICES, named_device};
use crate::{BadInput, instead_of_file, not_fetched};
use std::path::{Path, PathBuf};

/// Where the recipes' models come from: the folder's name, and the command that creates it.
const SOURCES: [(&str, &str); 3] = [
    ("smollm2-135m-instruct", "scripts/smollm2 "),
    ("Qwen2.5-3B", "hf download Qwen/Qwen2.5-3B --local-dir "),
    ("Llama-3.2-3B", "hf download meta-llama/Llama-3.2-3B --local-dir "),
];

pub fn name(name: &str, at: &Sources) -> Result<(), BadInput> {
    let odd = name.chars().find(|c| "/\\:*?\"<>|".contains(*c) || c.is_control());
    let what = match odd {
        _ if name.is_empty() => "`name` is empty".to_string(),
        _ if name.starts_with(['.', '-']) => "`name` cannot begin with a dot or a dash".to_string(),
        _ if name.trim() != name => "`name` cannot begin or end with a space".to_string(),
        _ if name.len() > 100 => format!("`name` has {} bytes, expected at most 100", name.len()),
        Some(odd) => format!("`name` cannot contain {odd:?}"),
        None => return Ok(()),
    };
    Err(at.bad("name", format!("{what}\nit names the run folder: expected a plain word such as \"first-run\"")))
}

pub fn model(recipe: &Recipe, at: &Sources) -> Result<(ModelConfig, PathBuf), BadInput> {
    let (model, key) = (&recipe.model, "model.path");
    let dir = &model.path;
    let shown = dir.display();
    if !dir.is_dir() {
        let source = SOURCES.iter().find(|(name, _)| dir.ends_with(name));
        let hint = source.map_or_else(|| similar(dir), |(_, command)| format!("\nto get it: {command}{shown}"));
        let trial = "to try the recipe without weights: a folder with config.json and the tokenizer's files, and \
                     model.random_weights = true";
        let hint = if hint.is_empty() { format!("\n{trial}") } else { format!("{hint}\n{trial}") };
        return Err(at.bad(key, format!("there is no model folder {shown}{hint}")));
    }
    let has = |dir: &Path, file: &str| dir.join(file).is_file();
    let missing = |dir: &Path, file: &str| not_fetched(&dir.join(file));
    if let Some(instead) = missing(dir, "config.json") {
        return Err(at.bad(key, instead));
    }
    if !has(dir, "config.json") && !has(dir, ADAPTER) {
        let inner = entries(dir).into_iter().find(|name| has(&dir.join(name), "config.json"));
        let hint = inner.map_or(String::new(), |name| format!("\ndid you mean {}?", dir.join(name).display()));
        return Err(at.bad(key, format!("{shown} has no config.json, so it is not a model folder{hint}")));
    }
    let config = ModelConfig::from_dir(dir).map_err(|e| {
        let cause = format!("{e:#}").replace('\n', " ");
        at.bad(key, format!("the model cannot be used: {cause}"))
    })?;
    let (key, tokenizer) = match &model.tokenizer {
        Some(dir) => ("model.tokenizer", dir),
        None => (key, dir),
    };
    let shown = tokenizer.display();
    at.ensure(tokenizer.is_dir(), key, format_args!("there is no tokenizer folder {shown}{}", similar(tokenizer)))?;
    if let Some(instead) = missing(tokenizer, "tokenizer.json") {
        return Err(at.bad(key, instead));
    }
    at.ensure(
        has(tokenizer, "tokenizer.json"),
        key,
        format_args!("{shown} has no tokenizer.json\nset model.tokenizer to a folder that has one"),
    )?;
    Ok((config, tokenizer.clone()))
}

pub fn reward(reward: &Reward, at: &Sources) -> Result<(), BadInput> {
    let both = reward.accuracy + reward.format;
    at.ensure(both > 0.0, "reward.accuracy", "no response can earn a reward: `accuracy` and `format` are both 0")
}

pub fn machine(machine: &Machine, at: &Sources) -> Result<(), BadInput> {
    at.ensure(
        named_device(&machine.device).is_some(),
        "machine.device",
        format_args!("there is no device `{}`\nexpected {DEVICES}", machine.device),
    )
}

pub fn evaluation(evaluation: &Evaluation, task: &Task, at: &Sources) -> Result<(), BadInput> {
    let [_, validation, _] = settings(task).sizes();
    at.ensure(
        evaluation.problems <= validation,
        "evaluation.problems",
        format_args!(
            "an evaluation uses {} problems, but task.validation is {validation}\nset it to 0 to use all of them",
            evaluation.problems
        ),
    )?;
    let ways = &evaluation.decoding;
    at.ensure(
        !ways.is_empty() && (1..ways.len()).all(|i| !ways[..i].contains(&ways[i])),
        "evaluation.decoding",
        "`evaluation.decoding` must name one or both modes, each once\nexpected [\"greedy\"], [\"sampled\"] or both",
    )
}

pub fn prompt(prompt: &Prompt, at: &Sources) -> Result<(), BadInput> {
    let template = &prompt.template;
    let built_in: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    if !built_in.contains(&template.as_str()) && !Path::new(template).is_file() {
        let near =
            nearest(template, built_in.iter().copied()).map_or(String::new(), |t| format!("did you mean \"{t}\"? "));
        let known = built_in.join(", ");
        if let Some(other) = instead_of_file(Path::new(template)) {
            let what = format!("the template `{template}` is {other}, not a file");
            return Err(at.bad("prompt.template", format!("{what}\nexpected {known}, or the path of a template file")));
        }
        return Err(at.bad(
            "prompt.template",
            format!("there is no template `{template}`\n{near}expected {known}, or the path of a template file"),
        ));
    }
    Ok(())
}
