//! SIGKILL at random moments of a tiny run with everything that has a state: a warm start, critic warm-up, an adaptive
//! KL coefficient, a schedule, evaluations, checkpoints that are pruned. However often it is killed, it comes to the
//! same end, bit for bit. `scripts/kill_loop N` does the same N times.

use crate::support::{SMOKE, STATEFUL, is_measured, program, repeats_to_the_bit, run};
use ppo_train::hash::{hash, hash_of_files};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const STEPS: usize = 4;

fn arguments(out: &Path) -> Vec<String> {
    let sets = [
        "sft.train=24",
        "sft.validation=4",
        "sft.batch=8",
        "rollout.max_response_tokens=40",
        "ppo.steps=4",
        "ppo.mini_batch=4",
        "checkpoints.keep_last=1",
    ];
    let sets = STATEFUL.into_iter().chain(sets).flat_map(|set| ["--set".to_string(), set.to_string()]);
    [SMOKE, "--out", out.to_str().unwrap()].into_iter().map(String::from).chain(sets).collect()
}

/// The hashes of all that a run came to: the files of its start and of its last checkpoint, and its logs without what
/// measures the machine.
fn end(out: &Path) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    for folder in [out.join("start"), out.join(format!("step_{STEPS:06}"))] {
        let mut files = vec![];
        collect(&folder, &mut files);
        for file in files {
            let name = file.strip_prefix(out).unwrap().display().to_string();
            hashes.insert(name, hash_of_files([&file]).unwrap());
        }
    }
    for log in ["metrics.jsonl", "evaluations.jsonl"] {
        let text = fs::read_to_string(out.join(log)).unwrap();
        let line = |line: &str| {
            let mut record: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            record.retain(|name, _| !is_measured(name));
            Value::Object(record).to_string()
        };
        hashes.insert(log.into(), hash(text.lines().map(line).collect::<Vec<_>>().join("\n").as_bytes()));
    }
    hashes
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

/// Whether something is being written that is not complete yet.
fn is_writing(out: &Path) -> bool {
    let names = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(".partial"))
}

/// How far a run has come, for the list of where it was killed.
fn phase(out: &Path) -> &'static str {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    match () {
        () if is_writing(out) => "saving",
        () if !out.join("recipe.toml").exists() => "before it began",
        () if !out.join("start/COMPLETE").exists() => "warm start",
        () if !text.contains("\"stage\":\"ppo\"") => "first step or evaluation",
        () => "PPO",
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the seed and the counts of scripts/kill_loop")]
fn a_run_that_is_killed_at_any_moment_comes_to_the_same_end() {
    if !repeats_to_the_bit("runs that are killed") {
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().expect(name));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (kills, seed) = (number("KILLS", 20), number("SEED", now));
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (whole, started) = (dir.path().join("whole"), Instant::now());
    run(0, &arguments(&whole).iter().map(String::as_str).collect::<Vec<_>>());
    let (expected, mut took) = (end(&whole), started.elapsed());
    assert!(expected.len() > 12, "{expected:?}");

    let (mut killed, mut runs, mut phases) = (0, 0, BTreeMap::<_, u64>::new());
    while killed < kills {
        let out = dir.path().join(format!("killed-{runs}"));
        let args = [arguments(&out), vec!["--resume".into()]].concat();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        loop {
            let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // What is resumed has less before it: early moments are more frequent.
            let patience = took.mul_f64(rng.random_range(0.0f64..1.0).powi(2));
            let (wants_save, begun) = (rng.random_ratio(1, 4), Instant::now());
            // Some wait for a file that is being written, which takes little of the time.
            let is_time = || begun.elapsed() > patience && (!wants_save || is_writing(&out));
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if killed < kills && is_time() {
                    break None;
                }
                sleep(Duration::from_millis(1));
            };
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(0), "seed {seed}, after {killed} kills");
                took = took.min(begun.elapsed().max(took / 2));
                break;
            }
            *phases.entry(phase(&out)).or_default() += 1;
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        assert_eq!(end(&out), expected, "seed {seed}, after {killed} kills");
        assert!(!is_writing(&out));
        fs::remove_dir_all(&out).unwrap();
        runs += 1;
        println!("{killed} of {kills} kills, {runs} runs with the same end: {phases:?}");
    }
}

/// Weights alone are not the state of a run: without the optimizers, the KL coefficient and the place in the schedule
/// and in the data, the same number of steps leads elsewhere.
#[test]
fn a_restart_from_the_weights_alone_is_another_run() {
    if !repeats_to_the_bit("restarts") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let train = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let args = [arguments(&out), more.iter().map(|part| part.to_string()).collect()].concat();
        run(0, &args.iter().map(String::as_str).collect::<Vec<_>>());
        out
    };
    let weights =
        |out: &Path, step: usize| hash_of_files([out.join(format!("step_{step:06}/model/model.safetensors"))]).unwrap();
    // Schedules count in steps of the whole run, of which the parts have others.
    let constant = ["--set", "ppo.lr_schedule='constant'", "--set", "ppo.warmup_ratio=0"];
    let constant = [&constant[..], &["--set", "checkpoints.keep_last=4"]].concat();
    let whole = train("whole", &constant);
    let parts = train("parts", &[&constant[..], &["--set", "ppo.steps=2"]].concat());
    // Resumed it is the run that was not interrupted.
    train("parts", &[&constant[..], &["--resume"]].concat());
    assert_eq!(weights(&parts, 4), weights(&whole, 4));
    let model = format!("model.path={:?}", parts.join("step_000002/model").display().to_string());
    let alone = ["--set", "ppo.steps=2", "--set", "ppo.critic_warmup_steps=0", "--set", &model];
    let alone = [&constant[..], &alone, &["--set", "model.random_weights=false", "--set", "sft=unset"]].concat();
    assert!(weights(&train("alone", &alone), 2) != weights(&whole, 4));
}
