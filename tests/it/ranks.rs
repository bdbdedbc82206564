//! Several processes share a run: real ones of `mpirun`.

use crate::checkpoints::stderr;
use crate::shared_runs::{arguments, assert_same, wait_for};
use crate::support::{SMOKE, device_of, kill, run, stdout, steps};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// `mpirun` with so many of our processes, more than there are cores, in a process group of its own.
fn together(ranks: usize, args: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("mpirun");
    let count = ranks.to_string();
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &count]);
    command
        .arg(env!("CARGO_BIN_EXE_ppo-train"))
        .args(args)
        .args(device_of(args))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::null()).process_group(0);
    command
}

#[test]
fn four_processes_train_as_one_and_two_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let [alone, four] = ["alone", "four"].map(|name| dir.path().join(name));
    run(0, &arguments(&alone));
    // Four do the first half, two the second.
    let half = together(4, &[&arguments(&four)[..], &["--set", "ppo.steps=2"]].concat()).output().unwrap();
    let said = stderr(&half);
    assert_eq!(half.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("step 1/2").count(), 1, "one of them talks: {said}");
    let rest = together(2, &[&arguments(&four)[..], &["--resume"]].concat()).output().unwrap();
    let said = stderr(&rest);
    assert_eq!(rest.status.code(), Some(0), "{said}");
    assert!(said.contains("processes 2 (was 4)"), "{said}");
    assert_same(&four, &alone);
    let metrics = fs::read_to_string(four.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"stage\":\"ppo\"").count(), steps(&alone).len(), "one of them logs");
}

/// In bfloat16, where gradients have sums of their own; what comes after the first updates rounds differently.
#[test]
fn divided_gradients_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, divided] = [false, true].map(|divide| {
        let out = dir.path().join(divide.to_string());
        let sets = ["machine.precision=bfloat16", &format!("memory.divide_gradients={divide}"), "ppo.steps=2"];
        let sets = sets.into_iter().flat_map(|set| ["--set", set]);
        let done = together(3, &arguments(&out).into_iter().chain(sets).collect::<Vec<_>>()).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        steps(&out)
    });
    assert_eq!((whole.len(), divided.len()), (2, 2));
    for norm in ["actor/grad_norm", "critic/grad_norm"] {
        let [a, b] = [&whole, &divided].map(|steps| steps[&1][norm].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-5 * a.abs(), "{norm}: {a} {b}");
    }
}

#[test]
fn what_is_wrong_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let wrong = [&arguments(&out)[..], &["--set", "ppo.stepz=2"]].concat();
    let failed = together(3, &wrong).output().unwrap();
    let said = stderr(&failed);
    assert_eq!((failed.status.code(), said.matches("did you mean `steps`").count()), (Some(2), 1), "{said}");
    // A folder that holds a run already is known to the first of them alone.
    fs::create_dir_all(out.join("start")).unwrap();
    let failed = together(2, &arguments(&out)).output().unwrap();
    let said = stderr(&failed);
    assert_eq!((failed.status.code(), said.matches("already holds a run").count()), (Some(2), 1), "{said}");
}

#[test]
fn commands_that_are_not_divided_are_refused_once() {
    for args in [&["plan", SMOKE][..], &["status", "."], &["plan", SMOKE, "--no-such-option"], &["pln"]] {
        let refused = together(3, args).output().unwrap();
        let said = stderr(&refused);
        assert_eq!((refused.status.code(), said.matches("error: ").count()), (Some(2), 1), "{args:?}: {said}");
        assert!(stdout(&refused).is_empty() && !said.contains("panicked"), "{args:?}: {said}");
    }
    let help = together(2, &["--help"]).output().unwrap();
    assert_eq!((help.status.code(), stdout(&help).matches("Usage").count()), (Some(0), 1));
}

/// The second of three processes is asked to stop while the first waits for a hook.
#[test]
fn a_signal_while_the_first_waits_for_a_hook_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let out: PathBuf = dir.path().join("run");
    let begun = dir.path().join("begun");
    let script = format!("touch {}; sleep 600", begun.display());
    let hook = [
        format!("hooks.external.slow.command=['sh', '-c', \"{script}\"]"),
        "hooks.external.slow.steps=[0]".to_string(),
        "ppo.steps=1".to_string(),
    ];
    let sets = hook.iter().flat_map(|set| ["--set", set]);
    let args = arguments(&out).into_iter().chain(sets).collect::<Vec<_>>();
    let file = fs::File::create(out.with_extension("log")).unwrap();
    let mut child = together(3, &args).stdout(Stdio::null()).stderr(file).spawn().unwrap();
    wait_for("the hook", Duration::from_secs(120), || begun.exists());
    wait_for("the last step", Duration::from_secs(120), || out.join("step_000001/COMPLETE").exists());
    sleep(Duration::from_secs(2));
    let (_, one) = *ranks(&child).iter().find(|(rank, _)| *rank == 1).expect("three ranks");
    assert!(Command::new("kill").args(["-USR1", &one.to_string()]).status().unwrap().success());
    wait_for("the stop of all", Duration::from_secs(30), || child.try_wait().unwrap().is_some());
    let said = log(&out);
    assert_eq!(child.wait().unwrap().code(), Some(75), "{said}");
    assert_eq!(said.matches("stopped by a signal").count(), 1, "{said}");
}

/// The processes of a run, by the rank that each has.
fn ranks(mpirun: &Child) -> Vec<(usize, u32)> {
    let children = format!("/proc/{0}/task/{0}/children", mpirun.id());
    let pids = fs::read_to_string(children).unwrap_or_default();
    let rank = |pid: &str| {
        let variables = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let text = String::from_utf8_lossy(&variables).into_owned();
        let rank = text.split('\0').find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok())?;
        Some((rank, pid.parse().ok()?))
    };
    pids.split_whitespace().filter_map(rank).collect()
}

/// Starts a run of many steps, and waits for its first checkpoint.
fn begun(out: &Path) -> Child {
    let many = [&arguments(out)[..], &["--set", "ppo.steps=400"]].concat();
    let file = fs::File::create(out.with_extension("log")).unwrap();
    let child = together(3, &many).stdout(Stdio::null()).stderr(file).spawn().unwrap();
    wait_for("the first step", Duration::from_secs(120), || out.join("step_000001/COMPLETE").exists());
    child
}

fn log(out: &Path) -> String {
    fs::read_to_string(out.with_extension("log")).unwrap()
}

#[test]
fn a_dead_process_ends_all_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out: PathBuf = dir.path().join("run");
    let mut child = begun(&out);
    let all = ranks(&child);
    let (_, victim) = *all.iter().find(|(rank, _)| *rank == 2).expect("three ranks");
    assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
    wait_for("the end of all", Duration::from_secs(20), || child.try_wait().unwrap().is_some());
    assert_ne!(child.wait().unwrap().code(), Some(0));
    let said = log(&out);
    assert!(said.contains("signal 9"), "{said}");
    for (_, pid) in all {
        wait_for("the end of a rank", Duration::from_secs(10), || !Path::new(&format!("/proc/{pid}/stat")).exists());
    }
    let done = steps(&out).len().max(1) + 1;
    let more = format!("ppo.steps={done}");
    run(0, &[&arguments(&out)[..], &["--resume", "--set", &more]].concat());
    assert_eq!(steps(&out).len(), done);
}

#[test]
fn a_signal_to_one_process_stops_all_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out: PathBuf = dir.path().join("run");
    let mut child = begun(&out);
    let (_, one) = *ranks(&child).iter().find(|(rank, _)| *rank == 1).expect("three ranks");
    assert!(Command::new("kill").args(["-USR1", &one.to_string()]).status().unwrap().success());
    wait_for("the stop of all", Duration::from_secs(60), || child.try_wait().unwrap().is_some());
    let said = log(&out);
    assert_eq!(child.wait().unwrap().code(), Some(75), "{said}");
    assert_eq!(said.matches("stopped by a signal").count(), 1, "{said}");
    // mpirun passes a signal of its own on to all of them.
    let more = [&arguments(&out)[..], &["--resume", "--set", "ppo.steps=400"]].concat();
    let mut child = together(2, &more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let before = steps(&out).len();
    wait_for("another step", Duration::from_secs(120), || steps(&out).len() > before);
    kill("-USR2", &child);
    wait_for("the stop of all", Duration::from_secs(60), || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(75));
}

/// The first is still writing when the others are done.
#[test]
fn a_warning_that_ends_a_run_ends_all_of_it_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let stop = ["watch.stop=['reward_constant']", "watch.reward_constant=2", "checkpoints.every=0"];
    let sets = stop.into_iter().flat_map(|set| ["--set", set]);
    let halted = together(3, &arguments(&out).into_iter().chain(sets).collect::<Vec<_>>()).output().unwrap();
    let said = stderr(&halted);
    assert_eq!((halted.status.code(), said.matches("its last step is saved in").count()), (Some(1), 1), "{said}");
    assert!(out.join("step_000002/COMPLETE").exists() && !said.contains("MPI_ABORT"), "{said}");
}

#[test]
fn the_cause_of_numbers_that_are_not_finite_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let wild = ["ppo.weight_decay=100", "ppo.critic_lr=1.0", "ppo.grad_clip=0", "ppo.steps=9"];
    let sets = wild.into_iter().flat_map(|set| ["--set", set]);
    let failed = together(3, &arguments(&out).into_iter().chain(sets).collect::<Vec<_>>()).output().unwrap();
    let said = stderr(&failed);
    assert_eq!((failed.status.code(), said.matches("error: step ").count()), (Some(1), 1), "{said}");
    assert!(!said.contains("another process"), "{said}");
}
