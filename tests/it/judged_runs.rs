//! A run whose hook asks an endpoint, which answers rightly, partly, or not at all.

use crate::judge::{KEY, right};
use crate::server::Manner::{Say, Status};
use crate::server::{Manner, Seen, Server};
use crate::support::{SMOKE, program};
use serde_json::json;

/// As a hook of a run, by its recipe; judging again asks nothing, and the key is in no file of the run.
#[test]
fn a_run_is_judged_by_an_endpoint() {
    let server = Server::start(|_, seen| whole(seen));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let url = format!("hooks.persona.judge.url={}", server.url);
    let judge = ["hooks.persona.judge.kind=endpoint", "hooks.persona.judge.model=tiny", "hooks.persona.traces=4", &url];
    let sets = |sets: &[&str]| sets.iter().flat_map(|set| ["--set".to_string(), set.to_string()]).collect::<Vec<_>>();
    let run = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = program(&arguments).env("OPENAI_API_KEY", KEY).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run([vec![SMOKE.into(), "--out".into(), out.clone()], sets(&judge), sets(&["ppo.steps=1"])].concat());
    let text = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let hooks: Vec<_> = rows.iter().filter(|row| row["stage"] == "hook").collect();
    assert_eq!(hooks.len(), 2, "{said}");
    for row in hooks {
        let figure = |name: &str| row[format!("hooks/persona/{name}")].as_f64().unwrap();
        assert_eq!((figure("roles/agrees/mean"), figure("conversational/conflict/prevalence")), (1.0, 1.0));
        assert_eq!((figure("perspectives/mean"), figure("missing")), (2.0, 0.0));
        // Marks of 2 throughout and of 5 throughout: with one item reversed, both are in the middle.
        assert_eq!((figure("personality/openness/mean"), figure("personality/openness/diversity")), (3.0, 0.0));
    }
    let asked = server.seen().len();
    assert!(server.seen().iter().all(|seen| seen.authorization.as_deref() == Some(&*format!("Bearer {KEY}"))));
    run(["judge", &out, "--steps", "1", "--again"].map(String::from).to_vec());
    assert_eq!(server.seen().len(), asked);
    let files = std::process::Command::new("grep").args(["-rl", KEY, &out]).output().unwrap();
    assert!(files.stdout.is_empty(), "{}", String::from_utf8_lossy(&files.stdout));
}

/// What a user must mend is tried once in a run; a judgement of a part of the traces says so in `status`.
#[test]
fn a_run_says_what_its_judge_could_not_do() {
    let server = Server::start(|_, _| Status(401, "", "{\"error\": \"no such key\"}".into()));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run").display().to_string();
    let url = format!("hooks.persona.judge.url={}", server.url);
    let sets = ["hooks.persona.judge.kind=endpoint", "hooks.persona.judge.model=tiny", "hooks.persona.traces=4", &url];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let train = program(&[&[SMOKE, "--out", &out, "--set", "ppo.steps=1"], &sets[..]].concat()).output().unwrap();
    let said = String::from_utf8(train.stderr).unwrap();
    assert!(train.status.success() && said.matches("hook persona at step 1 failed").count() == 1, "{said}");
    assert!(said.contains("status 401: no such key") && said.contains("--steps 1 --hook persona"), "{said}");

    // Of four traces one is refused: the others count, and that is said.
    let picky = Server::start(|number, seen| match number {
        0 => Status(400, "", "{\"error\": \"too long\"}".into()),
        _ => whole(seen),
    });
    let url = format!("hooks.persona.judge.url={}", picky.url);
    let more = ["--steps", "1", "--set", &url, "--set", "hooks.persona.judge.concurrency=1"];
    let judged = program(&[&["judge", &out], &more[..]].concat()).output().unwrap();
    let shown = String::from_utf8(judged.stdout).unwrap();
    let expected = "3 of 4 traces judged, 1 missing: conversational: status 400: too long";
    assert!(judged.status.success() && shown.contains(expected), "{shown}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(shown.contains("note: the judge: 1") && shown.contains("requests sent"), "{shown}");
    let status = String::from_utf8(program(&["status", &out]).output().unwrap().stdout).unwrap();
    assert!(status.contains(&format!("persona at step 1: {expected}")), "{status}");

    // More than may be missing is a failure.
    let most = ["--again", "--set", "hooks.persona.max_missing=0.1"];
    let strict = Server::start(|number, seen| match number {
        0 => Status(400, "", "{\"error\": \"too long\"}".into()),
        _ => whole(seen),
    });
    let url = format!("hooks.persona.judge.url={}", strict.url);
    let more = ["--steps", "1", "--set", &url, "--set", "hooks.persona.judge.model=other"];
    let failed = program(&[&["judge", &out], &more[..], &most].concat()).output().unwrap();
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(failed.status.code() == Some(1) && error.contains("error: 3 of 4 traces judged, 1 missing"), "{error}");
}

/// A right reply to a question about a trace of any number of parts, which are all the first perspective's.
fn whole(seen: &Seen) -> Manner {
    let parts = seen.prompt().split("from \"1\" to \"").nth(1).and_then(|rest| rest.split('"').next());
    Say(parts.map_or_else(
        || right(seen),
        |parts| {
            let all = (1..=parts.parse().unwrap()).map(|part: usize| (part.to_string(), json!(1)));
            serde_json::Value::Object(all.collect()).to_string()
        },
    ))
}
