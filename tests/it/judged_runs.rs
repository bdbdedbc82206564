//! A run whose hook asks an endpoint, which answers rightly, partly, or not at all.

use crate::judge::{KEY, right};
use crate::server::Manner::{Say, Slow, Status};
use crate::server::{Manner, Seen, Server};
use crate::support::{SMOKE, kill, program, run};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

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
    // A key that is named and not there is said before the policy writes anything.
    let named = ["--again", "--set", "hooks.persona.judge.key_env=PPO_TRAIN_TEST_NO_KEY"];
    let refused = program(&[&["judge", &out, "--steps", "1"][..], &named].concat()).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && error.contains("PPO_TRAIN_TEST_NO_KEY is not set"), "{error}");
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

/// A signal in the middle of judging: the same command goes on with the answers that are there, and says what one says
/// that nobody interrupted.
#[test]
fn judging_goes_on_after_a_signal() {
    let server = Server::start(|_, seen| match whole(seen) {
        Say(text) => Slow(Duration::from_millis(60), text),
        other => other,
    });
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let out = folder.display().to_string();
    run(0, &[SMOKE, "--out", &out, "--set", "ppo.steps=1"]);
    let logged = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let url = format!("hooks.persona.judge.url={}", server.url);
    let sets = ["hooks.persona.judge.kind=endpoint", "hooks.persona.judge.model=tiny", "hooks.persona.traces=16", &url];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let slowly = ["--set", "hooks.persona.judge.concurrency=2"];
    let judge = [&["judge", &out, "--steps", "1"], &sets[..], &slowly].concat();
    let mut child = program(&judge).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while server.seen().len() < 12 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-TERM", &child);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{said}");
    // Nothing is there but whole answers.
    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let hooks = folder.join("hooks");
    let left: Vec<String> = names(&hooks).into_iter().filter(|name| name != "answers").collect();
    assert!(left.iter().all(|step| names(&hooks.join(step)).is_empty()), "{left:?}");
    let kept: Vec<String> = names(&hooks.join("answers")).into_iter().filter(|name| name != "spent.jsonl").collect();
    assert!((8..=server.seen().len()).contains(&kept.len()), "{} of {}", kept.len(), server.seen().len());
    for file in &kept {
        let text = fs::read_to_string(hooks.join("answers").join(file)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
    assert_eq!(fs::read_to_string(folder.join("metrics.jsonl")).unwrap(), logged);

    // What was answered is not asked again, and the result is that of a judge whom nobody interrupted.
    let asked = server.seen().len();
    run(0, &judge);
    let more = server.seen().len() - asked;
    let other = dir.path().join("other");
    run(0, &[&judge[..], &["--out", other.to_str().unwrap()]].concat());
    let all = server.seen().len() - asked - more;
    assert_eq!(more, all - kept.len());
    let traces = |run: &Path| fs::read_to_string(run.join("hooks/step_000001/persona/traces.jsonl")).unwrap();
    assert!(traces(&folder) == traces(&other));
    let figures = |run: &Path| {
        let text = fs::read_to_string(run.join("hooks/step_000001/persona/result.json")).unwrap();
        let result: serde_json::Value = serde_json::from_str(&text).unwrap();
        (result["figures"].clone(), result["identity"].clone(), result["summary"].clone())
    };
    assert_eq!(figures(&folder), figures(&other));
    let logged = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(logged.lines().filter(|line| line.contains("hooks/persona/perspectives/mean")).count(), 1);
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
