//! A teacher behind an OpenAI-compatible endpoint: `POST URL/chat/completions`.
//!
//! What may pass is tried again, waiting longer each time and at least as long as `Retry-After` asks: 408, 429, 5xx, a
//! connection that fails or breaks off, a reply that is late, too long or not what it should be. 400, 413 and 422 mean
//! this request only; any other status means all of them. Redirects are not followed, since they would take the key
//! elsewhere. The key is sent and nothing else: it is cut out of whatever the server says.

use super::budget::Budget;
use super::interface::{Refusal, Reply, Request, Teacher};
use crate::bad;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Error};

/// Longest reply, in bytes.
const MAX_BODY: u64 = 4 << 20;
/// Longest wait between two tries without being asked to.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Shortest key that is a secret. Servers that want none are given words such as `EMPTY`, which texts may hold.
const SECRET: usize = 8;
/// Requests in a row that fail for good before the teacher counts as gone.
const FAILURES: u64 = 8;

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// With `/chat/completions` or without.
    pub url: String,
    pub model: String,
    /// Keys of each request's body, besides `model` and `messages`.
    pub body: Map<String, Value>,
    /// Longest time from connecting to the reply's last byte.
    pub timeout: Duration,
    /// Further tries after the first.
    pub retries: u32,
    /// Wait before the first further try, doubled for each one that follows.
    pub backoff: Duration,
}

/// A server, and what is known of it.
pub struct Server {
    agent: Agent,
    url: String,
    key: Option<String>,
    settings: Settings,
    budget: Arc<Budget>,
    stop: Arc<AtomicBool>,
    /// Requests in a row that failed for good.
    failures: AtomicU64,
}

/// Why a try failed.
enum Fault {
    /// It may pass; how long the server asks to wait.
    Passing(String, Option<Duration>),
    Refused(String),
    Fatal(String),
}

impl Server {
    /// `key`: what the server wants to see; none for a server that wants none.
    ///
    /// # Errors
    /// Bad input: a URL that is none, or with a password in it; a key that cannot be sent.
    pub fn new(settings: Settings, key: Option<String>, budget: Arc<Budget>, stop: Arc<AtomicBool>) -> Result<Self> {
        let url = endpoint(&settings.url)?;
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
            url,
            key,
            settings,
            budget,
            stop,
            failures: AtomicU64::new(0),
        })
    }

    /// Where the questions go, without what a query may hold.
    pub fn address(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }

    /// One question, tried as often as the settings say.
    fn ask_one(&self, request: &Request) -> Result<Reply, Refusal> {
        let mut body = Map::from_iter([
            ("model".to_string(), self.settings.model.clone().into()),
            ("messages".to_string(), json!([{ "role": "user", "content": request.prompt }])),
        ]);
        body.extend(self.settings.body.clone());
        if let Some(seed) = body.get_mut("seed").filter(|seed| seed.is_u64()) {
            *seed = seed.as_u64().unwrap_or(0).wrapping_add(request.attempt).into();
        }
        let body = Value::Object(body).to_string();
        let mut attempt = 0;
        loop {
            match self.call(&body) {
                Ok(reply) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Fault::Fatal(why)) => return Err(Refusal::Teacher(self.complaint(&why))),
                Err(Fault::Refused(why)) => return Err(self.failed(why)),
                Err(Fault::Passing(why, _)) if attempt == self.settings.retries => {
                    return Err(self.failed(format!("{why} (tried {} times)", attempt + 1)));
                }
                Err(Fault::Passing(why, Some(wait))) if wait > MAX_WAIT => {
                    let wait = wait.as_secs();
                    return Err(Refusal::Gone(self.complaint(&format!("{why}, and asks to wait {wait} s"))));
                }
                Err(Fault::Passing(_, wait)) => {
                    let own = backoff(self.settings.backoff, attempt, body.len());
                    self.wait(own.max(wait.unwrap_or_default()))?;
                    self.budget.take()?;
                    attempt += 1;
                }
            }
        }
    }

    /// One try.
    fn call(&self, body: &str) -> Result<Reply, Fault> {
        let mut post = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let mut response = post.send(body).map_err(|error| self.fault(&error))?;
        let status = response.status().as_u16();
        let wait = retry_after(&response, SystemTime::now());
        let text = response.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        let text = text.map(|text| self.without_key(&text));
        let said = || format!("status {status}{}", message(text.as_deref().unwrap_or_default()));
        match status {
            200..300 => reply_of(&text.map_err(|error| self.fault(&error))?),
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
    fn failed(&self, why: String) -> Refusal {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return Refusal::Request(why);
        }
        Refusal::Gone(self.complaint(&format!("{FAILURES} requests in a row failed, the last with {why}")))
    }

    fn complaint(&self, why: &str) -> String {
        let key = if self.key.is_none() && why.starts_with("status 401") { " (no key was sent)" } else { "" };
        format!("{}: {why}{key}", self.address())
    }

    fn without_key(&self, text: &str) -> String {
        let secret = self.key.as_ref().filter(|key| key.len() >= SECRET);
        secret.map_or_else(|| text.to_string(), |key| text.replace(key, "[key]"))
    }

    /// Waits, unless a signal asks to stop.
    fn wait(&self, time: Duration) -> Result<(), Refusal> {
        let end = Instant::now() + time;
        loop {
            if self.stop.load(Ordering::Relaxed) {
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

impl Teacher for Server {
    fn identity(&self) -> Value {
        json!({ "model": self.settings.model, "body": self.settings.body })
    }

    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        requests.iter().map(|request| self.ask_one(request)).collect()
    }
}

/// The URL to post to.
fn endpoint(url: &str) -> Result<String> {
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(bad!("the URL `{url}` does not begin with http:// or https://"));
    }
    let uri: Uri = url.parse().map_err(|error| bad!("`{url}` is not a URL: {error}"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad!("the URL has a user or a password in it: put the key in the environment instead"));
    }
    let (path, query) = url.split_once('?').map_or((url, String::new()), |(path, query)| (path, format!("?{query}")));
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/chat/completions").unwrap_or(path);
    Ok(format!("{path}/chat/completions{query}"))
}

/// How long to wait before try number `attempt + 2`: doubled each time, of which a part between a half and all, so that
/// requests that failed together do not come back together; `salt` decides which.
fn backoff(first: Duration, attempt: u32, salt: usize) -> Duration {
    let whole = first.saturating_mul(1 << attempt.min(16)).min(MAX_BACKOFF);
    let part = (salt as u64 + u64::from(attempt)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    whole.mul_f64(0.5 + 0.5 * part as f64 / 65_536.0)
}

/// What `Retry-After` asks for: seconds, or a date.
fn retry_after(response: &Response<Body>, now: SystemTime) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let seconds = text.parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    seconds.or_else(|| httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()))
}

/// What a server says about an error: `: MESSAGE`, at most 300 characters of it.
fn message(body: &str) -> String {
    let parsed = serde_json::from_str::<Value>(body).unwrap_or_default();
    let places = [&parsed["error"]["message"], &parsed["message"], &parsed["error"], &parsed["detail"]];
    let said = places.into_iter().find_map(Value::as_str).unwrap_or(body);
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    if said.is_empty() { said } else { format!(": {said}") }
}

/// The reply in a body.
fn reply_of(text: &str) -> Result<Reply, Fault> {
    let passing = |why: String| Fault::Passing(why, None);
    let value: Value =
        serde_json::from_str(text).map_err(|_| passing(format!("a reply that is not JSON{}", message(text))))?;
    let choice = &value["choices"][0];
    if choice["finish_reason"] == "content_filter" {
        return Err(Fault::Refused("the server's content filter".into()));
    }
    let Some(content) = choice["message"]["content"].as_str() else {
        return Err(passing(format!("a reply without choices[0].message.content{}", message(text))));
    };
    let tokens = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
    Ok(Reply {
        text: content.to_string(),
        cut: choice["finish_reason"] == "length",
        prompt_tokens: tokens("prompt_tokens"),
        completion_tokens: tokens("completion_tokens"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_the_endpoint_or_say_what_is_wrong() {
        for (url, expected) in [
            ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
            ("https://example.org/v1/", "https://example.org/v1/chat/completions"),
            ("https://example.org/v1/chat/completions", "https://example.org/v1/chat/completions"),
            ("https://example.org/a?version=1", "https://example.org/a/chat/completions?version=1"),
        ] {
            assert_eq!(endpoint(url).unwrap(), expected);
        }
        for (url, message) in [
            ("example.org/v1", "does not begin with http:// or https://"),
            ("ftp://example.org", "does not begin with http:// or https://"),
            ("https://me:secret@example.org", "has a user or a password in it"),
            ("http://a b", "is not a URL"),
        ] {
            let error = endpoint(url).unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn waits_double_and_differ() {
        let first = Duration::from_secs(1);
        for (attempt, whole) in [(0, 1.0), (1, 2.0), (3, 8.0), (6, 60.0), (40, 60.0)] {
            for salt in [0, 1, 999] {
                let wait = backoff(first, attempt, salt).as_secs_f64();
                assert!((0.5 * whole..=whole).contains(&wait), "{attempt} {salt}: {wait}");
            }
        }
        assert_ne!(backoff(first, 2, 10), backoff(first, 2, 11));
    }

    #[test]
    fn servers_may_ask_for_a_wait() {
        let asked = |value: &str| {
            let response = Response::builder().header("retry-after", value).body(Body::builder().data("")).unwrap();
            let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
            retry_after(&response, now).map(|wait| wait.as_secs_f64())
        };
        assert_eq!((asked("7"), asked("0.5"), asked("-1"), asked("soon")), (Some(7.0), Some(0.5), None, None));
        assert_eq!(asked("Wed, 21 Oct 2026 07:29:30 GMT"), Some(90.0));
        assert_eq!(asked("Wed, 21 Oct 2026 07:27:00 GMT"), Some(0.0));
    }

    #[test]
    fn what_a_server_says_is_shown_short() {
        assert_eq!(message(r#"{"error": {"message": "no such\n model"}}"#), ": no such model");
        assert_eq!(message(r#"{"error": "busy"}"#), ": busy");
        assert_eq!(message("<html>\u{1b}[2J"), ": <html>[2J");
        assert_eq!(message(""), "");
        assert_eq!(message(&"é".repeat(1000)).chars().count(), 302);
    }
}
