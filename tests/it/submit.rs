//! What `submit` writes: the script for Slurm, held to a golden text and run by bash with a program, a `squeue` and a
//! `scontrol` that only note what they are asked. tests/it/slurm.rs runs it on Slurm itself.

use super::support::{SMOKE, golden, json, kill, program, run, stdout};
use ppo_train::cluster::{Job, Site, script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SITE: &str = "\
gpus = 4
cpus = 8
memory = 200
at_once = 2
before = [\"module load cuda\"]

[slurm]
partition = \"gpu\"
account = \"the lab\"
time = \"4:00:00\"
nodes = 2
srun = [\"--mpi=pmix\"]
container = [\"apptainer\", \"exec\", \"--nv\", \"my image.sif\"]
mail = \"a@example.org\"
options = [\"--exclusive\"]
";

/// Makes `dir` the folder of a model whose weights are not there; returns the overrides that name it.
fn without_weights(dir: &Path) -> [String; 4] {
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(Path::new("checkpoints/countdown-base").join(file), dir.join(file)).unwrap();
    }
    let path = format!("model.path={}", dir.display());
    ["--set".into(), "model.random_weights=false".into(), "--set".into(), path]
}

#[test]
fn a_dry_run_prints_the_job_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (site, out) = (dir.path().join("site.toml"), dir.path().join("runs/x"));
    fs::write(&site, SITE).unwrap();
    let submit = ["submit", SMOKE, "--dry-run", "--out", out.to_str().unwrap(), "--set", "machine.device=cuda:7"];
    let printed = |more: &[&str]| {
        let text = stdout(&run(0, &[&submit[..], more].concat())).replace(dir.path().to_str().unwrap(), "DIR");
        text.replace(env!("CARGO_BIN_EXE_ppo-train"), "PROGRAM").replace(env!("CARGO_MANIFEST_DIR"), "ROOT")
    };
    let site = ["--site", site.to_str().unwrap(), "--processes", "8"];
    for (name, more) in [("plain", &["--seeds", "1..3"][..]), ("site", &[&site[..], &["--seeds", "1,4,7"]].concat())] {
        let (text, path) = (printed(more), golden("submit").join(format!("{name}.sbatch")));
        if std::env::var_os("UPDATE_SUBMIT").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == kept, "{} is not current: UPDATE_SUBMIT=1 cargo test dry_run\n{text}", path.display());
    }
    let described = json(&run(0, &[&submit[..], &["--seeds", "3,5", "--json"]].concat()));
    assert_eq!((described["file"].as_str(), described["job"].as_str()), (None, None));
    let at = |end: &str| out.with_file_name(format!("x{end}")).to_str().unwrap().to_string();
    assert_eq!(described["runs"], serde_json::json!([at("-3"), at("-5")]));
    assert_eq!(described["logs"], serde_json::json!([at("-3.log"), at("-5.log")]));
    assert!(described["text"].as_str().unwrap().contains("#SBATCH --array=3,5\n"));
    assert!(!out.parent().unwrap().exists());
}

#[test]
fn what_cannot_be_submitted_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (site, out) = (dir.path().join("site.toml"), dir.path().join("x"));
    fs::write(&site, "[slurm]\npartiton = \"gpu\"\n").unwrap();
    let wide = dir.path().join("wide.toml");
    fs::write(&wide, "slurm.nodes = 2").unwrap();
    let wide = wide.to_str().unwrap();
    let pods = dir.path().join("pods.toml");
    fs::write(&pods, "[kubernetes]\nimage = \"lab/ppo:1\"\nclaim = \"work\"\n").unwrap();
    let pods = pods.to_str().unwrap();
    let (site, shown) = (site.to_str().unwrap(), out.to_str().unwrap());
    let submit = ["submit", SMOKE, "--out", shown, "--seeds"];
    let odd = dir.path().join("a\nb");
    let model = tempfile::tempdir().unwrap();
    let unfetched = without_weights(model.path());
    for (more, parts) in [
        (&["1", "--site", site][..], &["site.toml:2:1", "unknown key `partiton` in [slurm]", "`partition`?"][..]),
        (&["1001", "--dry-run"], &["the seed 1001 cannot be the index of a task", "Slurm takes seeds from 0 to 1000"]),
        (&["1", "--dry-run", "--site", wide], &["on 2 nodes has at least as many processes, and not 1", "--processes"]),
        (&["1,1"], &["the seed 1 is there twice"]),
        (&["1", "--kubernetes"], &["expected --site FILE with image and claim"]),
        (&["1", "--kubernetes", "--site", pods], &["x is not in the volume, which is at /work", "relative to /work"]),
        (&["1", "--set", "ppo.mini_batch=7"], &["ppo.mini_batch"]),
        (&[&["1"], &unfetched.each_ref().map(String::as_str)[..]].concat(), &["model.safetensors"]),
        (&["1", "--dry-run", "--processes", "0"], &["--processes"]),
        (&["1"], &["there is no sbatch on this machine", "--dry-run"]),
    ] {
        let mut command = program(&[&submit[..], more].concat());
        let refused = command.env("PATH", "").output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{more:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{more:?}: {said}");
    }
    let odd = String::from_utf8(
        run(2, &["submit", SMOKE, "--dry-run", "--seeds", "1", "--out", odd.to_str().unwrap()]).stderr,
    );
    assert!(odd.unwrap().contains("cannot be written into a script"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);

    // A run of another recipe is in the way.
    run(0, &[SMOKE, "--out", shown, "--seeds", "2", "--set", "ppo.steps=1"]);
    let refused =
        run(2, &["submit", SMOKE, "--out", shown, "--dry-run", "--seeds", "1..2", "--set", "ppo.kl_coef=0.5"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("x-2 holds a run of another recipe") && said.contains("ppo.kl_coef"), "{said}");
}

#[test]
fn a_manifest_is_written_for_kubernetes() {
    let dir = tempfile::tempdir().unwrap();
    let (site, out) = (dir.path().join("site.toml"), dir.path().join("x"));
    let keys = "gpus = 1\n[kubernetes]\nimage = \"lab/ppo:1\"\nclaim = \"work\"\n";
    fs::write(&site, format!("{keys}mount = {:?}\n", dir.path())).unwrap();
    let (site, out) = (site.to_str().unwrap(), out.to_str().unwrap());
    // The weights are not here, and in the volume the pods would not find them either.
    let model = tempfile::tempdir().unwrap();
    let sets = without_weights(model.path());
    let submit = ["submit", SMOKE, "--kubernetes", "--out", out, "--seeds", "1..3", "--site", site];
    let written = run(0, &[&submit[..], &sets.each_ref().map(String::as_str)].concat());
    let (printed, note) = (stdout(&written), String::from_utf8(written.stderr).unwrap());
    let text = fs::read_to_string(format!("{out}.yaml")).unwrap();
    assert!(printed.starts_with(&text) && printed.contains(&format!("kubectl apply -f {out}.yaml")), "{printed}");
    assert!(text.contains("completions: 3\n") && text.contains("random_weights = false\n"), "{text}");
    assert!(note.contains("note: ") && note.contains("model.safetensors"), "{note}");
    let place = format!("warning: `model.path` is {}, which is not in the volume", model.path().display());
    assert!(note.contains(&place) && note.matches("warning: ").count() == 1, "{note}");
}

/// A folder with a script and the programs it calls, all with names that a shell could misread.
struct Stage {
    dir: tempfile::TempDir,
    script: PathBuf,
}

const ODD: &str = "it's $(touch no) `touch no` \"a;b\" & 50% #*~";

impl Stage {
    /// `does`: what the program does, after it has noted its arguments. `state`: what `squeue` says.
    fn new(does: &str, state: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(ODD);
        fs::create_dir(&odd).unwrap();
        let command = |path: &Path, text: &str| {
            fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let said = |name: &str| format!("printf '%s\\n' \"$@\" >> \"{}/{name}\"", dir.path().display());
        command(&odd.join("program"), &format!("{}\n{does}", said("asked")));
        command(&dir.path().join("scontrol"), &said("scontrol.log"));
        command(&dir.path().join("squeue"), &format!("echo '{state}'"));
        let job = Job {
            name: ODD.into(),
            recipe: String::new(),
            seeds: vec![3],
            out: odd.join("out"),
            folder: odd.clone(),
            program: odd.join("program").to_str().unwrap().into(),
            processes: 1,
        };
        let site: Site = toml::from_str("restarts = 2\nbefore = [\"pwd > ../where\"]").unwrap();
        let path = dir.path().join("job.sbatch");
        fs::write(&path, script(&job, &site).unwrap()).unwrap();
        Self { script: path, dir }
    }

    fn bash(&self, restarts: Option<u32>) -> Command {
        let mut bash = Command::new("bash");
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").unwrap());
        bash.arg(&self.script).env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::piped());
        bash.envs([("SLURM_ARRAY_JOB_ID", "70"), ("SLURM_ARRAY_TASK_ID", "3")]);
        bash.env_remove("SLURM_RESTART_COUNT").envs(restarts.map(|count| ("SLURM_RESTART_COUNT", count.to_string())));
        bash
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str) {
        let started = Instant::now();
        while self.read(name).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(60), "{name} does not come");
            sleep(Duration::from_millis(5));
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_task_is_queued_again_until_its_run_is_finished() {
    let stops = "[ \"$(grep -c seeds ../asked)\" -gt 2 ] && exit 0; exit 75";
    let stage = Stage::new(stops, "RUNNING None");
    for (restarts, code) in [(None, 75), (Some(1), 75), (Some(2), 0)] {
        let ended = stage.bash(restarts).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{}", said(&ended));
    }
    assert_eq!(stage.read("scontrol.log"), "requeue\n70_3\n".repeat(2));
    let odd = stage.dir.path().join(ODD);
    let out = odd.join("out");
    let asked = format!("{0}.toml\n--out\n{0}\n--seeds\n3\n", out.display());
    assert_eq!(stage.read("asked"), asked.repeat(3));
    assert_eq!(stage.read("where"), format!("{}\n", odd.display()));
    assert!(!odd.join("no").exists() && !stage.dir.path().join("no").exists());
}

#[test]
fn a_task_is_not_queued_again_after_a_failure_or_too_often_or_when_it_was_cancelled() {
    let requeues = |does: &str, state: &str, restarts: Option<u32>, code: i32| {
        let stage = Stage::new(does, state);
        let ended = stage.bash(restarts).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{}", said(&ended));
        (!stage.read("scontrol.log").is_empty(), said(&ended))
    };
    for code in [0, 1, 2, 101, 143] {
        assert!(!requeues(&format!("exit {code}"), "RUNNING None", None, code).0, "{code}");
    }
    let (again, said) = requeues("exit 75", "RUNNING None", Some(2), 75);
    assert!(!again && said.contains("stopped, and not queued again: it was restarted 2 times"), "{said}");
    assert!(!requeues("exit 75", "COMPLETING None", None, 75).0, "cancelled, or queued again by Slurm");
    assert!(requeues("exit 75", "COMPLETING TimeLimit", None, 75).0);
}

#[test]
fn a_signal_reaches_the_program_once() {
    // As a program that saves its work and stops; a second signal of the same kind would be noted too.
    let saves = "trap 'echo USR1 >> ../heard' USR1; trap 'echo TERM >> ../heard' TERM; echo yes > ../ready\n\
                 while [ ! -e ../end ]; do sleep 0.05; done; exit 75";
    let deaf = "echo yes > ../ready; exec sleep 60";
    for (does, signals, heard) in
        [(saves, &["-USR1"][..], "USR1\n"), (saves, &["-TERM", "-TERM", "-USR1"], "USR1\n"), (deaf, &["-TERM"], "")]
    {
        let stage = Stage::new(does, "RUNNING None");
        let child: Child = stage.bash(None).spawn().unwrap();
        stage.wait_for("ready");
        for signal in signals {
            kill(signal, &child);
            sleep(Duration::from_millis(100));
        }
        fs::write(stage.dir.path().join("end"), "").unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(75), "{signals:?}: {}", said(&ended));
        assert_eq!((stage.read("heard").as_str(), stage.read("scontrol.log").as_str()), (heard, "requeue\n70_3\n"));
    }
}
