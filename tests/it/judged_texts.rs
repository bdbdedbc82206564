//! `ppo-train judge --traces`: texts of a file, which no run wrote.

use crate::judge::right;
use crate::server::Manner::{Say, Status};
use crate::server::Server;
use crate::support::{json, program, run, stdout};
use serde_json::{Value, json as value};
use std::fs;
use std::path::Path;

/// A file of 20 texts.
fn file(dir: &Path, name: &str, text: &dyn Fn(usize) -> String) -> String {
    let rows = (0..20).map(|at| value!({ "text": text(at), "problem": "3 + 4?" }).to_string());
    let path = dir.join(name);
    fs::write(&path, rows.collect::<Vec<_>>().join("\n")).unwrap();
    path.display().to_string()
}

/// A dialogue of two voices.
fn talk(at: usize) -> String {
    format!("<think1>{}Is it {at}?</think1><think2>No, it is 7.</think2>", "a ".repeat(at))
}

fn rows(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Texts of a file are judged by command, and two files are told apart.
#[test]
fn texts_of_a_file_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let talk = file(dir.path(), "talk.jsonl", &talk);
    let plain = file(dir.path(), "plain.jsonl", &|at| format!("<think>{}It is {at}.</think>", "a ".repeat(at + 5)));
    let out = dir.path().join("out").display().to_string();
    let judged = json(&run(0, &["judge", "--traces", &talk, "--against", &plain, "--out", &out, "--json"]));
    let of = |list: &str, name: &str| {
        judged[list].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
    };
    assert_eq!(of("figures", "perspectives/mean")["value"], 2.0);
    assert_eq!(of("against", "conversational/conflict")["auc"], 1.0);
    let shown = stdout(&run(0, &["judge", "--traces", &talk]));
    assert!(shown.contains("perspectives/two_or_more") && shown.contains("note: the lexical judge"), "{shown}");
    run(0, &["judge", "--agree", &out, &out]);
    for (arguments, message) in [
        (vec!["--column", "txt"], "none of the columns"),
        (vec!["--set", "hooks.persona.judge.kind=lexicl"], "cannot be \"lexicl\""),
    ] {
        let error =
            String::from_utf8(run(2, &[&["judge", "--traces", &talk], &arguments[..]].concat()).stderr).unwrap();
        assert!(error.contains(message) || error.contains("expected a text in `txt`"), "{error}");
    }
}

/// What nobody graded has no grade, and what nobody encoded has no length in tokens.
#[test]
fn texts_have_neither_grades_nor_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let talk = file(dir.path(), "talk.jsonl", &talk);
    let out = dir.path().join("out");
    let judged = json(&run(0, &["judge", "--traces", &talk, "--out", out.to_str().unwrap(), "--json"]));
    let names: Vec<&str> =
        judged["figures"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"conversational/conflict/per_1000_words"), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("/per_1000_tokens")), "{names:?}");
    let judged = rows(&out.join("traces.jsonl"));
    for (at, row) in judged.iter().enumerate() {
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = ["index", "judgement", "problem", "text", "words"];
        assert_eq!(keys.len(), expected.len(), "{keys:?}");
        assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
        assert_eq!((&row["index"], &row["words"]), (&value!(at), &value!(at + 7)));
    }

    // Two such files can be compared, with names that are not cut; one of them and what a run wrote cannot.
    let out = out.display().to_string();
    let shown = stdout(&run(0, &["judge", "--differ", &out, &out]));
    assert!(shown.contains("conversational/question_answering/per_1000_words ") && !shown.contains('…'), "{shown}");
    let written = dir.path().join("written.jsonl");
    let line = |row: &Value| {
        let mut row = row.clone();
        let words = row.as_object_mut().unwrap().remove("words").unwrap();
        for (key, value) in [("tokens", words), ("reward", value!(0.5)), ("accuracy", value!(0.0))] {
            row[key] = value;
        }
        row["format"] = value!(1.0);
        row["verdict"] = value!("");
        row.to_string() + "\n"
    };
    fs::write(&written, judged.iter().map(line).collect::<String>()).unwrap();
    let written = written.display().to_string();
    let shown = stdout(&run(0, &["judge", "--differ", &written, &written]));
    assert!(shown.contains("conversational/question_answering/per_1000_tokens "), "{shown}");
    let error = String::from_utf8(run(2, &["judge", "--differ", &out, &written]).stderr).unwrap();
    assert!(error.contains("some lengths are in tokens"), "{error}");
    // Lengths do not matter to whether judges agree.
    let shown = stdout(&run(0, &["judge", "--agree", &out, &written]));
    let mean = shown.lines().find(|line| line.starts_with("conversational/mean ")).unwrap();
    assert!(mean.ends_with(" 20"), "{shown}");
}

/// A key that is named and not there is said before anything is asked; so is nothing about answers that nobody keeps.
#[test]
fn an_endpoint_is_asked_with_the_key_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let talk = file(dir.path(), "talk.jsonl", &talk);
    let judge = |server: &Server, more: &[&str]| {
        let url = format!("hooks.persona.judge.url={}", server.url);
        let sets = ["hooks.persona.judge.kind=endpoint", "hooks.persona.judge.model=tiny", &url];
        let sets = sets.iter().chain(more).flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = ["judge", "--traces", &talk].into_iter().chain(sets).collect();
        let mut command = program(&arguments);
        command.env_remove("PPO_TRAIN_TEST_KEY").env_remove("OPENAI_API_KEY");
        command
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let server = Server::start(|_, seen| Say(right(seen)));
    let named = ["hooks.persona.judge.key_env=PPO_TRAIN_TEST_KEY"];
    let output = judge(&server, &named).output().unwrap();
    assert_eq!((output.status.code(), server.seen().len()), (Some(2), 0), "{}", said(&output));
    assert!(said(&output).contains("the environment variable PPO_TRAIN_TEST_KEY is not set"), "{}", said(&output));
    let output = judge(&server, &named).env("PPO_TRAIN_TEST_KEY", "sk-something").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(server.seen().iter().all(|seen| seen.authorization.as_deref() == Some("Bearer sk-something")));
    let asked = server.seen().len();
    assert!(judge(&server, &[]).output().unwrap().status.success());
    assert!(server.seen()[asked..].iter().all(|seen| seen.authorization.is_none()) && server.seen().len() > asked);

    let refusing = Server::start(|_, _| Status(400, "", "{\"error\": \"too long\"}".into()));
    let output = judge(&refusing, &["hooks.persona.max_missing=1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("(at least one must be judged)") && !said(&output).contains("again"));
}
