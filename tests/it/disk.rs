//! Disks that fill up, and logs that somebody or a power loss has spoilt: neither ends a run.

use crate::checkpoints::{arguments, resume, stderr};
use crate::support::{SMOKE, kill, program, run, steps};
use ppo_train::checkpoint::RunFolder;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Gives a process files of at most this size; a larger one fails as on a full disk.
fn limit(child: &Child, bytes: Option<u64>) {
    let limits = Rlimit { current: bytes, maximum: None };
    prlimit(Pid::from_raw(child.id() as i32), Resource::Fsize, limits).unwrap();
}

/// More than a model of the smoke recipe, less than an optimizer.
const SMALL: Option<u64> = Some(4 << 20);

fn partial(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".partial")).collect()
}

/// Trains into `out` until a save fails, makes room, and waits for the end; returns what was said.
fn starved(out: &Path, more: &[&str], make_room: impl Fn(&Child)) -> String {
    let mut child = program(&[&arguments(out)[..], &["--set", "ppo.steps=12"], more].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if more.is_empty() {
        while !out.join("step_000001/COMPLETE").exists() {
            sleep(Duration::from_millis(5));
        }
        limit(&child, SMALL);
    }
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        said += &format!("{line}\n");
        if line.contains("is not saved") {
            // Whatever has been saved is there, and nothing besides.
            assert!(partial(out).is_empty() && out.join("step_000001/COMPLETE").exists(), "{said}");
            make_room(&child);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(out.join("step_000012/COMPLETE").exists(), "{said}");
    said
}

#[test]
fn a_save_that_fails_does_not_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, starving] = ["whole", "starving"].map(|name| dir.path().join(name));
    let said = starved(&starving, &[], |child| limit(child, None));
    assert!(said.contains("/optimizer.safetensors: File too large") && said.contains("tries again when it is due"));
    run(0, &[&arguments(&whole)[..], &["--set", "ppo.steps=12"]].concat());
    let weights = |out: &Path| fs::read(out.join("step_000012/optimizer.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&starving) && steps(&whole) == steps(&starving));
}

/// On a small disk of its own, where the user of this test may mount one.
#[test]
fn a_full_disk_does_not_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |option: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", option, "none"]).arg(dir.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    };
    // The start and one checkpoint have room, a second beside them has not.
    if !mount("size=38m") {
        // Files that may not grow stand for a full disk in the other tests.
        let why = "not tested, since this user may not mount a file system: free space that is counted before a save";
        let _ = writeln!(std::io::stderr(), "{why}");
        return;
    }
    let out = dir.path().join("run");
    let newest = ["--set", "checkpoints.keep_last=1", "--set", "checkpoints.keep_best=false"];
    let said = std::panic::catch_unwind(|| starved(&out, &newest, |_| assert!(mount("remount,size=80m"))));
    let kept = RunFolder::new(&out).checkpoints().map(|all| all.len());
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    let said = said.unwrap();
    assert!(said.contains("warning: the run takes ") && said.contains("No space left on device"), "{said}");
    assert!(said.contains("warning: a checkpoint takes 19.7 MiB, and ") && kept.unwrap() == 1, "{said}");
}

/// The start is the one copy of what a warm start has learnt, where there is one.
#[test]
fn a_start_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    for (name, code) in [("waits", 0), ("stopped", 1), ("plain", 1)] {
        let out = dir.path().join(name);
        let args = match name {
            "plain" => vec![SMOKE, "--out", out.to_str().unwrap(), "--set", "sft=unset"],
            _ => [&arguments(&out)[..], &["--set", "ppo.steps=1"]].concat(),
        };
        let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Less than the model.
        limit(&child, Some(1 << 20));
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            said += &format!("{line}\n");
            if line.contains("start is not saved, and the run waits for room") {
                assert!(line.contains("File too large") && partial(&out).is_empty() && !out.join("start").exists());
                if code == 0 { limit(&child, None) } else { kill("-TERM", &child) }
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        if code == 0 {
            assert!(said.contains("start is saved now") && out.join("step_000001/COMPLETE").exists(), "{said}");
        } else {
            assert!(said.contains("there was no room on the disk") && partial(&out).is_empty(), "{said}");
            assert_eq!(said.contains("and its warm start is lost"), name == "stopped", "{said}");
        }
    }
}

#[test]
fn the_last_save_must_not_fail() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [&arguments(&out)[..], &["--set", "ppo.steps=1"]].concat();
    let child = program(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    limit(&child, SMALL);
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let start = out.join("start");
    let go_on = format!("error: step 1 cannot be saved; --resume goes on from {}: cannot write ", start.display());
    assert!(said.contains(&go_on) && said.contains("File too large") && partial(&out).is_empty(), "{said}");
    run(0, &[&args[..], &["--resume"]].concat());
    assert!(out.join("step_000001/COMPLETE").exists());
}

#[test]
fn every_nth_checkpoint_is_kept_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = ["ppo.steps=7", "checkpoints.every=2", "checkpoints.keep_last=1", "checkpoints.keep_every=3"];
    let sets = sets.into_iter().chain(["checkpoints.keep_best=false"]).flat_map(|set| ["--set", set]);
    run(0, &arguments(&out).into_iter().chain(sets).collect::<Vec<_>>());
    let kept: Vec<usize> = RunFolder::new(&out).checkpoints().unwrap().iter().map(|saved| saved.step).collect();
    assert_eq!(kept, [3, 6, 7]);
}

#[test]
fn a_bad_line_in_the_logs_fails_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(0, &[&arguments(&out)[..], &["--set", "ppo.steps=3"]].concat());
    let [metrics, evaluations] = ["metrics.jsonl", "evaluations.jsonl"].map(|name| out.join(name));
    let spoil = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        // What somebody has written there, what a power loss has left, and what a killed process has.
        let parts = [b"hello\n", first.as_bytes(), b"\n", &[0; 512], b"\n", rest.as_bytes(), &first.as_bytes()[..30]];
        fs::write(path, parts.concat()).unwrap();
    };
    spoil(&metrics);
    spoil(&evaluations);
    let said = resume(0, &out);
    let warning = format!("warning: {}: line 1 is not a record, and is passed over: ", metrics.display());
    assert!(said.contains(&warning) && said.contains("nor is line 3") && said.lines().count() < 20, "{said}");
    let records = fs::read(&metrics).unwrap();
    let records = records.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let ppo = |record: serde_json::Value| (record["stage"] == "ppo").then(|| record["step"].as_u64().unwrap());
    assert_eq!(records.filter_map(ppo).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for args in [&["compare", out.to_str().unwrap()][..], &["status", out.to_str().unwrap()]] {
        run(0, args);
    }
    // Records that a checkpoint counts on and that are gone are missed.
    fs::write(&metrics, "").unwrap();
    fs::remove_file(out.join("curve.svg")).unwrap();
    fs::create_dir(out.join("curve.svg")).unwrap();
    let said = resume(0, &out);
    assert!(said.contains("metrics.jsonl has no records of the steps from 1 to 4"), "{said}");
    assert!(said.contains("curve.svg") && said.contains("the run is finished, but"), "{said}");
}
