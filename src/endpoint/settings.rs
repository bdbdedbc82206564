//! How an endpoint is asked.

use super::budget::Limits;
use crate::bad;
use anyhow::Result;
use serde_json::{Map, Value};
use std::env::VarError;
use std::time::Duration;

/// The variable that most servers' keys are in; many servers want none.
pub const USUAL_KEY: &str = "OPENAI_API_KEY";

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
    /// Most requests for the answers of a folder, retries included (none: no limit).
    pub max_requests: Option<u64>,
    /// Tokens of these requests, prompts and replies together, after which no further one is sent (none: no limit).
    pub max_tokens: Option<u64>,
}

impl Settings {
    /// The usual settings for a model at a URL.
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.to_string(),
            model: model.to_string(),
            key_env: USUAL_KEY.to_string(),
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

    /// The limits that they set, under the names of a recipe's keys.
    pub fn limits(&self) -> Limits {
        Limits { requests: self.max_requests, tokens: self.max_tokens, names: ["max_requests", "max_tokens"] }
    }

    /// The key of the environment. Without the usual variable none is sent; another one is named to be sent.
    ///
    /// # Errors
    /// Bad input: it is not text; it is not set, or empty, and not the usual one.
    pub fn key(&self) -> Result<Option<String>> {
        let name = &self.key_env;
        let key = match std::env::var(name) {
            Ok(key) => Some(key.trim().to_string()).filter(|key| !key.is_empty()),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => return Err(bad!("the environment variable {name} is not text")),
        };
        if key.is_none() && name != USUAL_KEY {
            return Err(bad!("the environment variable {name} is not set or empty, which is to hold the key"));
        }
        Ok(key)
    }
}

/// Keys of a body: `defaults`, and over them the user's, of which null takes one out.
pub fn body_over(mut defaults: Map<String, Value>, more: Map<String, Value>) -> Map<String, Value> {
    defaults.extend(more);
    defaults.retain(|_, value| !value.is_null());
    defaults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_named_must_be_there() {
        let key = |name: &str| Settings { key_env: name.into(), ..Settings::new("http://[::1]/v1", "tiny") }.key();
        let error = key("PPO_TRAIN_TEST_NO_SUCH_KEY").unwrap_err();
        assert!(error.is::<crate::BadInput>() && error.to_string().contains("PPO_TRAIN_TEST_NO_SUCH_KEY is not set"));
        if std::env::var_os(USUAL_KEY).is_none() {
            assert_eq!(key(USUAL_KEY).unwrap(), None);
        }
        if let Ok(path) = std::env::var("PATH") {
            assert_eq!(key("PATH").unwrap().as_deref(), Some(path.trim()));
        }
    }
}
