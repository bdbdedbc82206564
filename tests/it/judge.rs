//! The judge behind an endpoint, against a server on the loopback that behaves well or badly.

use crate::server::Manner::{BreaksOff, CutOff, Say, Slow, Status};
use crate::server::{Manner, Seen, Server};
use ppo_train::endpoint::Settings;
use ppo_train::judge::{Endpoint, Judge, Judged, Judgement, Missing, Prompts, Refusal, Segment, Trace, figures};
use ppo_train::{BadInput, Stopped};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const KEY: &str = "sk-0123456789-secret";

fn settings(server: &Server) -> Settings {
    let (timeout, backoff) = (Duration::from_secs(5), Duration::from_millis(20));
    Settings { timeout, backoff, concurrency: 3, ..Settings::new(&server.url, "tiny") }
}

fn open(settings: Settings, cache: &Path) -> Endpoint {
    let prompts = Prompts::new(None).unwrap();
    Endpoint::new(settings, Some(KEY.into()), prompts, cache, Arc::default()).unwrap()
}

/// Traces of two sentences, of which number N says N.
fn traces(count: usize) -> Vec<Trace> {
    let text = |n: usize| format!("<think1>\nIs it {n}?\n</think1>\n<think2>\nNo.\n</think2>");
    (0..count).map(|n| Trace { problem: "3 + 4?".into(), text: text(n) }).collect()
}

/// A right reply to a question. Of two perspectives, the first asks and the second answers.
pub fn right(seen: &Seen) -> String {
    let layout = seen.prompt().trim_end().lines().last().unwrap();
    match layout {
        _ if layout.starts_with("{\"perspectives\"") => {
            let voice = |expertise: &str, mark: u8| json!({ "expertise": expertise, "bfi": vec![mark; 10], "more": 1 });
            json!({ "perspectives": [voice("asking", 2), voice("denying", 5)] }).to_string()
        }
        _ if layout.starts_with("{\"1\"") => "{\"1\": 1, \"2\": 2}".to_string(),
        _ => format!("Here it is:\n```json\n{}\n```", layout.replace('N', "1")),
    }
}

fn good(_: usize, seen: &Seen) -> Manner {
    Say(right(seen))
}

fn is_repair(seen: &Seen) -> bool {
    seen.body["messages"].as_array().unwrap().len() == 3
}

fn is_about_roles(seen: &Seen) -> bool {
    seen.prompt().contains("shows_solidarity")
}

/// The refusal of the only trace.
fn refused(judged: Vec<Result<Judgement, Refusal>>) -> String {
    let [Err(Refusal(why))] = judged.as_slice() else { panic!("{judged:?}") };
    why.clone()
}

#[test]
fn judgements_are_read_and_nothing_is_asked_twice() {
    let (server, dir) = (Server::start(good), tempfile::tempdir().unwrap());
    let judge = open(settings(&server), dir.path());
    let judged = judge.judge(&traces(6)).unwrap();
    assert_eq!(judged.len(), 6);
    for judgement in &judged {
        let judgement = judgement.as_ref().unwrap();
        assert_eq!((judgement.conversational, judgement.cognitive), (Some([1; 4]), Some([1; 4])));
        assert_eq!(judgement.roles, Some([1; 12]));
        let perspectives = judgement.perspectives.as_ref().unwrap();
        assert_eq!(perspectives.iter().map(|one| one.bfi.unwrap()).collect::<Vec<_>>(), [[2; 10], [5; 10]]);
        assert_eq!(perspectives[1].expertise.as_deref(), Some("denying"));
        let [first, second] = judgement.segments[..] else { panic!("{judgement:?}") };
        assert_eq!(first, Segment { start: 9, end: 17, perspective: 0 });
        assert_eq!(second, Segment { start: 37, end: 40, perspective: 1 });
    }
    let seen = server.seen();
    assert_eq!((seen.len(), judge.spent().requests, judge.spent().prompt_tokens), (30, 30, 300));
    for request in &seen {
        assert_eq!(request.path, "/v1/chat/completions");
        assert_eq!(request.authorization.as_deref(), Some(&*format!("Bearer {KEY}")));
        assert_eq!((&request.body["temperature"], &request.body["max_tokens"]), (&json!(0), &json!(2048)));
    }
    // Servers that keep what they have read share all of a trace between its questions.
    let shared = |seen: &Seen| seen.prompt().split("==== END").next().unwrap().to_string();
    let mut heads: Vec<String> = seen.iter().map(shared).collect();
    heads.sort();
    heads.dedup();
    assert_eq!(heads.len(), 6);

    let again = open(settings(&server), dir.path());
    assert_eq!(again.judge(&traces(6)).unwrap(), judged);
    assert_eq!((server.seen().len(), again.cached(), again.spent().requests), (30, 30, 0));
    let other = open(Settings { model: "other".into(), ..settings(&server) }, dir.path());
    other.judge(&traces(1)).unwrap();
    assert_eq!(server.seen().len(), 35);
    assert!(other.identity() != again.identity() && !format!("{}", judge.identity()).contains(KEY));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        assert!(!std::fs::read_to_string(file.unwrap().path()).unwrap().contains(KEY));
    }
}

#[test]
fn a_broken_reply_is_sent_back_once() {
    let server = Server::start(|_, seen| match is_about_roles(seen) && !is_repair(seen) {
        true => Say("{\"agrees\": many}".into()),
        false => good(0, seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let judged = open(settings(&server), dir.path()).judge(&traces(1)).unwrap();
    assert_eq!(judged[0].as_ref().unwrap().roles, Some([1; 12]));
    let seen = server.seen();
    assert_eq!(seen.len(), 6);
    let repair = seen.iter().find(|seen| is_repair(seen)).unwrap();
    assert_eq!(repair.body["messages"][1], json!({ "role": "assistant", "content": "{\"agrees\": many}" }));
    let asked = repair.body["messages"][2]["content"].as_str().unwrap();
    assert!(asked.starts_with("This reply cannot be used: it is not JSON: expected value at line 1"), "{asked}");
    // The repaired reply is on disk too.
    let again = open(settings(&server), dir.path());
    assert_eq!(again.judge(&traces(1)).unwrap(), judged);
    assert_eq!(server.seen().len(), 6);
}

#[test]
fn a_trace_whose_replies_are_broken_twice_is_missing_and_not_zero() {
    for (bad, message) in [
        (Say("I would rather not.".into()), "there is no JSON object in it"),
        (Say("{\"agrees\": 1}".into()), "`shows_solidarity` is missing"),
        (CutOff("{\"shows_solidarity\": 1".into()), "it was cut off at the longest length"),
    ] {
        let (number, text) = (traces(2)[1].text.clone(), bad.clone());
        let lines = number.lines().nth(1).unwrap().to_string();
        let server = Server::start(move |_, seen| match is_about_roles(seen) && seen.prompt().contains(&lines) {
            true => text.clone(),
            false => good(0, seen),
        });
        let dir = tempfile::tempdir().unwrap();
        let judged = open(settings(&server), dir.path()).judge(&traces(2)).unwrap();
        assert_eq!(judged[0].as_ref().unwrap().missing, []);
        // The one part is missing, and all the others are there.
        let other = judged[1].as_ref().unwrap();
        assert_eq!((other.roles, other.conversational, other.segments.len()), (None, Some([1; 4]), 2));
        assert_eq!(other.missing, [Missing { part: "roles".into(), why: message.into() }]);
        // Five questions of each trace, and the broken one twice.
        assert_eq!(server.seen().len(), 11);
        // Later only that question is asked again.
        assert_eq!(open(settings(&server), dir.path()).judge(&traces(2)).unwrap(), judged);
        assert_eq!(server.seen().len(), 13);
    }
}

/// Whose the parts are is asked of traces with several voices only: such traces must not go missing by it.
#[test]
fn a_trace_whose_parts_cannot_be_told_apart_keeps_its_voices() {
    let server = Server::start(|number, seen| match seen.prompt().contains("{\"1\": P") {
        true => Say("{\"1\": 1}".into()),
        false => good(number, seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let judged = open(settings(&server), dir.path()).judge(&traces(3)).unwrap();
    for judgement in &judged {
        let judgement = judgement.as_ref().unwrap();
        assert_eq!((judgement.perspectives.as_ref().unwrap().len(), judgement.segments.len()), (2, 0));
        assert_eq!(judgement.missing, [Missing { part: "segments".into(), why: "`2` is missing".into() }]);
    }
    let all = traces(3);
    let views: Vec<_> = all
        .iter()
        .zip(&judged)
        .map(|(trace, judgement)| {
            let judgement = judgement.as_ref().ok();
            Judged { text: &trace.text, tokens: Some(9), judgement, embeddings: None }
        })
        .collect();
    let found = figures(&views, 0);
    let value = |name: &str| found.iter().find(|figure| figure.name == name).map(|figure| (figure.value, figure.n));
    assert_eq!(value("perspectives/mean"), Some((2.0, Some(3))));
    assert_eq!((value("missing"), value("missing/segments")), (Some((0.0, Some(3))), Some((3.0, Some(3)))));
}

/// A reply that was of no use is not used again: another attempt may succeed.
#[test]
fn what_was_of_no_use_is_asked_again() {
    let server = Server::start(|number, seen| match number < 2 {
        true => Say("Sorry?".into()),
        false => good(number, seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let first = open(settings(&server), dir.path()).judge(&traces(1)).unwrap();
    assert_eq!(first[0].as_ref().unwrap().missing[0].part, "conversational");
    let second = open(settings(&server), dir.path()).judge(&traces(1)).unwrap();
    assert_eq!(second[0].as_ref().unwrap().missing, []);
    assert_eq!(server.seen().len(), 7);
}

#[test]
fn what_may_pass_is_tried_again_and_waits_as_long_as_it_is_told() {
    let server = Server::start(|number, seen| match number {
        0 => Status(429, "Retry-After: 1\r\n", "{\"error\": {\"message\": \"slow down\"}}".into()),
        1 => BreaksOff,
        2 => Slow(Duration::from_millis(800), right(seen)),
        _ => good(0, seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { timeout: Duration::from_millis(400), ..settings(&server) };
    let started = Instant::now();
    let judged = open(settings, dir.path()).judge(&traces(1)).unwrap();
    assert!(judged[0].is_ok() && started.elapsed() > Duration::from_millis(1400), "{judged:?}");
    assert_eq!(server.seen().len(), 8);
}

#[test]
fn a_server_that_never_answers_costs_the_trace() {
    let server = Server::start(|_, seen| match seen.prompt().contains("Is it 1?") {
        true => Slow(Duration::from_secs(60), String::new()),
        false => good(0, seen),
    });
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { timeout: Duration::from_millis(200), retries: 1, ..settings(&server) };
    let judged = open(settings.clone(), dir.path()).judge(&traces(2)).unwrap();
    assert!(judged[0].is_ok());
    let expected = "conversational: no reply within 0.2 s (tried 2 times)";
    assert_eq!(judged[1], Err(Refusal(expected.into())));
    // Two tries at the first question, and none at the others: they hold the same text.
    assert_eq!(server.seen().iter().filter(|seen| seen.prompt().contains("Is it 1?")).count(), 2);
    // A request that is refused by itself costs its trace too.
    let picky = Server::start(|_, _| Status(400, "", "{\"error\": \"too long\"}".into()));
    let settings = Settings { url: picky.url.clone(), ..settings };
    let other = tempfile::tempdir().unwrap();
    let why = refused(open(settings, other.path()).judge(&traces(1)).unwrap());
    assert_eq!((why.as_str(), picky.seen().len()), ("conversational: status 400: too long", 1));
}

#[test]
fn a_budget_ends_the_judging_and_keeps_what_is_done() {
    let (server, dir) = (Server::start(good), tempfile::tempdir().unwrap());
    let with = |max_requests| Settings { max_requests: Some(max_requests), concurrency: 1, ..settings(&server) };
    let judged = open(with(7), dir.path()).judge(&traces(3)).unwrap();
    let why = "the budget of 7 requests is spent: 7 requests and 105 tokens so far, earlier runs with the same answers \
               included; to go on, set max_requests to more than 7";
    let expected = [judged[0].clone(), Err(Refusal(why.into())), Err(Refusal(why.into()))];
    assert!(judged[0].is_ok() && judged == expected, "{judged:?}");
    // Another try at the same answers has no more of it. What a larger one adds is spent on what is missing.
    assert_eq!(open(with(7), dir.path()).judge(&traces(3)).unwrap(), expected);
    assert_eq!(server.seen().len(), 7);
    let judged = open(with(15), dir.path()).judge(&traces(3)).unwrap();
    assert!(judged.iter().all(Result::is_ok) && server.seen().len() == 15, "{judged:?}");
    // With none there is no judgement at all, whatever is tried.
    let fresh = tempfile::tempdir().unwrap();
    let error = open(with(0), fresh.path()).judge(&traces(3)).unwrap_err();
    assert!(error.is::<BadInput>() && error.to_string().starts_with("the budget of 0 requests is spent"), "{error}");
}

#[test]
fn a_wrong_key_or_address_is_the_users_to_mend() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Status(401, "", format!("{{\"error\": \"{KEY} is no key\"}}")));
    let error = open(settings(&server), dir.path()).judge(&traces(4)).unwrap_err();
    assert!(error.is::<BadInput>(), "{error}");
    assert!(error.to_string().ends_with("/v1/chat/completions: status 401: [key] is no key"), "{error}");
    let wrong = Settings::new("example.org", "tiny");
    let refused = Endpoint::new(wrong, None, Prompts::new(None).unwrap(), dir.path(), Arc::default()).err().unwrap();
    assert!(refused.is::<BadInput>() && refused.to_string().contains("does not begin with http://"), "{refused}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let server = Server::start(|_, _| Slow(Duration::from_secs(60), String::new()));
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { timeout: Duration::from_millis(100), retries: 100, ..settings(&server) };
    let error = open(settings, dir.path()).judge(&traces(9)).unwrap_err().to_string();
    assert!(error.contains("no reply within 0.1 s, nor to any of the"), "{error}");
    assert!(server.seen().len() < 20);
}

#[test]
fn a_signal_ends_it_soon() {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, count) = (Arc::clone(&stop), AtomicUsize::new(0));
    let server = Server::start(move |_, seen| {
        if count.fetch_add(1, Ordering::Relaxed) == 10 {
            flag.store(true, Ordering::Relaxed);
        }
        Slow(Duration::from_millis(20), right(seen))
    });
    let dir = tempfile::tempdir().unwrap();
    let judge = Endpoint::new(settings(&server), None, Prompts::new(None).unwrap(), dir.path(), stop).unwrap();
    let error = judge.judge(&traces(200)).unwrap_err();
    assert!(error.is::<Stopped>(), "{error}");
    assert!(server.seen().len() < 30, "{}", server.seen().len());
}

#[test]
fn settings_reach_the_server() {
    let (server, dir) = (Server::start(good), tempfile::tempdir().unwrap());
    let body = json!({ "response_format": "json_schema", "max_tokens": null, "seed": 3 });
    let own = tempfile::tempdir().unwrap();
    let repeated = "Again: {{ perspectives | length }} of them.\n{\"1\": P}";
    std::fs::write(own.path().join("segments.jinja"), repeated).unwrap();
    let settings = Settings { body: body.as_object().unwrap().clone(), ..settings(&server) };
    let prompts = Prompts::new(Some(own.path())).unwrap();
    let judge = Endpoint::new(settings, None, prompts, dir.path(), Arc::default()).unwrap();
    assert!(judge.judge(&traces(1)).unwrap()[0].is_ok());
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.body.get("max_tokens").is_none() && seen.body["seed"] == 3));
    let last = seen.last().unwrap();
    assert!(last.prompt().contains("\nAgain: 2 of them.\n") && last.authorization.is_none(), "{}", last.prompt());
    let format = &last.body["response_format"]["json_schema"];
    assert_eq!((&format["name"], &format["schema"]["required"]), (&json!("segments"), &json!(["1", "2"])));
}
