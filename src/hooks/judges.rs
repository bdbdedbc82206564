//! The judges that a recipe can name, and where vectors for their texts come from.

use crate::OrBadInput;
use crate::endpoint::Settings;
use crate::judge::{Embedder, Endpoint, Judge, Lexical, Local, Prompts};
use crate::plan::kind_of;
use crate::recipe::{self, EndpointJudge, LocalJudge};
use crate::rollout::{Manner, author_identity};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tch::Device;

/// A judge, and what makes vectors of the expertise that it finds, if anything does.
pub type Panel = (Box<dyn Judge>, Option<Embedder>);

/// The judge of a recipe. `answers`: the folder of an endpoint's answers; `device`: that of a local model; `stop`: set
/// by a signal.
///
/// # Errors
/// Bad input: a URL, key, prompt or model folder that cannot be used.
pub fn panel(settings: &recipe::Judge, answers: &Path, device: Device, stop: &Arc<AtomicBool>) -> Result<Panel> {
    match settings {
        recipe::Judge::Lexical => Ok((Box::new(Lexical), None)),
        recipe::Judge::Endpoint(settings) => endpoint(settings, answers, stop),
        recipe::Judge::Local(settings) => {
            let prompts = Prompts::new(settings.prompts.as_deref())?;
            let manner = Manner { device: Some(device), ..manner(settings) };
            let judge = Local::open(&settings.path, manner, prompts, Arc::clone(stop))?;
            let embedder = settings.embeddings.then(|| Embedder::local(judge.author()));
            Ok((Box::new(judge), embedder))
        }
    }
}

/// What the judgements of a recipe's judge depend on, and its embeddings, if there are any; without asking or loading
/// it.
///
/// # Errors
/// Bad input: prompts or a body that cannot be used.
pub fn identities(settings: &recipe::Judge) -> Result<(Value, Option<Value>)> {
    match settings {
        recipe::Judge::Lexical => Ok((Lexical.identity(), None)),
        recipe::Judge::Endpoint(settings) => {
            let prompts = Prompts::new(settings.prompts.as_deref())?;
            let judge = Endpoint::identity_of(&asked(settings)?, &prompts);
            Ok((judge, embedding(settings).map(|settings| Embedder::identity_of_endpoint(&settings))))
        }
        recipe::Judge::Local(settings) => {
            let model = author_identity(&settings.path, &manner(settings));
            let judge = Local::identity_of(&model, &Prompts::new(settings.prompts.as_deref())?);
            Ok((judge, settings.embeddings.then(|| Embedder::identity_of_local(&model))))
        }
    }
}

fn endpoint(settings: &EndpointJudge, answers: &Path, stop: &Arc<AtomicBool>) -> Result<Panel> {
    let asked = asked(settings)?;
    let key = asked.key()?;
    let prompts = Prompts::new(settings.prompts.as_deref())?;
    let judge = Endpoint::new(asked, key, prompts, answers, Arc::clone(stop))?;
    let embedder = embedding(settings).map(|settings| judge.beside(settings).map(Embedder::endpoint)).transpose()?;
    Ok((Box::new(judge), embedder))
}

/// Whether a judge has the key that it names; before anything is done that takes long.
///
/// # Errors
/// Bad input: it has not.
pub fn check_key(judge: &recipe::Judge) -> Result<()> {
    match judge {
        recipe::Judge::Endpoint(settings) => asked(settings)?.key().map(|_| ()),
        recipe::Judge::Lexical | recipe::Judge::Local(_) => Ok(()),
    }
}

/// How an endpoint is asked to judge.
pub fn asked(settings: &EndpointJudge) -> Result<Settings> {
    let body: Map<String, Value> =
        serde_json::from_str(&settings.body).context("hooks.persona.judge.body is not a JSON object").bad_input()?;
    Ok(to(settings, &settings.model, body))
}

/// How it is asked for embeddings, if it is.
fn embedding(settings: &EndpointJudge) -> Option<Settings> {
    settings.embeddings.as_ref().map(|model| to(settings, model, Map::new()))
}

fn to(settings: &EndpointJudge, model: &str, body: Map<String, Value>) -> Settings {
    Settings {
        key_env: settings.key_env.clone(),
        body,
        concurrency: settings.concurrency,
        timeout: Duration::from_secs_f64(settings.timeout),
        retries: settings.retries,
        backoff: Duration::from_secs_f64(settings.backoff),
        max_requests: settings.max_requests,
        max_tokens: settings.max_tokens,
        ..Settings::new(&settings.url, model)
    }
}

fn manner(settings: &LocalJudge) -> Manner {
    Manner {
        max_tokens: settings.max_tokens,
        batch: settings.batch,
        precision: kind_of(settings.precision),
        ..Manner::default()
    }
}
