//! What goes over the wire: where requests are sent, how long to wait between them, what servers say, and what it cost.

use super::budget::Spent;
use crate::bad;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use ureq::Body;
use ureq::http::{Response, Uri};

/// Longest wait between two tries without being asked to.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Bytes of a token that no server has counted.
const TOKEN: u64 = 4;

/// What is posted to, below the endpoint's URL.
pub const CHAT: &str = "/chat/completions";
/// As `CHAT`.
pub const EMBEDDINGS: &str = "/embeddings";

/// What a model wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reply {
    pub text: String,
    /// Whether it was cut off at the longest length.
    pub cut: bool,
}

/// Why a try failed.
#[derive(Debug)]
pub enum Fault {
    /// It may pass; how long the server asks to wait.
    Passing(String, Option<Duration>),
    Refused(String),
    Fatal(String),
}

/// Where an endpoint is: its URL in two parts, between which the path of a service goes.
pub struct Place {
    path: String,
    query: String,
}

impl Place {
    /// # Errors
    /// Bad input: a URL that is none, or with a password in it.
    pub fn new(url: &str) -> Result<Self> {
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(bad!("the URL `{url}` does not begin with http:// or https://"));
        }
        let uri: Uri = url.parse().map_err(|error| bad!("`{url}` is not a URL: {error}"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad!("the URL has a user or a password in it: put the key in the environment instead"));
        }
        let (path, query) =
            url.split_once('?').map_or((url, String::new()), |(path, query)| (path, format!("?{query}")));
        let path = path.trim_end_matches('/');
        let path = [CHAT, EMBEDDINGS].iter().find_map(|service| path.strip_suffix(service)).unwrap_or(path);
        Ok(Self { path: path.to_string(), query })
    }

    /// The URL of a service.
    pub fn of(&self, service: &str) -> String {
        format!("{}{service}{}", self.path, self.query)
    }

    /// The same for people: without what a query may hold.
    pub fn shown(&self, service: &str) -> String {
        format!("{}{service}", self.path)
    }
}

/// Whether an endpoint can be at a URL.
///
/// # Errors
/// Bad input: it is none, or has a password in it.
pub fn check_url(url: &str) -> Result<()> {
    Place::new(url).map(drop)
}

/// How long to wait before try number `attempt + 2`: doubled each time, of which a part between a half and all, so that
/// requests that failed together do not come back together; `salt` decides which.
pub fn backoff(first: Duration, attempt: u32, salt: usize) -> Duration {
    let whole = first.saturating_mul(1 << attempt.min(16)).min(MAX_BACKOFF);
    let part = (salt as u64 + u64::from(attempt)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    whole.mul_f64(0.5 + 0.5 * part as f64 / 65_536.0)
}

/// What `Retry-After` asks for: seconds, or a date.
pub fn retry_after(response: &Response<Body>, now: SystemTime) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let seconds = text.parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    seconds.or_else(|| httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()))
}

/// What a server says about an error: `: MESSAGE`, at most 300 characters of it.
pub fn message(body: &str) -> String {
    let parsed = serde_json::from_str::<Value>(body).unwrap_or_default();
    let places = [&parsed["error"]["message"], &parsed["message"], &parsed["error"], &parsed["detail"]];
    let said = places.into_iter().find_map(Value::as_str).unwrap_or(body);
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    if said.is_empty() { said } else { format!(": {said}") }
}

/// A body as JSON.
///
/// # Errors
/// A passing fault: it is none.
pub fn parsed(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|_| Fault::Passing(format!("a reply that is not JSON{}", message(text)), None))
}

/// The reply in the body of a chat completion.
///
/// # Errors
/// A passing fault: there is none; what the server filtered is refused.
pub fn reply_of(text: &str) -> Result<Reply, Fault> {
    let value = parsed(text)?;
    let choice = &value["choices"][0];
    if choice["finish_reason"] == "content_filter" {
        return Err(Fault::Refused("the server's content filter".into()));
    }
    let Some(content) = choice["message"]["content"].as_str() else {
        let why = format!("a reply without choices[0].message.content{}", message(text));
        return Err(Fault::Passing(why, None));
    };
    Ok(Reply { text: content.to_string(), cut: choice["finish_reason"] == "length" })
}

/// What a request to a service and the body that came back cost, by the server's own count of tokens. Where it has
/// none, or one that cannot be (less than 1, or no integer), it is estimated from the bytes of both. Embeddings are not
/// written in tokens.
pub fn usage_of(service: &str, request: &str, body: &str) -> Spent {
    let value = serde_json::from_str::<Value>(body).unwrap_or_default();
    let counted = |name: &str| value["usage"][name].as_u64().filter(|tokens| *tokens > 0);
    let estimate = |text: &str| (text.len() as u64).div_ceil(TOKEN);
    let prompt = counted("prompt_tokens");
    let completion = if service == EMBEDDINGS { Some(0) } else { counted("completion_tokens") };
    Spent {
        requests: 0,
        prompt_tokens: prompt.unwrap_or_else(|| estimate(request)),
        completion_tokens: completion.unwrap_or_else(|| estimate(body)),
        estimated: prompt.is_none() || completion.is_none(),
    }
}

/// The embeddings in a body, in the order of the texts that were asked about.
///
/// # Errors
/// A passing fault: there are none, or not of this many texts.
pub fn vectors_of(text: &str, texts: usize) -> Result<Vec<Vec<f32>>, Fault> {
    let value = parsed(text)?;
    let mut all: Vec<Option<Vec<f32>>> = vec![None; texts];
    for (at, entry) in value["data"].as_array().into_iter().flatten().enumerate() {
        let numbers = entry["embedding"].as_array().into_iter().flatten();
        let vector: Option<Vec<f32>> = numbers.map(|number| number.as_f64().map(|number| number as f32)).collect();
        let vector = vector.filter(|vector| !vector.is_empty() && vector.iter().all(|number| number.is_finite()));
        let index = entry["index"].as_u64().map_or(at, |index| index as usize);
        if let (Some(place), Some(vector)) = (all.get_mut(index), vector) {
            *place = Some(vector);
        }
    }
    let why = || format!("a reply without {texts} embeddings in data{}", message(text));
    all.into_iter().collect::<Option<_>>().ok_or_else(|| Fault::Passing(why(), None))
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
            ("https://example.org/v1/embeddings", "https://example.org/v1/chat/completions"),
            ("https://example.org/a?version=1", "https://example.org/a/chat/completions?version=1"),
        ] {
            assert_eq!(Place::new(url).unwrap().of(CHAT), expected);
        }
        for (url, message) in [
            ("example.org/v1", "does not begin with http:// or https://"),
            ("ftp://example.org", "does not begin with http:// or https://"),
            ("https://me:secret@example.org", "has a user or a password in it"),
            ("http://a b", "is not a URL"),
        ] {
            let error = Place::new(url).err().unwrap().to_string();
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

    #[test]
    fn tokens_that_no_server_counts_are_estimated() {
        let spent = |prompt: u64, completion: u64, estimated: bool| Spent {
            requests: 0,
            prompt_tokens: prompt,
            completion_tokens: completion,
            estimated,
        };
        let request = "x".repeat(41);
        for (usage, prompt, completion) in [
            (r#"{"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}"#, Some(7), Some(2)),
            (r#"{"prompt_tokens": 7}"#, Some(7), None),
            (r#"{"prompt_tokens": 7, "completion_tokens": -2}"#, Some(7), None),
            (r#"{"prompt_tokens": 0, "completion_tokens": 2.5}"#, None, None),
            (r#"{"prompt_tokens": "7", "completion_tokens": 2}"#, None, Some(2)),
            ("null", None, None),
            ("[3]", None, None),
        ] {
            let body = format!(r#"{{"choices": [], "usage": {usage}}}"#);
            let (read, estimate) = (prompt.unwrap_or(11), (body.len() as u64).div_ceil(4));
            let chat = spent(read, completion.unwrap_or(estimate), prompt.and(completion).is_none());
            assert_eq!(usage_of(CHAT, &request, &body), chat, "{body}");
            assert_eq!(usage_of(EMBEDDINGS, &request, &body), spent(read, 0, prompt.is_none()), "{body}");
        }
        assert_eq!(usage_of(CHAT, "four", "<html>"), spent(1, 2, true));
        assert_eq!(usage_of(CHAT, "four", "[]"), spent(1, 1, true));
    }

    #[test]
    fn embeddings_are_in_the_order_of_their_texts() {
        let body = r#"{"data": [{"index": 1, "embedding": [2, 0.5]}, {"index": 0, "embedding": [1, 0]}]}"#;
        assert_eq!(vectors_of(body, 2).unwrap(), [[1.0f32, 0.0], [2.0, 0.5]]);
        for (body, texts) in [(body, 3), (r#"{"data": [{"embedding": []}]}"#, 1), (r#"{"error": "no"}"#, 1)] {
            assert!(matches!(vectors_of(body, texts), Err(Fault::Passing(why, None)) if why.contains("embeddings")));
        }
    }
}
