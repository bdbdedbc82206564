//! Runs that are stopped by signals whenever these come, and what `status` says of them. That a run can be stopped in
//! each of its phases is shown question by question in src/run/tests.rs.

use super::support::{SMOKE, is_measured, json, kill, program, repeats_to_the_bit, run, steps};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&[SMOKE, "--out", out.to_str().unwrap()], more].concat()
}

fn spawn(args: &[&str]) -> Child {
    program(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a process said, and its exit code.
fn end(mut child: Child) -> (String, Option<i32>) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (said, child.wait().unwrap().code())
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < Duration::from_secs(300), "{what} does not come");
        sleep(Duration::from_millis(5));
    }
}

/// `status --json` of one run.
fn shown(out: &Path) -> Value {
    json(&program(&["status", out.to_str().unwrap(), "--json"]).output().unwrap())[0].clone()
}

/// `status --json` of one run, the exit code, and what is shown without --json.
fn status(out: &Path) -> (Value, Option<i32>, String) {
    let shown = out.to_str().unwrap();
    let found = program(&["status", shown, "--json"]).output().unwrap();
    let text = program(&["status", shown]).output().unwrap();
    assert_eq!(found.status.code(), text.status.code());
    assert!(found.stderr.is_empty(), "{}", String::from_utf8_lossy(&found.stderr));
    (json(&found)[0].clone(), found.status.code(), String::from_utf8(text.stdout).unwrap())
}

/// Figures of all stages but for times, and the last checkpoint.
fn left_by(out: &Path) -> (Vec<Value>, Vec<Vec<u8>>) {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().retain(|name, _| !is_measured(name));
        record
    };
    let files = ["model/model.safetensors", "critic/model.safetensors", "optimizer.safetensors", "state.json"];
    let read = |file| fs::read(out.join("step_000004").join(file)).unwrap();
    (text.lines().map(record).collect(), files.map(read).to_vec())
}

#[test]
fn a_run_that_is_stopped_at_any_moment_comes_to_the_same_end() {
    if !repeats_to_the_bit("runs that are stopped") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let sets = ["--set", "ppo.mini_batch=4", "--set", "ppo.kl_target=0.01", "--set", "checkpoints.every=0"];
    let started = Instant::now();
    run(0, &arguments(&whole, &sets));
    let took = started.elapsed();
    let mut stops = 0;
    for share in [0.05, 0.2, 0.35, 0.45, 0.3, 0.4, 0.15, 0.25] {
        let resume: &[&str] = if parts.exists() { &["--resume"] } else { &[] };
        let child = spawn(&[&arguments(&parts, &sets)[..], resume].concat());
        // Only once the folder is there is there something to resume.
        wait_for("the lock", || parts.join("lock").exists());
        sleep(took.mul_f64(share));
        kill("-TERM", &child);
        let (said, code) = end(child);
        match code {
            Some(75) => assert!(said.contains("SIGTERM: the program saves its work and stops"), "{said}"),
            code => assert_eq!(code, Some(0), "{said}"),
        }
        stops += usize::from(code == Some(75));
        let names = fs::read_dir(&parts).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let partial: Vec<String> = names.filter(|name| name.starts_with(".partial")).collect();
        assert!(partial.is_empty(), "{partial:?}");
    }
    run(0, &arguments(&parts, &[&sets[..], &["--resume"]].concat()));
    assert!(stops > 1, "it was never stopped");
    assert!(left_by(&whole) == left_by(&parts), "after {stops} stops it is not the run that it was");
    assert!(!parts.join("unfinished_step").exists() && !parts.join("unfinished_start").exists());
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let recipe = dir.path().join("recipe.toml");
    // A hook that does not stop keeps the run waiting for some seconds.
    let hook = "[hooks.external.deaf]\ncommand = [\"sh\", \"-c\", \"trap '' TERM; touch heard; sleep 20\"]";
    let base = fs::canonicalize(SMOKE).unwrap();
    fs::write(
        &recipe,
        format!("extends = {base:?}\n{}", hook.replace("heard", dir.path().join("heard").to_str().unwrap())),
    )
    .unwrap();
    let args = [recipe.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", "ppo.steps=100000"];
    let child = spawn(&args);
    wait_for("the hook", || dir.path().join("heard").exists());
    kill("-TERM", &child);
    // The same signal twice in no time is one.
    kill("-TERM", &child);
    sleep(Duration::from_millis(50));
    // Another one does not end it either.
    kill("-USR1", &child);
    sleep(Duration::from_millis(700));
    kill("-TERM", &child);
    let (said, code) = end(child);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("SIGTERM: the program saves its work and stops; a second SIGTERM ends it at once"), "{said}");
    assert!(said.ends_with("a second SIGTERM: the program ends at once, and saves nothing\n"), "{said}");
}

#[test]
fn status_tells_whether_a_run_is_alive_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let endless = ["--set", "ppo.steps=100000", "--set", "evaluation.every=0", "--set", "checkpoints.every=0"];
    let child = spawn(&arguments(&out, &endless));
    wait_for("the second step", || out.join("metrics.jsonl").exists() && steps(&out).len() > 1);
    wait_for("a beat of it", || shown(&out)["ends"].is_number());
    let (alive, code, text) = status(&out);
    assert_eq!((&alive["state"], code), (&Value::from("running"), Some(0)), "{alive}");
    assert_eq!((&alive["steps"], &alive["warm_start"]), (&Value::from(100_000), &Value::Null));
    assert!(["rollout", "scoring", "update"].contains(&alive["phase"].as_str().unwrap()), "{alive}");
    assert!(text.contains(&format!(": running (process {} on ", child.id())), "{text}");
    assert!(text.contains(" of 100000, about ") && text.contains(" left"), "{text}");

    kill("-KILL", &child);
    end(child);
    let (gone, code, text) = status(&out);
    assert_eq!((&gone["state"], code, &gone["process"]), (&Value::from("killed"), Some(4), &Value::Null), "{gone}");
    assert!(text.contains(": killed, in its ") && text.contains(" ago"), "{text}");

    let resumed = spawn(&arguments(&out, &[&endless[..], &["--resume"]].concat()));
    wait_for("the lock", || shown(&out)["state"] == "running");
    kill("-INT", &resumed);
    assert_eq!(end(resumed).1, Some(75));
    let (stopped, code, text) = status(&out);
    assert_eq!((&stopped["state"], code), (&Value::from("stopped"), Some(3)), "{stopped}");
    assert!(text.contains(": stopped, step "), "{text}");

    // What is refused does not touch it.
    run(2, &arguments(&out, &[&endless[..], &["--resume", "--set", "seed=9"]].concat()));
    assert_eq!(status(&out).0["state"], "stopped");

    // A run that fails says why.
    let failing = dir.path().join("failing");
    let sets = ["--set", "ppo.weight_decay=100", "--set", "ppo.critic_lr=1.0", "--set", "ppo.steps=9"];
    run(1, &arguments(&failing, &[&sets[..], &["--set", "ppo.grad_clip=0"]].concat()));
    let (failed, code, text) = status(&failing);
    assert_eq!((&failed["state"], code), (&Value::from("failed"), Some(4)), "{failed}");
    assert!(failed["message"].as_str().unwrap().contains("the critic's update failed: "), "{failed}");
    assert!(text.contains("\n  step ") && ["is not finite", "is NaN"].iter().any(|why| text.contains(why)), "{text}");
    let both = program(&["status", out.to_str().unwrap(), failing.to_str().unwrap()]).output().unwrap();
    assert_eq!(both.status.code(), Some(4));
}
