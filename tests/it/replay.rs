//! A run's folder says how to repeat it, and a step of it is repeated.

use crate::checkpoints::stderr;
use crate::support::{SMOKE, STATEFUL, json, repeats_to_the_bit, run, stdout};
use ppo_train::hash::hash_of_files;
use ppo_train::torch::test_device_name;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A short run with everything that a step depends on.
fn arguments(out: &Path) -> Vec<&str> {
    let sets = STATEFUL.into_iter().chain(["sft.train=16", "checkpoints.keep_last=2"]);
    [SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets.flat_map(|set| ["--set", set])).collect()
}

fn history(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file below a folder, with its hash and the time of its last change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (String, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let changed = path.metadata().unwrap().modified().unwrap();
            all.insert(path.clone(), (hash_of_files([&path]).unwrap(), changed));
        }
    }
    all
}

#[test]
fn a_step_is_repeated_from_the_checkpoint_before_it() {
    if !repeats_to_the_bit("replay") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(0, &arguments(&out));
    let folder = out.to_str().unwrap();
    let before = contents(&out);
    let replay = |code: i32, step: &str| run(code, &["replay", folder, "--step", step]);
    // The first from the start, the last with an evaluation, texts and weights.
    let first = stdout(&replay(0, "1"));
    assert!(first.contains("step 1 of ") && first.contains(" is equal to the last bit: "), "{first}");
    assert!(!first.contains("the weights"), "{first}");
    let last = json(&run(0, &["replay", folder, "--step", "4", "--json"]));
    assert_eq!((&last["differences"], &last["elsewhere"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!((&last["weights"], &last["texts"], &last["evaluations"]), (&true.into(), &1.into(), &2.into()));
    assert!(last["figures"].as_u64().unwrap() > 50, "{last}");
    let missing = stderr(&replay(2, "3"));
    assert!(
        missing.contains("has no checkpoint of step 2") && missing.contains("can be repeated: 1, 4 (checkpoints"),
        "{missing}"
    );
    assert!(stderr(&replay(2, "5")).contains("has no record of step 5"));
    assert!(stderr(&replay(2, "0")).contains("steps count from 1"));
    assert!(contents(&out) == before, "the run folder is not changed");

    // What was recorded differs in the last digit of one figure, in a text, and in the weights.
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let changed: Vec<String> = metrics
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            if record["step"] == 4 && record["stage"] == "ppo" {
                let loss = record["actor/pg_loss"].as_f64().unwrap();
                record["actor/pg_loss"] = f64::from_bits(loss.to_bits() ^ 1).into();
            }
            if record["step"] == 4 && record["stage"] == "evaluation" {
                let text = record["texts"]["samples"].as_str().unwrap();
                record["texts"]["samples"] = text.replacen("reward", "REWARD", 1).into();
            }
            record.to_string() + "\n"
        })
        .collect();
    fs::write(out.join("metrics.jsonl"), changed.concat()).unwrap();
    let different = replay(1, "4");
    let (table, error) = (stdout(&different), stderr(&different));
    let named = |name: &str| table.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((named("actor/pg_loss"), named("text samples"), table.lines().count()), (1, 1, 4), "{table}");
    assert!(error.contains("step 4 of ") && error.contains("is not repeated: 2 differences in "), "{error}");
    // Another number of threads is another machine, and is said to be one.
    let threads = run(0, &["replay", folder, "--step", "1", "--set", "memory.gradient_checkpointing=true"]);
    assert!(!stderr(&threads).contains("elsewhere"));
    let output = ppo_train_with_threads(folder);
    assert!(
        output.contains("the step was done elsewhere, so that it need not be equal: threads 2 (was 1)"),
        "{output}"
    );
}

fn ppo_train_with_threads(folder: &str) -> String {
    let sets = ["replay", folder, "--step", "1", "--set", "machine.threads=2"];
    stderr(&crate::support::program(&sets).output().unwrap())
}

#[test]
fn the_folder_of_a_run_says_how_to_repeat_it() {
    const SECRET: &str = "sk-history-0123456789";
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let template = dir.path().join("mine.jinja");
    fs::copy("src/text/templates/compact.jinja", &template).unwrap();
    let template = format!("prompt.template={:?}", template.display().to_string());
    let more = |steps: &'static str| {
        let alone = ["--set", "ppo.critic_warmup_steps=0"];
        [&arguments(&out)[..], &alone, &["--set", &template, "--set", steps]].concat()
    };
    let first = crate::support::program(&more("ppo.steps=1")).env("OPENAI_API_KEY", SECRET).output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let [sitting] = &history(&out)[..] else { panic!("one process") };
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let is_hash = |value: &Value| text(value).len() == 64;
    assert_eq!(sitting["after"], Value::Null);
    assert_eq!(sitting["command"].as_array().unwrap()[1], SMOKE);
    assert_eq!(text(&sitting["working_folder"]), env!("CARGO_MANIFEST_DIR"));
    let (program, machine) = (&sitting["program"], &sitting["machine"]);
    assert_eq!(program["version"], env!("CARGO_PKG_VERSION"));
    assert!(is_hash(&program["sha256"]) && !text(&program["commit"]).is_empty());
    assert_eq!(
        (&machine["libtorch"], &machine["threads"], &machine["device"]),
        (&"2.13.0".into(), &1.into(), &test_device_name().into())
    );
    for key in ["processor", "capability", "libc", "system"] {
        assert!(!text(&machine[key]).is_empty(), "{key}");
    }
    assert_eq!(text(&sitting["recipe_sha256"]), hash_of_files([out.join("recipe.toml")]).unwrap());
    let files = sitting["files_sha256"].as_object().unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["prompt.template"]);
    let model = &sitting["model"];
    assert_eq!(text(&model["config_sha256"]), hash_of_files(["checkpoints/countdown-base/config.json"]).unwrap());
    assert!(is_hash(&model["tokenizer_sha256"]) && model["weights_sha256"].is_null(), "random weights");
    for path in contents(&out).into_keys() {
        assert!(!fs::read(&path).unwrap().windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{path:?}");
    }

    // The same again is not mentioned; another number of threads is, in one line.
    let said = stderr(&run(0, &[&more("ppo.steps=2")[..], &["--resume"]].concat()));
    assert!(!said.contains("bit-equal"), "{said}");
    let said = stderr(&run(0, &[&more("ppo.steps=3")[..], &["--resume", "--set", "machine.threads=2"]].concat()));
    let note = "note: the run goes on with threads 2 (was 1): from here on its results are not bit-equal to those of a";
    assert_eq!(said.lines().filter(|line| line.starts_with(note)).count(), 1, "{said}");
    let after: Vec<Value> = history(&out).iter().map(|sitting| sitting["after"]["step"].clone()).collect();
    assert_eq!(after, [Value::Null, 1.into(), 2.into()]);
    // A torn line does not take the next one with it, and a history that cannot be written ends nothing.
    let path = out.join("history.jsonl");
    let torn = fs::read(&path).unwrap();
    fs::write(&path, &torn[..torn.len() - 20]).unwrap();
    run(0, &[&more("ppo.steps=4")[..], &["--resume"]].concat());
    assert_eq!(fs::read_to_string(&path).unwrap().lines().filter(|line| line.ends_with('}')).count(), 3);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let said = stderr(&run(0, &[&more("ppo.steps=5")[..], &["--resume"]].concat()));
    assert!(said.contains("warning: the run's history is not complete: cannot write "), "{said}");
}
