//! `submit` on a real Slurm: munged, slurmctld and slurmd of the system, with a configuration, a key and ports of their
//! own, started here. It needs them installed (Debian: slurmctld, slurmd, slurm-client, munge) and root, whom alone
//! slurmd can run jobs for; elsewhere the test says that it was not run.

use super::support::{SMOKE, json, program, run, stdout, steps};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Slurm on this machine, until it is dropped.
struct Slurm {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Slurm {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        for folder in ["munge", "state", "spool"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("munge/key"), [7; 64]).unwrap();
        for (path, mode) in [("", 0o755), ("munge", 0o700), ("munge/key", 0o400)] {
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap().to_string();
        // Both are bound at once, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [control, node] = ports.map(|port| port.local_addr().unwrap().port());
        let (socket, state, spool) = (at("munge/socket"), at("state"), at("spool"));
        let text = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={control}\nSlurmdPort={node}\n\
             SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nAuthInfo=socket={socket},cred_expire=5\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMailProg=/bin/true\nReturnToService=2\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSlurmdParameters=config_overrides\n\
             SchedulerType=sched/builtin\nSchedulerParameters=sched_interval=1\nJobRequeue=1\n\
             PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n\
             StateSaveLocation={state}\nSlurmdSpoolDir={spool}\nSlurmctldPidFile={0}\nSlurmdPidFile={1}\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN\n\
             PartitionName=low Nodes=ALL PriorityTier=1 State=UP Default=YES\n\
             PartitionName=high Nodes=ALL PriorityTier=2 State=UP\n",
            at("slurmctld.pid"),
            at("slurmd.pid"),
        );
        fs::write(at("slurm.conf"), text).unwrap();
        let mut slurm = Self { daemons: vec![], dir };
        let munge =
            |name: &str, file: &str| format!("--{name}={}", slurm.dir.path().join("munge").join(file).display());
        let munge = [("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed")]
            .map(|(name, file)| munge(name, file));
        slurm.daemon("munged", &[&["--foreground", "--force"], &munge.each_ref().map(String::as_str)[..]].concat());
        slurm.wait_for("munged", || Path::new(&socket).exists());
        slurm.daemon("slurmctld", &["-D"]);
        slurm.daemon("slurmd", &["-D"]);
        slurm.wait_for("a node", || slurm.says("sinfo", &["--noheader", "--format=%T"]).contains("idle"));
        slurm
    }

    fn daemon(&mut self, name: &str, args: &[&str]) {
        let log = fs::File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let mut command = self.command(name, args);
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        self.daemons.push(command.spawn().unwrap());
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(name);
        command.args(args).env("SLURM_CONF", self.dir.path().join("slurm.conf"));
        command
    }

    fn says(&self, name: &str, args: &[&str]) -> String {
        String::from_utf8(self.command(name, args).output().unwrap().stdout).unwrap()
    }

    fn wait_for(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_there() {
            let queue = || self.says("squeue", &["--array"]);
            assert!(started.elapsed() < Duration::from_secs(120), "{what} does not come\n{}", queue());
            sleep(Duration::from_millis(50));
        }
    }

    /// `submit` with these arguments; the job's number.
    fn submit(&self, args: &[&str]) -> String {
        let mut command = program(&[&["submit", SMOKE, "--json"], args].concat());
        let output = command.env("SLURM_CONF", self.dir.path().join("slurm.conf")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json(&output)["job"].as_str().unwrap().to_string()
    }

    /// A field of a task, such as `JobState`.
    fn field(&self, task: &str, name: &str) -> String {
        let shown = self.says("scontrol", &["--oneliner", "show", "job", task]);
        let field = shown.split_whitespace().find_map(|field| field.strip_prefix(&format!("{name}=")));
        field.unwrap_or_default().to_string()
    }
}

impl Drop for Slurm {
    /// Jobs first: their processes are no children of the daemons.
    fn drop(&mut self) {
        let _ = self.command("scancel", &["--signal=KILL", "--full", "--user=root"]).output();
        let _ = self.command("scancel", &["--user=root"]).output();
        for _ in 0..100 {
            if self.says("squeue", &["--noheader"]).is_empty() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        for daemon in self.daemons.iter_mut().rev() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }
}

/// Why Slurm cannot be started here, if it cannot.
fn lacking() -> Option<String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("only root can start it".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let programs = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol"];
    programs.iter().find(|name| !is_there(name)).map(|missing| format!("there is no {missing}"))
}

#[test]
#[expect(clippy::print_stderr)]
fn tasks_that_are_preempted_go_on_and_come_to_the_same_end() {
    if let Some(why) = lacking() {
        eprintln!("NOT RUN HERE, a real Slurm: {why}");
        return;
    }
    let slurm = Slurm::start();
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("it's 5% \"odd\""));
    let (whole_shown, shown) = (whole.to_str().unwrap(), out.to_str().unwrap());
    let sets = ["--set", "ppo.steps=12", "--set", "checkpoints.every=0", "--set", "evaluation.every=6"];
    let job = slurm.submit(&[&["--seeds", "1..2", "--out", shown], &sets[..]].concat());
    let folder =
        |out: &Path, seed: u32| out.with_file_name(format!("{}-{seed}", out.file_name().unwrap().to_str().unwrap()));
    let trained = |seed| folder(&out, seed).join("metrics.jsonl").exists() && !steps(&folder(&out, seed)).is_empty();
    slurm.wait_for("the first steps", || trained(1) && trained(2));

    // A job of more importance takes the place of one task; the other is told that its time is over.
    let task = |seed: u32| format!("{job}_{seed}");
    let restarts = |seed| slurm.field(&task(seed), "Restarts");
    slurm.says("sbatch", &["--partition=high", "--output=/dev/null", "--wrap=sleep 1"]);
    slurm.wait_for("the preemption", || restarts(1) == "1" || restarts(2) == "1");
    let other = if restarts(1) == "1" { 2 } else { 1 };
    assert_eq!((restarts(other).as_str(), slurm.field(&task(other), "JobState").as_str()), ("0", "RUNNING"));
    assert!(slurm.command("scancel", &["--signal=USR1", "--batch", &task(other)]).status().unwrap().success());
    // Meanwhile, the same runs without interruption.
    run(0, &[&[SMOKE, "--seeds", "1..2", "--out", whole_shown], &sets[..]].concat());
    slurm.wait_for("the end", || [1, 2].iter().all(|seed| slurm.field(&task(*seed), "JobState") == "COMPLETED"));

    for seed in [1, 2] {
        let log = fs::read_to_string(dir.path().join(format!("it's 5% \"odd\"-{seed}.log"))).unwrap();
        assert_eq!(log.matches(": the program saves its work and stops").count(), 1, "{log}");
        assert_eq!((restarts(seed).as_str(), slurm.field(&task(seed), "ExitCode").as_str()), ("1", "0:0"), "{log}");
        let (with, without) = (steps(&folder(&out, seed)), steps(&folder(&whole, seed)));
        assert!(with.len() == 12 && with == without, "seed {seed} comes to another end");
        assert!(fs::read_to_string(folder(&out, seed).join("history.jsonl")).unwrap().lines().count() == 2);
    }
    let status = run(0, &["status", shown]);
    assert_eq!(stdout(&status).matches(": finished, step 12 of 12").count(), 2, "{}", stdout(&status));

    // A task that is cancelled saves its work, and is not queued again.
    let job = slurm.submit(&[&["--seeds", "3", "--out", shown], &sets[..]].concat());
    slurm.wait_for("the first step", || trained(3));
    let task = format!("{job}_3");
    slurm.says("scancel", &[&task]);
    slurm.wait_for("its end", || !["RUNNING", "COMPLETING"].contains(&slurm.field(&task, "JobState").as_str()));
    assert_eq!((slurm.field(&task, "JobState").as_str(), slurm.field(&task, "Restarts").as_str()), ("CANCELLED", "0"));
    let stopped = program(&["status", shown]).output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", stdout(&stopped));
}
