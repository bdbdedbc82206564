//! Budgets of endpoints: they hold for all runs with the same folder of answers, and for servers that do not count.

use crate::dialogues::{Bench, good, right, stderr};
use crate::server::Manner::{Body, Say, Slow};
use crate::server::{Manner, Seen, Server};
use crate::support;
use ppo_train::endpoint::{Refusal, Service, Settings, Spent, spent_in};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What the answers of a bench have cost.
fn spent(bench: &Bench) -> Spent {
    let (spent, unread) = spent_in(&std::fs::read_to_string(bench.path("out/answers/spent.jsonl")).unwrap());
    assert!(unread.is_empty(), "{unread:?}");
    spent
}

/// A completion with such a `usage`, if any.
fn completion(text: &str, usage: Option<Value>) -> String {
    let choices = json!([{ "message": { "content": text }, "finish_reason": "stop" }]);
    let mut body = Map::from_iter([("choices".to_string(), choices)]);
    body.extend(usage.map(|usage| ("usage".to_string(), usage)));
    Value::Object(body).to_string()
}

#[test]
fn a_budget_holds_for_all_runs_with_the_same_answers() {
    let (bench, server) = (Bench::new(10), Server::start(good));
    let run = |code: i32, more: &[&str]| bench.run(code, &server, &[more, &["--concurrency", "1"]].concat());
    let ended = |budget: &str| format!("{budget} so far, earlier runs with the same answers included; to go on, set ");
    let first = run(1, &["--request-budget", "7"]);
    let why = ended("the budget of 7 requests is spent: 7 requests and 105 tokens") + "--request-budget to more than 7";
    let report = support::json(&first);
    assert!(stderr(&first).contains(&format!("error: {why}")), "{}", stderr(&first));
    assert_eq!((&report["problems"]["asked"], &report["problems"]["not_asked"]), (&3.into(), &7.into()));
    assert_eq!((&report["ended"], server.seen().len()), (&Value::from(why.as_str()), 7));

    // However often a queue starts it again, it sends nothing more.
    for _ in 0..2 {
        let again = run(1, &["--request-budget", "7"]);
        let report = support::json(&again);
        assert!(stderr(&again).contains(&why) && server.seen().len() == 7, "{}", stderr(&again));
        assert_eq!((&report["spent"]["requests"], &report["spent_in_all"]["requests"]), (&0.into(), &7.into()));
    }
    run(1, &["--request-budget", "9"]);
    assert_eq!(server.seen().len(), 9);
    // Each reply counts 15 tokens, 135 by now: one more goes beyond 140.
    let why =
        ended("the budget of 140 tokens is spent: 10 requests and 150 tokens") + "--token-budget to more than 150";
    for _ in 0..2 {
        let output = run(1, &["--token-budget", "140"]);
        assert!(stderr(&output).contains(&why) && server.seen().len() == 10, "{}", stderr(&output));
    }
    let report = support::json(&bench.run(0, &server, &["--concurrency", "4"]));
    assert_eq!((&report["solved"]["both"], server.seen().len()), (&Value::from(10), 20));
    assert_eq!((&report["spent"]["requests"], &report["spent"]["from_cache"]), (&Value::from(10), &Value::from(10)));
    let page = std::fs::read_to_string(bench.path("out/report.md")).unwrap();
    let all =
        "All runs with these answers together: 20 requests were sent, 200 prompt tokens and 100 completion tokens.";
    assert!(page.contains(all), "{page}");
    // A budget that is spent before anything was asked says so too, rather than that no pair was found.
    let none = Bench::new(2).run(1, &server, &["--request-budget", "0"]);
    assert!(stderr(&none).contains("error: the budget of 0 requests is spent"), "{}", stderr(&none));
}

#[test]
fn tokens_that_a_server_does_not_count_are_estimated() {
    for usage in [
        None,
        Some(json!({ "prompt_tokens": -10, "completion_tokens": -5 })),
        Some(json!({ "prompt_tokens": 0, "completion_tokens": 0 })),
        Some(json!("much")),
    ] {
        let (bench, own) = (Bench::new(12), usage.clone());
        let server = Server::start(move |_, seen| Body(completion(&right(seen), own.clone())));
        let budget = ["--token-budget", "1000", "--concurrency", "1"];
        let output = bench.run(1, &server, &budget);
        let seen = server.seen();
        assert!((2..12).contains(&seen.len()), "{} requests with {usage:?}", seen.len());
        let tokens = |texts: Vec<String>| texts.iter().map(|text| text.len().div_ceil(4) as u64).sum::<u64>();
        let expected = Spent {
            requests: seen.len() as u64,
            prompt_tokens: tokens(seen.iter().map(|seen| seen.body.to_string()).collect()),
            completion_tokens: tokens(seen.iter().map(|seen| completion(&right(seen), usage.clone())).collect()),
            estimated: true,
        };
        let report = support::json(&output);
        assert_eq!((spent(&bench), &report["spent_in_all"]), (expected, &json!(expected)));
        let said = stderr(&output);
        assert_eq!(said.matches("warning: the server does not say, or not rightly, how many").count(), 1, "{said}");
        let why = format!("requests and about {} tokens so far", expected.tokens());
        assert!(expected.tokens() >= 1000 && said.contains(&why), "{said}");
        let page = std::fs::read_to_string(bench.path("out/report.md")).unwrap();
        assert!(page.contains(&format!("about {} prompt tokens", expected.prompt_tokens)), "{page}");
        bench.run(1, &server, &budget);
        assert_eq!(server.seen().len(), seen.len());
    }
}

/// A reasoning model that comes to no answer, for example: each try costs what it says.
#[test]
fn replies_that_are_of_no_use_cost_too() {
    let reply = json!({ "choices": [], "usage": { "prompt_tokens": 10, "completion_tokens": 5 } }).to_string();
    let (bench, server) = (Bench::new(2), Server::start(move |_, _| Body(reply.clone())));
    let said = stderr(&bench.run(1, &server, &["--token-budget", "40", "--concurrency", "1"]));
    assert!(said.contains("the budget of 40 tokens is spent: 3 requests and 45 tokens"), "{said}");
    assert_eq!(server.seen().len(), 3);
}

/// What was sent is known after a kill, also of requests that had no reply yet.
#[test]
fn a_kill_does_not_make_a_budget_larger() {
    let bench = Bench::new(40);
    let server = Server::start(|_, seen| Slow(Duration::from_millis(100), right(seen)));
    let mut child = bench.command(&server, &["--concurrency", "3"]).spawn().unwrap();
    while server.seen().len() < 8 {
        std::thread::sleep(Duration::from_millis(10));
    }
    support::kill("-KILL", &child);
    assert!(!child.wait().unwrap().success());
    // What is under way reaches the server.
    std::thread::sleep(Duration::from_millis(300));
    let (sent, counted) = (server.seen().len() as u64, spent(&bench).requests);
    assert!((sent..=sent + 3).contains(&counted), "{sent} requests, {counted} counted");
    let output = bench.run(1, &server, &["--request-budget", &counted.to_string()]);
    assert!(stderr(&output).contains(&format!("the budget of {counted} requests is spent")), "{}", stderr(&output));
    assert_eq!(server.seen().len() as u64, sent);
}

/// A judge and what makes vectors of its words have one budget, and each knows its own expenses.
#[test]
fn models_of_a_server_share_a_budget() {
    let server = Server::start(|_, seen: &Seen| -> Manner {
        match seen.path.ends_with("/embeddings") {
            true => Body(json!({ "data": [{ "embedding": [1.0, 2.0] }], "usage": { "prompt_tokens": 3 } }).to_string()),
            false => Say("yes".into()),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let of = |model: &str| Settings { max_requests: Some(3), ..Settings::new(&server.url, model) };
    let open = || Service::new(of("words"), None, dir.path(), Arc::default()).unwrap();
    let words = open();
    let vectors = words.beside(of("vectors")).unwrap();
    let message = json!([{ "role": "user", "content": "Is it?" }]);
    let ask = |service: &Service| service.ask(&message, &Map::new(), false).map(|answer| answer.reply.text);
    let embed = |service: &Service, text: &str| service.embed(&[text.to_string()], 8);
    assert_eq!((ask(&words), ask(&words)), (Ok("yes".into()), Ok("yes".into())));
    assert_eq!(embed(&vectors, "one"), Ok(vec![vec![1.0, 2.0]]));
    let why = "the budget of 3 requests is spent: 3 requests and 33 tokens so far, earlier runs with the same answers \
               included; to go on, set max_requests to more than 3";
    assert_eq!(embed(&vectors, "two"), Err(Refusal::Budget(why.into())));
    assert_eq!((ask(&words), ask(&open())), (Err(Refusal::Budget(why.into())), Err(Refusal::Budget(why.into()))));
    assert_eq!((words.spent().requests, vectors.spent().requests, vectors.spent().tokens()), (2, 1, 3));
    // What is on disk costs nothing.
    assert_eq!(embed(&open().beside(of("vectors")).unwrap(), "one"), Ok(vec![vec![1.0, 2.0]]));
    assert_eq!(server.seen().len(), 3);
}
