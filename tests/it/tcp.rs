//! Several processes that meet over TCP, as PyTorch's launchers have them, share a run.

use crate::shared_runs::{arguments, assert_same, wait_for};
use crate::support::{kill, program, run, steps};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// So many of our processes; what each says is in `OUT.RANK`.
fn together(ranks: usize, out: &Path, more: &[&str]) -> Vec<Child> {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: usize| {
        let file = fs::File::create(out.with_extension(rank.to_string())).unwrap();
        let mut command = program(&[&arguments(out)[..], more].concat());
        let all = [("WORLD_SIZE", &ranks.to_string()), ("RANK", &rank.to_string()), ("MASTER_PORT", &port)];
        command.envs(all).env("MASTER_ADDR", "localhost").stdout(Stdio::null()).stderr(file).spawn().unwrap()
    };
    (0..ranks).map(start).collect()
}

fn said(out: &Path, rank: usize) -> String {
    fs::read_to_string(out.with_extension(rank.to_string())).unwrap()
}

/// The exit codes of all, which must end soon.
fn ends(processes: Vec<Child>, limit: u64) -> Vec<Option<i32>> {
    let end = |mut process: Child| {
        wait_for("the end of all", Duration::from_secs(limit), || process.try_wait().unwrap().is_some());
        process.wait().unwrap().code()
    };
    processes.into_iter().map(end).collect()
}

/// A run of many steps, once it has its first checkpoint.
fn begun(out: &Path) -> Vec<Child> {
    let all = together(3, out, &["--set", "ppo.steps=400"]);
    wait_for("the first step", Duration::from_secs(120), || out.join("step_000001/COMPLETE").exists());
    all
}

#[test]
fn processes_that_meet_over_tcp_train_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let [alone, three] = ["alone", "three"].map(|name| dir.path().join(name));
    run(0, &arguments(&alone));
    let codes = ends(together(3, &three, &[]), 300);
    assert_eq!(codes, [Some(0); 3], "{}{}{}", said(&three, 0), said(&three, 1), said(&three, 2));
    assert!(said(&three, 0).contains("step 4/4"), "{}", said(&three, 0));
    assert_eq!((said(&three, 1), said(&three, 2)), (String::new(), String::new()), "one of them talks");
    assert_same(&three, &alone);
}

#[test]
fn a_process_that_dies_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut all = begun(&out);
    let mut victim = all.remove(2);
    kill("-KILL", &victim);
    victim.wait().unwrap();
    assert_eq!(ends(all, 20), [Some(1); 2]);
    assert!(said(&out, 0).contains("error: rank 2 of 3 has died, which ends all of them"), "{}", said(&out, 0));
    let done = steps(&out).len().max(1) + 1;
    run(0, &[&arguments(&out)[..], &["--resume", "--set", &format!("ppo.steps={done}")]].concat());
}

#[test]
fn a_signal_to_one_stops_the_others_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let all = begun(&out);
    kill("-USR1", &all[1]);
    assert_eq!(ends(all, 60), [Some(75); 3], "{}", said(&out, 0));
    assert_eq!(said(&out, 0).matches("stopped by a signal").count(), 1, "{}", said(&out, 0));
}

#[test]
fn what_is_wrong_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let codes = ends(together(3, &out, &["--set", "ppo.stepz=2"]), 60);
    assert_eq!(codes, [Some(2); 3], "{}", said(&out, 0));
    let all = [0, 1, 2].map(|rank| said(&out, rank)).concat();
    assert_eq!(all.matches("did you mean `steps`").count(), 1, "{all}");
}
