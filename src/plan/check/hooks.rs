//! Checks of the hooks that run beside training.

use crate::BadInput;
use crate::endpoint::check_url;
use crate::model::ModelConfig;
use crate::recipe::spelling::similar;
use crate::recipe::{Judge, Recipe, Sources};
use crate::task::settings;
use crate::torch::{DEVICES, named_device};
use serde_json::{Map, Value};
use std::path::Path;

/// The hooks that are ours, which a user's cannot be called.
const OURS: [&str; 3] = ["persona", "transfer", "distinct"];

/// A judge's folder of prompts.
fn prompts(judge: &Judge) -> Option<&Path> {
    match judge {
        Judge::Lexical => None,
        Judge::Endpoint(judge) => judge.prompts.as_deref(),
        Judge::Local(judge) => judge.prompts.as_deref(),
    }
}

/// Checks the judge that a hook asks; `name`: its key.
fn judge(name: &str, judge: &Judge, at: &Sources) -> Result<(), BadInput> {
    let key = |key: &str| format!("{name}.{key}");
    if let Judge::Local(judge) = judge {
        let path = &judge.path;
        let what = format!("there is no model folder {}{}", path.display(), similar(path));
        at.ensure(path.join("config.json").is_file(), &key("path"), what)?;
    }
    if let Judge::Endpoint(judge) = judge {
        check_url(&judge.url).map_err(|error| at.bad(&key("url"), error))?;
        let body = serde_json::from_str::<Map<String, Value>>(&judge.body);
        let what = "expected a JSON object in quotes\nfor example '{\"seed\": 1}'";
        at.ensure(body.is_ok(), &key("body"), what)?;
    }
    if let Some(prompts) = prompts(judge) {
        let what = format!("there is no folder {}{}", prompts.display(), similar(prompts));
        at.ensure(prompts.is_dir(), &key("prompts"), what)?;
    }
    Ok(())
}

pub fn check(recipe: &Recipe, config: &ModelConfig, at: &Sources) -> Result<(), BadInput> {
    let hooks = &recipe.hooks;
    if let Some(device) = &hooks.device {
        let what = format!("there is no device `{device}`\nexpected {DEVICES}");
        at.ensure(named_device(device).is_some(), "hooks.device", what)?;
    }
    let steps = recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
    let in_time = |key: &str, wanted: &[usize]| match wanted.iter().find(|step| **step > steps) {
        Some(late) => Err(at.bad(key, format!("step {late} never comes: ppo.steps is {steps}"))),
        None => Ok(()),
    };
    let [_, validation, _] = settings(&recipe.task).sizes();
    let enough = |key: &str, traces: usize| {
        let what = format!("{traces} responses to judge, but task.validation is {validation}");
        at.ensure(traces <= validation, key, what)
    };
    if let Some(persona) = &hooks.persona {
        in_time("hooks.persona.steps", &persona.steps)?;
    }
    for (name, own) in hooks.judges() {
        judge(name, own, at)?;
    }
    if let Some(persona) = &hooks.persona {
        enough("hooks.persona.traces", persona.traces)?;
    }
    if let Some(distinct) = &hooks.distinct {
        in_time("hooks.distinct.steps", &distinct.steps)?;
        enough("hooks.distinct.traces", distinct.traces)?;
        let layers = config.num_hidden_layers;
        let what = format!("the model has {layers} layers, from 0 to {}", layers - 1);
        at.ensure(distinct.layer.is_none_or(|layer| (layer as i64) < layers), "hooks.distinct.layer", what)?;
    }
    if let Some(transfer) = &hooks.transfer {
        in_time("hooks.transfer.steps", &transfer.steps)?;
        let task = settings(&transfer.task);
        task.check(&at.under("hooks.transfer"))?;
        let [.., test] = task.sizes();
        let what = format!("{} problems, but hooks.transfer.task.test is {test}", transfer.problems);
        at.ensure(transfer.problems <= test, "hooks.transfer.problems", what)?;
        let response = transfer.max_response_tokens.unwrap_or(recipe.rollout.max_response_tokens);
        let prompt = transfer.max_prompt_tokens.unwrap_or(recipe.rollout.max_prompt_tokens);
        let (all, context) = (prompt + response, config.max_position_embeddings);
        let what = format!("{all} prompt and response tokens, but the model's context is {context} tokens");
        at.ensure(all as i64 <= context, "hooks.transfer.max_prompt_tokens", what)?;
    }
    for (name, external) in &hooks.external {
        let key = format!("hooks.external.{name}");
        at.ensure(!OURS.contains(&name.as_str()), &key, format_args!("`{name}` is already a built-in hook"))?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let what = format!("`{name}` names a folder and metrics: expected letters, digits, `_` and `-`");
        at.ensure(plain, &key, what)?;
        let command = external.command.first().is_some_and(|program| !program.is_empty());
        at.ensure(command, &format!("{key}.command"), "the command is empty\nfor example [\"python3\", \"score.py\"]")?;
        in_time(&format!("{key}.steps"), &external.steps)?;
    }
    Ok(())
}
