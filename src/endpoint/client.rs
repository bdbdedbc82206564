//! Asking an OpenAI-compatible endpoint: `POST URL/chat/completions`, `POST URL/embeddings`.
//!
//! What may pass is tried again, waiting longer each time and at least as long as `Retry-After` asks: 408, 429, 5xx, a
//! connection that fails or breaks off, a reply that is late, too long or not what it should be. 400, 413 and 422 mean
//! this request only; any other status means all of them. Redirects are not followed, since they would take the key
//! elsewhere. A server that lets all tries of some time run out is gone: waiting for each of them as often as the
//! settings say would take hours. The key is sent and nothing else: it is cut out of whatever the server says.

use super::budget::Budget;
use super::refusal::Refusal;
use super::settings::Settings;
use super::wire::{
    CHAT, EMBEDDINGS, Fault, Place, Reply, backoff, message, reply_of, retry_after, usage_of, vectors_of,
};
use crate::bad;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use ureq::{Agent, Error};

/// Longest reply, in bytes.
const MAX_BODY: u64 = 4 << 20;
/// Longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Shortest key that is a secret. Servers that want none are given words such as `EMPTY`, which texts may hold.
const SECRET: usize = 8;
/// Requests in a row that fail for good before the server counts as gone.
const FAILURES: u64 = 8;

/// A server, and what is known of it.
pub struct Client {
    agent: Agent,
    place: Place,
    key: Option<String>,
    settings: Settings,
    budget: Arc<Budget>,
    stop: Arc<AtomicBool>,
    /// Requests in a row that failed for good.
    failures: AtomicU64,
    /// Tries in a row that nothing at all came back to in time.
    silences: AtomicU64,
}

impl Client {
    /// `key`: what the server wants to see; none for a server that wants none. `budget`: what every try is taken from,
    /// and paid from if a body comes back, whether it is of use or not.
    ///
    /// # Errors
    /// Bad input: a URL that is none, or with a password in it; a key that cannot be sent.
    pub fn new(settings: Settings, key: Option<String>, budget: Arc<Budget>, stop: Arc<AtomicBool>) -> Result<Self> {
        let place = Place::new(&settings.url)?;
        if key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(bad!("the key is empty or has characters that cannot be sent in a header"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout.min(Duration::from_secs(10))))
            .user_agent(concat!("ppo-train/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            place,
            key,
            settings,
            budget,
            stop,
            failures: AtomicU64::new(0),
            silences: AtomicU64::new(0),
        })
    }

    /// The same server with other settings, of which nothing is known yet.
    ///
    /// # Errors
    /// Bad input: a URL that is none, or with a password in it.
    pub fn beside(&self, settings: Settings, budget: Arc<Budget>) -> Result<Self> {
        Self::new(settings, self.key.clone(), budget, Arc::clone(&self.stop))
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where chats go, without what a query may hold.
    pub fn address(&self) -> String {
        self.place.shown(CHAT)
    }

    /// The reply to `messages`; `body` are the keys of the request besides the model.
    ///
    /// # Errors
    /// Why there is none, after as many tries as the settings say.
    pub fn chat(&self, messages: Value, body: &Map<String, Value>) -> Result<Reply, Refusal> {
        self.post(CHAT, ("messages", messages), body, reply_of)
    }

    /// The embeddings of `texts`.
    ///
    /// # Errors
    /// As `chat`.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Refusal> {
        self.post(EMBEDDINGS, ("input", json!(texts)), &self.settings.body, |text| vectors_of(text, texts.len()))
    }

    /// What `read` makes of the reply to one request, tried as often as the settings say.
    fn post<T>(
        &self,
        service: &str,
        (name, asked): (&str, Value),
        more: &Map<String, Value>,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        let mut body =
            Map::from_iter([("model".to_string(), self.settings.model.clone().into()), (name.to_string(), asked)]);
        body.extend(more.clone());
        let body = Value::Object(body).to_string();
        let mut attempt = 0;
        loop {
            if self.is_stopped() {
                return Err(Refusal::Stopped);
            }
            self.budget.take()?;
            let came = self.call(service, &body);
            if let Ok(text) = &came {
                self.budget.pay(usage_of(service, &body, text))?;
            }
            match came.and_then(|text| read(&text)) {
                Ok(reply) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Fault::Fatal(why)) => return Err(Refusal::Unusable(self.complaint(service, &why))),
                Err(Fault::Refused(why)) => return Err(self.failed(service, why)),
                Err(Fault::Passing(why, _)) if self.is_silent() => {
                    let tries = self.silences.load(Ordering::Relaxed);
                    let why = format!("{why}, nor to any of the {tries} last tries");
                    return Err(Refusal::Gone(self.complaint(service, &why)));
                }
                Err(Fault::Passing(why, _)) if attempt == self.settings.retries => {
                    return Err(self.failed(service, format!("{why} (tried {} times)", attempt + 1)));
                }
                Err(Fault::Passing(why, Some(wait))) if wait > MAX_WAIT => {
                    let wait = wait.as_secs();
                    return Err(Refusal::Gone(self.complaint(service, &format!("{why}, and asks to wait {wait} s"))));
                }
                Err(Fault::Passing(_, wait)) => {
                    let own = backoff(self.settings.backoff, attempt, body.len());
                    self.wait(own.max(wait.unwrap_or_default()))?;
                    attempt += 1;
                }
            }
        }
    }

    /// One try: the text of the reply's body.
    fn call(&self, service: &str, body: &str) -> Result<String, Fault> {
        let mut post = self.agent.post(self.place.of(service)).header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let sent = post.send(body);
        match &sent {
            Err(Error::Timeout(_)) => self.silences.fetch_add(1, Ordering::Relaxed),
            _ => self.silences.swap(0, Ordering::Relaxed),
        };
        let mut response = sent.map_err(|error| self.fault(&error))?;
        let status = response.status().as_u16();
        let wait = retry_after(&response, SystemTime::now());
        let text = response.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        let text = text.map(|text| self.without_key(&text));
        let said = || format!("status {status}{}", message(text.as_deref().unwrap_or_default()));
        match status {
            200..300 => text.map_err(|error| self.fault(&error)),
            408 | 429 | 500.. => Err(Fault::Passing(said(), wait)),
            400 | 413 | 422 => Err(Fault::Refused(said())),
            _ => Err(Fault::Fatal(said())),
        }
    }

    fn fault(&self, error: &Error) -> Fault {
        let why = match error {
            Error::Timeout(_) => format!("no reply within {} s", self.settings.timeout.as_secs_f64()),
            Error::BodyExceedsLimit(_) => format!("a reply of more than {MAX_BODY} bytes"),
            error => self.without_key(&error.to_string()),
        };
        match error {
            Error::Http(_) | Error::BadUri(_) | Error::InvalidProxyUrl | Error::Tls(_) | Error::Rustls(_) => {
                Fault::Fatal(why)
            }
            _ => Fault::Passing(why, None),
        }
    }

    /// A request that failed for good: alone, or as the last of too many.
    fn failed(&self, service: &str, why: String) -> Refusal {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return Refusal::Request(why);
        }
        Refusal::Gone(self.complaint(service, &format!("{FAILURES} requests in a row failed, the last with {why}")))
    }

    /// Whether the server says nothing any more: two tries of everybody who asks, and at least as many as requests
    /// that may fail.
    fn is_silent(&self) -> bool {
        let enough = FAILURES.max(2 * self.settings.concurrency as u64);
        self.silences.load(Ordering::Relaxed) >= enough
    }

    fn complaint(&self, service: &str, why: &str) -> String {
        let key = if self.key.is_none() && why.starts_with("status 401") { " (no key was sent)" } else { "" };
        format!("{}: {why}{key}", self.place.shown(service))
    }

    fn without_key(&self, text: &str) -> String {
        let secret = self.key.as_ref().filter(|key| key.len() >= SECRET);
        secret.map_or_else(|| text.to_string(), |key| text.replace(key, "[key]"))
    }

    /// Whether a signal asks to stop.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, unless a signal asks to stop.
    fn wait(&self, time: Duration) -> Result<(), Refusal> {
        let end = Instant::now() + time;
        loop {
            if self.is_stopped() {
                return Err(Refusal::Stopped);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
