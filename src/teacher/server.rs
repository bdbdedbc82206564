//! A teacher behind an OpenAI-compatible endpoint. A prompt is a user message; a seed in the settings is another one
//! for each further attempt.

use super::interface::{Refusal, Reply, Request, Teacher};
use crate::endpoint::{Budget, Client, Settings};
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A server that solves problems.
pub struct Server {
    client: Client,
}

impl Server {
    /// `key`: what the server wants to see; none for a server that wants none. `budget`: what requests are taken from.
    ///
    /// # Errors
    /// Bad input: a URL that is none, or with a password in it; a key that cannot be sent.
    pub fn new(settings: Settings, key: Option<String>, budget: Arc<Budget>, stop: Arc<AtomicBool>) -> Result<Self> {
        Ok(Self { client: Client::new(settings, key, budget, stop)? })
    }

    /// Where the questions go, without what a query may hold.
    pub fn address(&self) -> String {
        self.client.address()
    }

    fn ask_one(&self, request: &Request) -> Result<Reply, Refusal> {
        let mut body = self.client.settings().body.clone();
        if let Some(seed) = body.get_mut("seed").filter(|seed| seed.is_u64()) {
            *seed = seed.as_u64().unwrap_or(0).wrapping_add(request.attempt).into();
        }
        self.client.chat(json!([{ "role": "user", "content": request.prompt }]), &body)
    }
}

impl Teacher for Server {
    fn identity(&self) -> Value {
        let settings = self.client.settings();
        json!({ "model": settings.model, "body": settings.body })
    }

    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        requests.iter().map(|request| self.ask_one(request)).collect()
    }
}
