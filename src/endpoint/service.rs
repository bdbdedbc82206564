//! An endpoint with its budget and its answers on disk: what was asked before costs nothing and is answered the same.

use super::budget::{Budget, Spent};
use super::cache::Cache;
use super::client::Client;
use super::refusal::Refusal;
use super::settings::Settings;
use super::wire::Reply;
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An endpoint that is asked nothing twice.
pub struct Service {
    client: Client,
    cache: Cache,
    budget: Arc<Budget>,
    cached: AtomicU64,
}

/// What was said to a request.
pub struct Answer {
    pub reply: Reply,
    /// Whether it was on disk.
    pub is_known: bool,
    request: Value,
}

impl Service {
    /// `key`: what the server wants to see; none for a server that wants none. `cache`: the folder of answers, whose
    /// budget is that of the settings.
    ///
    /// # Errors
    /// Bad input: a URL or a key that cannot be used; what was spent on the answers cannot be read. The folder cannot
    /// be made.
    pub fn new(settings: Settings, key: Option<String>, cache: &Path, stop: Arc<AtomicBool>) -> Result<Self> {
        let budget = Arc::new(Budget::of(cache, settings.limits())?);
        let client = Client::new(settings, key, Arc::clone(&budget), stop)?;
        Ok(Self { client, cache: Cache::at(cache)?, budget, cached: AtomicU64::new(0) })
    }

    /// Another model of the same server, with the same key, answers and budget.
    ///
    /// # Errors
    /// Bad input: a URL that cannot be used.
    pub fn beside(&self, settings: Settings) -> Result<Self> {
        let budget = Arc::new(self.budget.beside());
        let client = self.client.beside(settings, Arc::clone(&budget))?;
        Ok(Self { client, cache: self.cache.clone(), budget, cached: AtomicU64::new(0) })
    }

    pub fn settings(&self) -> &Settings {
        self.client.settings()
    }

    /// Where chats go, without what a query may hold.
    pub fn address(&self) -> String {
        self.client.address()
    }

    /// What it has cost so far.
    pub fn spent(&self) -> Spent {
        self.budget.spent()
    }

    /// Answers that were on disk.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// The same in words.
    pub fn cost(&self) -> String {
        let spent = self.spent();
        let Spent { requests, prompt_tokens, completion_tokens, .. } = spent;
        let (about, cached) = (spent.about(), self.cached());
        let tokens = format!("{about}{prompt_tokens} tokens read and {about}{completion_tokens} written");
        format!("{requests} requests sent, {tokens}; {cached} answers were on disk")
    }

    /// The reply to `messages`; `body` are the keys of the request besides the model. `known`: whether one on disk will
    /// do. A new one is not kept: whether it is any use is for the caller to say.
    ///
    /// # Errors
    /// Why there is none.
    pub fn ask(&self, messages: &Value, body: &Map<String, Value>, known: bool) -> Result<Answer, Refusal> {
        let request = json!({ "model": self.settings().model, "body": body, "messages": messages });
        if let Some(reply) = if known { self.known(&request) } else { None } {
            return Ok(Answer { reply, is_known: true, request });
        }
        let reply = self.client.chat(messages.clone(), body)?;
        Ok(Answer { reply, is_known: false, request })
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, answer: &Answer) -> Result<(), Refusal> {
        if answer.is_known { Ok(()) } else { self.write(&answer.request, &answer.reply) }
    }

    /// The embeddings of `texts`, in order, all of the same length; at most `together` of them in a request. Each text
    /// is kept by itself.
    ///
    /// # Errors
    /// Why there are none.
    pub fn embed(&self, texts: &[String], together: usize) -> Result<Vec<Vec<f32>>, Refusal> {
        let Settings { model, body, .. } = self.settings();
        let request = |text: &str| json!({ "model": model, "body": body, "input": text });
        let mut found: Vec<Option<Vec<f32>>> = texts.iter().map(|text| self.known(&request(text))).collect();
        let missing: Vec<usize> = (0..texts.len()).filter(|&at| found[at].is_none()).collect();
        for part in missing.chunks(together.max(1)) {
            let asked: Vec<&str> = part.iter().map(|&at| texts[at].as_str()).collect();
            for (&at, vector) in part.iter().zip(self.client.embed(&asked)?) {
                self.write(&request(&texts[at]), &vector)?;
                found[at] = Some(vector);
            }
        }
        let vectors: Vec<Vec<f32>> = found.into_iter().flatten().collect();
        if vectors.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
            return Err(Refusal::Unusable("the embeddings of one model differ in length".into()));
        }
        Ok(vectors)
    }

    fn known<T: DeserializeOwned>(&self, request: &Value) -> Option<T> {
        let reply = self.cache.get(request)?;
        self.cached.fetch_add(1, Ordering::Relaxed);
        Some(reply)
    }

    fn write(&self, request: &Value, reply: &impl Serialize) -> Result<(), Refusal> {
        self.cache.put(request, reply).map_err(|error| Refusal::Gone(format!("{error:#}")))
    }
}
