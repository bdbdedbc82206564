//! A judge behind an OpenAI-compatible endpoint.
//!
//! A reply that is not what was asked for is sent back once, with what is wrong with it. If the next one is not either,
//! the trace is refused: it counts as missing, and nothing about it is made up. Every reply is kept on disk, the
//! unusable ones too, so that judging again costs nothing and says the same.

use super::interface::{Judge, Judgement, Refusal, Trace};
use super::prompts::{Prompts, Question};
use super::reading::Reading;
use crate::endpoint::{self, Service, Settings, Spent, body_over, each};
use crate::grammar::{Schema, find};
use crate::{Stopped, bad};
use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model behind a URL that judges traces.
pub struct Endpoint {
    asker: Arc<Asker>,
    stop: Arc<AtomicBool>,
}

/// What the threads share.
struct Asker {
    service: Service,
    prompts: Prompts,
    body: Map<String, Value>,
}

impl Endpoint {
    /// `key`: what the server wants to see, such as `settings.key()`; none for a server that wants none. `cache`: the
    /// folder of answers. In `settings.body`, null takes out what we send by ourselves: `temperature` 0 and
    /// `max_tokens` 2048. A `response_format` of `"json_schema"` becomes that of each question, for servers that can
    /// hold a model to one.
    ///
    /// # Errors
    /// Bad input: a URL or a key that cannot be used. The folder cannot be made.
    pub fn new(
        settings: Settings,
        key: Option<String>,
        prompts: Prompts,
        cache: &Path,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let defaults = [("temperature".to_string(), json!(0)), ("max_tokens".to_string(), json!(2048))];
        let body = body_over(Map::from_iter(defaults), settings.body.clone());
        let service = Service::new(settings, key, cache, Arc::clone(&stop))?;
        Ok(Self { asker: Arc::new(Asker { service, prompts, body }), stop })
    }

    /// Where the questions go, without what a query may hold.
    pub fn address(&self) -> String {
        self.asker.service.address()
    }

    /// What judging has cost so far.
    pub fn spent(&self) -> Spent {
        self.asker.service.spent()
    }

    /// Answers that were on disk.
    pub fn cached(&self) -> u64 {
        self.asker.service.cached()
    }
}

impl Judge for Endpoint {
    fn identity(&self) -> Value {
        let Asker { service, prompts, body } = &*self.asker;
        json!({ "kind": "endpoint", "model": service.settings().model, "body": body, "prompts": prompts.hash() })
    }

    /// If the budget ends, or the server goes away, after some of the traces, the others are refused.
    fn judge(&self, traces: &[Trace]) -> Result<Vec<Result<Judgement, Refusal>>> {
        let (asker, all) = (Arc::clone(&self.asker), traces.to_vec());
        let threads = asker.service.settings().concurrency;
        let (done, ended) = each(traces.len(), threads, &self.stop, move |at| asker.judge(&all[at]));
        let why = match ended {
            None => String::new(),
            Some(endpoint::Refusal::Stopped) => return Err(Stopped("what was judged is not asked for again").into()),
            Some(endpoint::Refusal::Unusable(why)) => return Err(bad!("{why}")),
            Some(other) if done.iter().all(Option::is_none) => return Err(anyhow!("{other}")),
            Some(other) => other.to_string(),
        };
        Ok(done.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(Refusal(why.clone())))).collect())
    }
}

impl Asker {
    /// Judges a trace, or says why that cannot be done: of this trace, or, the outer error, of any more.
    fn judge(&self, trace: &Trace) -> Result<Result<Judgement, Refusal>, endpoint::Refusal> {
        let mut reading = match Reading::new(trace) {
            Ok(reading) => reading,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for question in Question::ALL {
            if !reading.asks(question) {
                continue;
            }
            let unusable = |error: anyhow::Error| endpoint::Refusal::Unusable(format!("{error:#}"));
            let prompt = reading.prompt(&self.prompts, question).map_err(unusable)?;
            match self.ask(prompt, &reading.schema(question), question) {
                Ok(Ok(reply)) => reading.take(question, &reply).map_err(unusable)?,
                Ok(Err(why)) | Err(endpoint::Refusal::Request(why)) => {
                    return Ok(Err(Refusal(format!("{}: {why}", question.name()))));
                }
                Err(ends) => return Err(ends),
            }
        }
        Ok(Ok(reading.judgement()))
    }

    /// The reply to a question, after one more try if it does not fit; or what is wrong with the second one.
    fn ask(
        &self,
        prompt: String,
        schema: &Schema,
        question: Question,
    ) -> Result<Result<Value, String>, endpoint::Refusal> {
        let mut body = self.body.clone();
        if let Some(format) = body.get_mut("response_format").filter(|format| *format == "json_schema") {
            let schema = json!({ "name": question.name(), "strict": true, "schema": schema.json_schema() });
            *format = json!({ "type": "json_schema", "json_schema": schema });
        }
        let user = |text: String| json!({ "role": "user", "content": text });
        let mut messages = vec![user(prompt)];
        loop {
            let reply = self.service.chat(&Value::from(messages.clone()), &body)?;
            let cut = "it was cut off at the longest length";
            let found = if reply.cut { Err(cut.to_string()) } else { find(&reply.text, schema) };
            match found {
                Err(why) if messages.len() == 1 => {
                    let repair = self.prompts.repair(&why);
                    let repair = repair.map_err(|error| endpoint::Refusal::Unusable(format!("{error:#}")))?;
                    messages.extend([json!({ "role": "assistant", "content": reply.text }), user(repair)]);
                }
                found => return Ok(found),
            }
        }
    }
}
