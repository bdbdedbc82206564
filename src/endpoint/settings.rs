//! How an endpoint is asked.

use super::budget::Budget;
use crate::bad;
use anyhow::Result;
use serde_json::{Map, Value};
use std::env::VarError;
use std::time::Duration;

/// How an endpoint is asked. The key itself is not among the settings, which may be printed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Up to the version, such as `https://example.org/v1`; the path of a service may follow.
    pub url: String,
    pub model: String,
    /// The environment variable that holds the key.
    pub key_env: String,
    /// Keys of each request's body, besides the model and what is asked.
    pub body: Map<String, Value>,
    /// Requests at a time.
    pub concurrency: usize,
    /// Longest time from connecting to the reply's last byte.
    pub timeout: Duration,
    /// Further tries after the first.
    pub retries: u32,
    /// Wait before the first further try, doubled for each one that follows.
    pub backoff: Duration,
    /// Most requests, retries included (none: no limit).
    pub max_requests: Option<u64>,
    /// Tokens, prompts and replies together, after which no further request is sent (none: no limit).
    pub max_tokens: Option<u64>,
}

impl Settings {
    /// The usual settings for a model at a URL.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.to_string(),
            model: model.to_string(),
            key_env: "OPENAI_API_KEY".to_string(),
            body: Map::new(),
            concurrency: 8,
            timeout: Duration::from_secs(300),
            retries: 5,
            backoff: Duration::from_secs(1),
            max_requests: None,
            max_tokens: None,
        }
    }

    /// Whether the server is on this machine.
    pub fn is_here(&self) -> bool {
        let host = self.url.split("://").nth(1).unwrap_or_default();
        ["localhost", "127.", "[::1]", "0.0.0.0"].iter().any(|own| host.starts_with(own))
    }

    /// The budget that they set, unspent.
    pub fn budget(&self) -> Budget {
        Budget::new(self.max_requests, self.max_tokens)
    }

    /// The key of the environment, if there is one.
    ///
    /// # Errors
    /// Bad input: it is not text.
    pub fn key(&self) -> Result<Option<String>> {
        let name = &self.key_env;
        match std::env::var(name) {
            Ok(key) => Ok(Some(key.trim().to_string()).filter(|key| !key.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(bad!("the environment variable {name} is not text")),
        }
    }
}

/// Keys of a body: `defaults`, and over them the user's, of which null takes one out.
pub fn body_over(mut defaults: Map<String, Value>, more: Map<String, Value>) -> Map<String, Value> {
    defaults.extend(more);
    defaults.retain(|_, value| !value.is_null());
    defaults
}
