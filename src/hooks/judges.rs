//! The judges that a recipe can name, and where vectors for their texts come from.

use crate::OrBadInput;
use crate::endpoint::Settings;
use crate::judge::{Embedder, Endpoint, Judge, Lexical, Local, Prompts};
use crate::plan::kind_of;
use crate::recipe::{self, EndpointJudge, LocalJudge};
use crate::rollout::Manner;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A judge, and what makes vectors of the expertise that it finds, if anything does.
pub type Panel = (Box<dyn Judge>, Option<Embedder>);

/// The judge of a recipe. `answers`: the folder of an endpoint's answers; `stop`: set by a signal.
///
/// # Errors
/// Bad input: a URL, key, prompt or model folder that cannot be used.
pub fn panel(settings: &recipe::Judge, answers: &Path, stop: &Arc<AtomicBool>) -> Result<Panel> {
    match settings {
        recipe::Judge::Lexical => Ok((Box::new(Lexical), None)),
        recipe::Judge::Endpoint(settings) => endpoint(settings, answers, stop),
        recipe::Judge::Local(settings) => local(settings, stop),
    }
}

fn endpoint(settings: &EndpointJudge, answers: &Path, stop: &Arc<AtomicBool>) -> Result<Panel> {
    let body: Map<String, Value> =
        serde_json::from_str(&settings.body).context("hooks.persona.judge.body is not a JSON object").bad_input()?;
    let to = |model: &str, body: Map<String, Value>| Settings {
        key_env: settings.key_env.clone(),
        body,
        concurrency: settings.concurrency,
        timeout: Duration::from_secs_f64(settings.timeout),
        retries: settings.retries,
        backoff: Duration::from_secs_f64(settings.backoff),
        max_requests: settings.max_requests,
        max_tokens: settings.max_tokens,
        ..Settings::new(&settings.url, model)
    };
    let asked = to(&settings.model, body);
    let key = asked.key()?;
    let prompts = Prompts::new(settings.prompts.as_deref())?;
    let judge = Endpoint::new(asked, key.clone(), prompts, answers, Arc::clone(stop))?;
    let embedder = settings
        .embeddings
        .as_ref()
        .map(|model| Embedder::endpoint(to(model, Map::new()), key, answers, Arc::clone(stop)));
    Ok((Box::new(judge), embedder.transpose()?))
}

fn local(settings: &LocalJudge, stop: &Arc<AtomicBool>) -> Result<Panel> {
    let manner = Manner {
        max_tokens: settings.max_tokens,
        batch: settings.batch,
        precision: kind_of(settings.precision),
        ..Manner::default()
    };
    let judge = Local::open(&settings.path, manner, Prompts::new(settings.prompts.as_deref())?, Arc::clone(stop))?;
    let embedder = settings.embeddings.then(|| Embedder::local(judge.author()));
    Ok((Box::new(judge), embedder))
}
