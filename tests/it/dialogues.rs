//! `ppo-train dialogues` against a server on the loopback that behaves well or badly.

use crate::server::Manner::{Body, BreaksOff, CutOff, Endless, Say, Slow, Status};
use crate::server::{Manner, Seen, Server};
use crate::support::{self, stdout};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const KEY: &str = "sk-0123456789-secret";

/// A folder with problems `1 + N?`, N from 1.
pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new(problems: usize) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let row = |n: usize| format!("{{\"pid\": \"sum/{n}\", \"task\": \"1 + {n}?\", \"answer\": {}}}\n", n + 1);
        std::fs::write(bench.path("problems.jsonl"), (1..=problems).map(row).collect::<String>()).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, server: &Server, more: &[&str]) -> Command {
        let (problems, out) = (self.path("problems.jsonl"), self.path("out"));
        let mut args = vec!["dialogues", problems.to_str().unwrap(), "--out", out.to_str().unwrap()];
        args.extend(["--url", &server.url, "--model", "tiny", "--json", "--backoff", "0.02"]);
        let key: &[&str] = if more.contains(&"--key-env") { &[] } else { &["--key-env", "TEACHER_KEY"] };
        args.extend(key.iter().chain(more));
        let mut command = support::program(&args);
        for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.env("TEACHER_KEY", KEY);
        command
    }

    /// Runs to the end; the exit code must be `code`.
    pub fn run(&self, code: i32, server: &Server, more: &[&str]) -> Output {
        let output = self.command(server, more).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}{}", stdout(&output), stderr(&output));
        output
    }

    fn rows(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("out").join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A right reply to a request, in the layout that it asks for.
pub fn right(seen: &Seen) -> String {
    let task = seen.prompt().trim_end().rsplit('\n').next().unwrap();
    let n: i64 = task.trim_start_matches("1 + ").trim_end_matches('?').parse().unwrap();
    let answer = n + 1;
    let personas = (1..=4).filter(|n| seen.prompt().contains(&format!("<persona{n}>"))).count();
    if personas == 0 {
        return format!("<think>\nOne more than {n}.\n</think>\n<answer>{answer}</answer>");
    }
    let cast: String = (1..=personas).map(|n| format!("<persona{n}>\nP{n}\n</persona{n}>\n")).collect();
    let turns: String = (1..=personas).map(|n| format!("<think{n}>\nI say {answer}\n</think{n}>\n")).collect();
    format!(
        "<cast_of_characters>\n{cast}</cast_of_characters>\n<conversation>\n{turns}</conversation>\n\
         <group_solution>\nIt is {answer}\n</group_solution>\n<answer>\n{answer}\n</answer>"
    )
}

fn is_monologue(seen: &Seen) -> bool {
    !seen.prompt().contains("<persona1>")
}

pub fn good(_: usize, seen: &Seen) -> Manner {
    Say(right(seen))
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The text of each answer in a folder, in any order.
fn answers(dir: &Path) -> Vec<String> {
    let all = files(dir).into_iter().filter(|file| file.file_name().is_some_and(|name| name != "spent.jsonl"));
    all.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn both_arms_are_written_with_the_same_problems() {
    let (bench, server) = (Bench::new(8), Server::start(good));
    let report = support::json(&bench.run(0, &server, &["--rows", "5", "--validation", "2", "--concurrency", "3"]));
    assert_eq!(report["kept"]["train"], 5);
    assert_eq!(report["kept"]["validation"], 2);
    assert_eq!(report["kept"]["personas"], json!({"2": 3, "3": 2, "4": 2}));
    for (split, names) in [("train", 1..=5), ("val", 6..=7)] {
        let [dialogues, monologues] = ["dialogue", "monologue"].map(|arm| bench.rows(&format!("{arm}_{split}.jsonl")));
        let expected: Vec<String> = names.map(|n| format!("sum/{n}")).collect();
        for (arm, rows) in [("dialogue", &dialogues), ("monologue", &monologues)] {
            assert_eq!(rows.iter().map(|row| row["pid"].as_str().unwrap()).collect::<Vec<_>>(), expected);
            let keys: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["pid", "task", "answer", arm]);
        }
        for (dialogue, monologue) in dialogues.iter().zip(&monologues) {
            assert!(
                dialogue["dialogue"]
                    .as_str()
                    .unwrap()
                    .ends_with(&format!("\n{}\n</answer>", dialogue["answer"].as_str().unwrap()))
            );
            assert!(monologue["monologue"].as_str().unwrap().starts_with("<think>\nOne more than"));
        }
    }
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.path == "/v1/chat/completions" && seen.body["model"] == "tiny"));
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some(&format!("Bearer {KEY}"))));
    assert_eq!(seen[0].body["temperature"], 0.7);
    assert_eq!(report["spent"]["requests"], seen.len());
    assert_eq!(report["spent"]["prompt_tokens"], 10 * seen.len());

    // The key is in no file, and what is written is only what the documentation names.
    for file in files(&bench.path("out")) {
        assert!(!std::fs::read_to_string(&file).unwrap().contains(KEY), "{}", file.display());
    }
    let mut names: Vec<_> = std::fs::read_dir(bench.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "answers",
        "dialogue_train.jsonl",
        "dialogue_val.jsonl",
        "monologue_train.jsonl",
        "monologue_val.jsonl",
        "report.json",
        "report.md",
    ];
    assert_eq!(names, expected);

    // A second run asks nothing, and writes the same.
    let before = std::fs::read(bench.path("out/dialogue_train.jsonl")).unwrap();
    let again = support::json(&bench.run(0, &server, &["--rows", "5", "--validation", "2", "--concurrency", "1"]));
    assert_eq!((server.seen().len(), &again["spent"]["requests"]), (seen.len(), &Value::from(0)));
    assert_eq!(again["spent"]["from_cache"], 14);
    assert!(std::fs::read(bench.path("out/dialogue_train.jsonl")).unwrap() == before);
}

#[test]
fn what_is_dropped_is_reported() {
    let server = Server::start(|_, seen| {
        let (right, monologue) = (right(seen), is_monologue(seen));
        match seen.prompt().trim_end().rsplit('\n').next().unwrap() {
            "1 + 1?" => Say(right),
            "1 + 2?" if monologue => Say(right.replace(">3<", ">4<")),
            "1 + 3?" if !monologue => Say(right.replace("</think2>", "</thinker2>")),
            "1 + 4?" => CutOff(right),
            "1 + 5?" => Status(400, "", "{\"error\": {\"message\": \"too long for me\"}}".into()),
            _ => Say(right),
        }
    });
    let bench = Bench::new(6);
    let report = support::json(&bench.run(0, &server, &["--personas", "2"]));
    assert_eq!(report["kept"], json!({"train": 1, "validation": 1, "personas": {"2": 2}}));
    assert_eq!(report["solved"], json!({"both": 2, "dialogue_only": 1, "monologue_only": 1, "neither": 2}));
    let dialogue = &report["arms"]["dialogue"];
    let counts =
        ["right", "wrong answer", "layout", "cut off", "no reply"].map(|name| dialogue[name].as_u64().unwrap());
    assert_eq!(counts, [3, 0, 1, 1, 1]);
    assert_eq!(dialogue["mean_words"], 6.0);
    let details: Vec<&str> =
        report["dropped"].as_array().unwrap().iter().filter_map(|entry| entry["dialogue"]["detail"].as_str()).collect();
    let unclosed = "line 13, byte 137: `<think2>` is not closed before `</conversation>`";
    assert_eq!(details, [unclosed, "at the longest length", "status 400: too long for me"]);
    assert_eq!(report["dropped"][0]["monologue"]["detail"], "4");
    let page = std::fs::read_to_string(bench.path("out/report.md")).unwrap();
    assert!(page.contains("| sum/5 | 2 | no reply: status 400: too long for me |"), "{page}");
}

/// The first request of each prompt is treated badly, the others well: everything is solved in the end.
#[test]
fn what_may_pass_is_tried_again() {
    for (bad, more) in [
        (Slow(Duration::from_secs(3), String::new()), ["--timeout", "0.5"]),
        (Status(500, "", "oops".into()), ["--timeout", "20"]),
        (Status(429, "Retry-After: 1\r\n", "{\"error\": \"busy\"}".into()), ["--timeout", "20"]),
        (BreaksOff, ["--timeout", "20"]),
        (Body("{\"choices\": [".into()), ["--timeout", "20"]),
        (Body("{\"choices\": []}".into()), ["--timeout", "20"]),
        (Endless, ["--timeout", "20"]),
    ] {
        let manner = bad.clone();
        let server = Server::start(move |number, seen| if number < 2 { manner.clone() } else { Say(right(seen)) });
        let bench = Bench::new(2);
        let begun = Instant::now();
        let output = bench.run(0, &server, &[&more[..], &["--concurrency", "2", "--retries", "3"]].concat());
        let report = support::json(&output);
        assert_eq!(report["solved"]["both"], 2, "{bad:?}");
        assert_eq!((server.seen().len(), &report["spent"]["requests"]), (6, &Value::from(6)), "{bad:?}");
        let waited = matches!(bad, Status(429, ..));
        assert!(!waited || begun.elapsed() >= Duration::from_secs(1), "Retry-After is not honoured");
    }
}

#[test]
fn what_does_not_pass_is_dropped_or_ends_the_run() {
    let bench = Bench::new(2);
    for (bad, why) in [
        (Slow(Duration::from_secs(2), String::new()), "no reply within 0.3 s (tried 2 times)"),
        (Status(503, "", "{\"message\": \"down\"}".into()), "status 503: down (tried 2 times)"),
        (Body("<html>".into()), "a reply that is not JSON: <html> (tried 2 times)"),
        (Body("{}".into()), "a reply without choices[0].message.content: {} (tried 2 times)"),
        (Endless, "a reply of more than 4194304 bytes (tried 2 times)"),
    ] {
        let manner = bad.clone();
        let server = Server::start(move |_, seen| if is_monologue(seen) { manner.clone() } else { Say(right(seen)) });
        let timeout = if matches!(bad, Slow(..)) { "0.3" } else { "20" };
        let report = support::json(&bench.run(1, &server, &["--retries", "1", "--timeout", timeout]));
        assert_eq!(report["dropped"][1]["monologue"]["detail"], why);
        assert_eq!(report["dropped"][1]["dialogue"], Value::Null);
    }

    // Statuses that mean every request end the run, with what the server says and without the key.
    let bench = Bench::new(20);
    for (status, said) in [(401, "wrong key"), (404, "no model `tiny`"), (302, "elsewhere")] {
        let body = format!("{{\"error\": {{\"message\": \"{said}: {KEY}\"}}}}");
        let server = Server::start(move |_, _| Status(status, "Location: http://127.0.0.1:9/\r\n", body.clone()));
        let message = stderr(&bench.run(2, &server, &["--concurrency", "1"]));
        assert!(message.contains(&format!("/v1/chat/completions: status {status}: {said}: [key]")), "{message}");
        assert_eq!(server.seen().len(), 1);
        assert!(!bench.path("out/report.json").exists());
    }

    let server = Server::start(|_, _| Status(401, "", String::new()));
    let output = bench.command(&server, &[]).env_remove("TEACHER_KEY").output().unwrap();
    assert!(stderr(&output).contains("TEACHER_KEY is not set") && server.seen().is_empty(), "{}", stderr(&output));
    let usual = ["--concurrency", "1", "--key-env", "OPENAI_API_KEY"];
    let output = bench.command(&server, &usual).env_remove("OPENAI_API_KEY").output().unwrap();
    assert!(stderr(&output).contains("status 401 (no key was sent)"), "{}", stderr(&output));
    assert_eq!(server.seen()[0].authorization, None);

    // So does a server that fails for everybody, or asks for a long wait.
    let server = Server::start(|_, _| Status(500, "", "oops".into()));
    let message = stderr(&bench.run(1, &server, &["--retries", "0", "--concurrency", "1"]));
    assert!(message.contains("8 requests in a row failed, the last with status 500: oops"), "{message}");
    let server = Server::start(|_, _| Status(429, "Retry-After: 7200\r\n", String::new()));
    let message = stderr(&bench.run(1, &server, &["--concurrency", "1"]));
    assert!(message.contains("status 429, and asks to wait 7200 s"), "{message}");
}

#[test]
fn a_problem_that_is_there_twice_is_in_one_split() {
    let (bench, server) = (Bench::new(3), Server::start(good));
    let text = std::fs::read_to_string(bench.path("problems.jsonl")).unwrap();
    std::fs::write(bench.path("problems.jsonl"), format!("{text}{}", text.replace("sum/", "again/"))).unwrap();
    let output = bench.run(0, &server, &["--rows", "4", "--validation", "2"]);
    let said = stderr(&output);
    assert!(said.contains("note: left out 3 rows with the task and the answer of an earlier one"), "{said}");
    let report = support::json(&output);
    let expected = json!({ "rows": 6, "repeated": 3, "asked": 3, "not_asked": 0 });
    let counted = expected.as_object().unwrap().iter().all(|(name, count)| report["problems"][name] == *count);
    assert!(counted && server.seen().len() == 6, "{report}");
    let rows = [bench.rows("monologue_train.jsonl"), bench.rows("monologue_val.jsonl")].concat();
    assert_eq!(rows.iter().map(|row| &row["pid"]).collect::<Vec<_>>(), ["sum/1", "sum/2", "sum/3"]);
    let page = std::fs::read_to_string(bench.path("out/report.md")).unwrap();
    let expected = "\nRows with the task and the answer of an earlier one, left out: 3.\nKept: 2 pairs";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn a_signal_ends_a_run_and_the_next_one_goes_on() {
    let bench = Bench::new(40);
    let server = Server::start(|_, seen| Slow(Duration::from_millis(100), right(seen)));
    let mut child = bench.command(&server, &["--concurrency", "2"]).spawn().unwrap();
    while server.seen().len() < 8 {
        std::thread::sleep(Duration::from_millis(20));
    }
    support::kill("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let sent = server.seen().len();
    assert!(sent < 80 && !bench.path("out/report.json").exists());
    for text in answers(&bench.path("out/answers")) {
        serde_json::from_str::<Value>(&text).unwrap();
    }
    let report = support::json(&bench.run(0, &server, &["--concurrency", "8"]));
    assert_eq!((&report["solved"]["both"], server.seen().len()), (&Value::from(40), 80));
    assert_eq!(report["spent"]["from_cache"], sent);
}

#[test]
fn a_second_attempt_asks_anew() {
    let bench = Bench::new(1);
    let server = Server::start(|number, seen| Say(if number == 0 { "no layout".into() } else { right(seen) }));
    let report =
        support::json(&bench.run(0, &server, &["--attempts", "2", "--seed", "5", "--body", "{\"top_p\": 0.9}"]));
    assert_eq!(report["solved"]["both"], 1);
    let seeds: Vec<i64> = server.seen().iter().map(|seen| seen.body["seed"].as_i64().unwrap()).collect();
    assert_eq!(seeds, [5, 6, 5]);
    assert_eq!(server.seen()[0].body["top_p"], 0.9);
}

#[test]
fn the_solver_writes_dialogues_of_countdown() {
    let dir = tempfile::tempdir().unwrap();
    let (problems, out) = (dir.path().join("problems.jsonl"), dir.path().join("out"));
    let rows = "{\"nums\": [5, 7, 12], \"target\": 67}\n{\"nums\": [3, 4], \"target\": 13}\n\
        {\"nums\": [9, 9, 2], \"target\": 20}\n{\"nums\": [25, 50, 3, 4], \"target\": 87}\n";
    std::fs::write(&problems, rows).unwrap();
    let args = ["dialogues", problems.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    let report = support::json(&support::run(0, &args));
    // Our solver sends no requests, so that there is nothing for a budget to count.
    assert_eq!((&report["spent"]["requests"], &report["spent"]["from_cache"]), (&Value::from(0), &Value::from(0)));
    for budget in ["--request-budget", "--token-budget"] {
        let said = stderr(&support::run(2, &[&args[..], &[budget, "2"]].concat()));
        assert!(said.contains(&format!("{budget} bounds what a teacher costs, and our solver sends no")), "{said}");
    }
    // 3 and 4 do not make 13.
    assert_eq!(report["solved"], json!({"both": 3, "dialogue_only": 0, "monologue_only": 0, "neither": 1}));
    assert_eq!(report["dropped"][0]["dialogue"]["detail"], "it has no solution within bounds");
    let text = std::fs::read_to_string(out.join("dialogue_train.jsonl")).unwrap();
    let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&row["pid"], &row["answer"], &row["nums"]),
        (&Value::from("problems/1"), &Value::from("67"), &json!([5, 7, 12]))
    );
    assert!(row["dialogue"].as_str().unwrap().starts_with("<cast_of_characters>\n<persona1>\n"));
    // A run that finds less replaces nothing, one that is asked for less does.
    let less = support::run(1, &[&args[..], &["--seed", "5", "--limit", "1"]].concat());
    assert!(stderr(&less).contains("holds 3 pairs, and only 1 were found now"), "{}", stderr(&less));
    assert!(std::fs::read_to_string(out.join("dialogue_train.jsonl")).unwrap() == text);
    let report = support::json(&support::run(0, &[&args[..], &["--rows", "1", "--validation", "0"]].concat()));
    assert_eq!(report["kept"]["train"], 1);
}

#[test]
fn a_local_model_is_a_teacher_too() {
    let bench = Bench::new(3);
    let (problems, out, prompt) = (bench.path("problems.jsonl"), bench.path("out"), bench.path("prompt.jinja"));
    std::fs::write(&prompt, "{{ task }} {{ personas }}").unwrap();
    let mut args = vec!["dialogues", problems.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
    args.extend(["--dialogue-prompt", prompt.to_str().unwrap()]);
    args.extend(["--teacher", "checkpoints/countdown-base", "--max-tokens", "12", "--temperature", "1"]);
    let little = support::json(&support::run(1, &[&args[..], &["--batch", "1", "--request-budget", "1"]].concat()));
    assert_eq!((&little["spent"]["requests"], &little["spent"]["estimated"]), (&1.into(), &false.into()));
    assert!(little["ended"].as_str().unwrap().starts_with("the budget of 1 request is spent: 1 request and "));
    // The second dialogue, and the first of two monologues that are asked for together.
    let more = ["--batch", "2", "--request-budget", "3"];
    let more = support::json(&support::run(1, &[&args[..], &more].concat()));
    assert_eq!((&more["spent"]["requests"], &more["spent_in_all"]["requests"]), (&2.into(), &3.into()));
    assert_eq!(answers(&out.join("answers")).len(), 3);
    std::fs::remove_dir_all(&out).unwrap();
    let first = support::run(1, &[&args[..], &["--batch", "2"]].concat());
    assert!(stderr(&first).contains("has no `chat_template`"), "{}", stderr(&first));
    let report = support::json(&first);
    // It has learnt nothing but sums, so no pair is found.
    assert_eq!((&report["solved"]["neither"], &report["spent"]["requests"]), (&Value::from(3), &Value::from(6)));
    assert!(report["spent"]["completion_tokens"].as_u64().unwrap() > 6);
    // Another batch size asks for nothing new, and would not get other replies.
    let again = support::json(&support::run(1, &[&args[..], &["--batch", "1"]].concat()));
    assert_eq!(again["spent"]["from_cache"], 6);
    let sorted = || {
        let mut texts = answers(&out.join("answers"));
        texts.sort();
        texts
    };
    let before = sorted();
    std::fs::remove_dir_all(out.join("answers")).unwrap();
    support::run(1, &[&args[..], &["--batch", "1"]].concat());
    assert!(sorted() == before, "the replies depend on the batch");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (bench, server) = (Bench::new(1), Server::start(good));
    for (more, message) in [
        (&["--personas", "1,2"][..], "--personas: expected numbers from 2 to 4"),
        (&["--rows", "0", "--validation", "0"], "--rows and --validation are both 0"),
        (&["--timeout", "0"], "--timeout 0: expected 0.001 to 86400 seconds"),
        (&["--body", "[]"], "--body: expected a JSON object"),
        (&["--grade", "choice"], "problems.jsonl, line 1: column `answer`: `2` is not the letter of a choice"),
        (&["--dialogue-prompt", "missing.jinja"], "missing.jinja cannot be read"),
    ] {
        let shown = stderr(&bench.run(2, &server, more));
        assert!(shown.contains(message), "{shown}");
    }
    let problems = bench.path("problems.jsonl");
    let problems = problems.to_str().unwrap();
    let refused = |args: &[&str]| stderr(&support::run(2, &[&["dialogues", problems, "--out", "x"], args].concat()));
    assert!(refused(&[]).contains("is not a problem of Countdown, which is all that our solver solves"));
    assert!(refused(&["--url", "example.org", "--model", "a"]).contains("does not begin with http:// or https://"));
    assert!(refused(&["--url", "http://example.org"]).contains("--model"));
    assert!(server.seen().is_empty());
}
