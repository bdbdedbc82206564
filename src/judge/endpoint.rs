//! A judge behind an OpenAI-compatible endpoint.
//!
//! A reply that is not what was asked for is sent back once, with what is wrong with it. If the next one is not either,
//! that part of the judgement is missing, and nothing about it is made up. A question that the server refuses, or does
//! not answer, is the last about its trace: the others hold the same text. Replies that led to an answer are kept on
//! disk, so that judging again costs nothing and says the same; others are not, so that it may help.

use super::interface::{Judge, Judgement, Refusal, Trace};
use super::prompts::{Prompts, Question};
use super::reading::Reading;
use crate::endpoint::{self, Answer, Service, Settings, Spent, body_over, each};
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
    /// folder of answers, which the budget belongs to. In `settings.body`, null takes out what we send by ourselves:
    /// `temperature` 0 and `max_tokens` 2048. A `response_format` of `"json_schema"` becomes that of each question, for
    /// servers that can hold a model to one.
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
        let body = whole_body(&settings);
        let service = Service::new(settings, key, cache, Arc::clone(&stop))?;
        Ok(Self { asker: Arc::new(Asker { service, prompts, body }), stop })
    }

    /// What the judgements of such a judge depend on besides the trace.
    pub fn identity_of(settings: &Settings, prompts: &Prompts) -> Value {
        identity(&settings.model, &whole_body(settings), prompts)
    }

    /// Where the questions go, without what a query may hold.
    pub fn address(&self) -> String {
        self.asker.service.address()
    }

    /// Another model of the same server, such as one of embeddings, with the same key, answers and budget.
    ///
    /// # Errors
    /// Bad input: a URL that cannot be used.
    pub fn beside(&self, settings: Settings) -> Result<Service> {
        self.asker.service.beside(settings)
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

/// The user's keys of a body over ours.
fn whole_body(settings: &Settings) -> Map<String, Value> {
    let defaults = [("temperature".to_string(), json!(0)), ("max_tokens".to_string(), json!(2048))];
    body_over(Map::from_iter(defaults), settings.body.clone())
}

fn identity(model: &str, body: &Map<String, Value>, prompts: &Prompts) -> Value {
    json!({ "kind": "endpoint", "model": model, "body": body, "prompts": prompts.hash() })
}

impl Judge for Endpoint {
    fn identity(&self) -> Value {
        let Asker { service, prompts, body } = &*self.asker;
        identity(&service.settings().model, body, prompts)
    }

    fn cost(&self) -> Option<String> {
        Some(self.asker.service.cost())
    }

    /// If the budget ends, or the server goes away, after some of the traces, the others are refused. A budget that is
    /// spent before any is bad input: another try would find no more of it.
    fn judge(&self, traces: &[Trace]) -> Result<Vec<Result<Judgement, Refusal>>> {
        let (asker, all) = (Arc::clone(&self.asker), traces.to_vec());
        let threads = asker.service.settings().concurrency;
        let (done, ended) = each(traces.len(), threads, &self.stop, move |at| asker.judge(&all[at]));
        let why = match ended {
            None => String::new(),
            Some(endpoint::Refusal::Stopped) => return Err(Stopped("what was judged is not asked for again").into()),
            Some(endpoint::Refusal::Unusable(why)) => return Err(bad!("{why}")),
            Some(other) if done.iter().any(Option::is_some) => other.to_string(),
            Some(endpoint::Refusal::Budget(why)) => return Err(bad!("{why}")),
            Some(other) => return Err(anyhow!("{other}")),
        };
        Ok(done.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(Refusal(why.clone())))).collect())
    }
}

impl Asker {
    /// Judges a trace, or says why that cannot be done: of this trace, or, the outer error, of any more.
    fn judge(&self, trace: &Trace) -> Result<Result<Judgement, Refusal>, endpoint::Refusal> {
        let mut reading = Reading::new(trace);
        let mut unanswered = None;
        for question in Question::ALL {
            if !reading.asks(question) {
                continue;
            }
            if let Some(why) = &unanswered {
                reading.miss(question, String::clone(why));
                continue;
            }
            let unusable = |error: anyhow::Error| endpoint::Refusal::Unusable(format!("{error:#}"));
            let prompt = reading.prompt(&self.prompts, question).map_err(unusable)?;
            let asked =
                Asked { question, prompt, schema: reading.schema(question), accepts: reading.accepts(question) };
            match self.ask(&asked) {
                Ok(Ok(reply)) => reading.take(question, &reply).map_err(unusable)?,
                Ok(Err(why)) => reading.miss(question, why),
                Err(endpoint::Refusal::Request(why)) => {
                    reading.miss(question, why.clone());
                    unanswered = Some(why);
                }
                Err(ends) => return Err(ends),
            }
        }
        Ok(reading.judgement())
    }

    /// The reply to a question, or what is wrong with it. What earlier processes were told counts if it can be used.
    fn ask(&self, asked: &Asked) -> Result<Result<Value, String>, endpoint::Refusal> {
        let (found, fresh) = self.ask_once(asked, true)?;
        if found.is_ok() || fresh { Ok(found) } else { Ok(self.ask_once(asked, false)?.0) }
    }

    /// The reply, after one more try if it does not fit; or what is wrong with the second one; and whether all replies
    /// are new. `known`: whether they may come from the disk.
    fn ask_once(&self, asked: &Asked, known: bool) -> Result<(Result<Value, String>, bool), endpoint::Refusal> {
        let mut body = self.body.clone();
        if let Some(format) = body.get_mut("response_format").filter(|format| *format == "json_schema") {
            let schema = json!({ "name": asked.question.name(), "strict": true, "schema": asked.schema.json_schema() });
            *format = json!({ "type": "json_schema", "json_schema": schema });
        }
        let user = |text: &str| json!({ "role": "user", "content": text });
        let mut messages = vec![user(&asked.prompt)];
        let mut answers: Vec<Answer> = vec![];
        loop {
            let answer = self.service.ask(&Value::from(messages.clone()), &body, known)?;
            let reply = &answer.reply;
            let cut = "it was cut off at the longest length";
            let found = if reply.cut { Err(cut.to_string()) } else { find(&reply.text, &asked.accepts) };
            let said = reply.text.clone();
            answers.push(answer);
            match found {
                Err(why) if messages.len() == 1 => {
                    let repair = self.prompts.repair(&why);
                    let repair = repair.map_err(|error| endpoint::Refusal::Unusable(format!("{error:#}")))?;
                    messages.extend([json!({ "role": "assistant", "content": said }), user(&repair)]);
                }
                found => {
                    if found.is_ok() {
                        answers.iter().try_for_each(|answer| self.service.keep(answer))?;
                    }
                    return Ok((found, answers.iter().all(|answer| !answer.is_known)));
                }
            }
        }
    }
}

/// A question about a trace.
struct Asked {
    question: Question,
    prompt: String,
    /// What the reply is to look like, and what is accepted.
    schema: Schema,
    accepts: Schema,
}
