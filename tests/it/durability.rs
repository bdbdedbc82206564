//! What can happen to a run in progress: readers that go away, a second process, another recipe, signals.

use super::support::{SMOKE, kill, program, repeats_to_the_bit, run, steps};
use ppo_train::checkpoint::RunFolder;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// A run that continues until it is stopped, after its first two steps.
fn endless(out: &Path) -> Child {
    let args = [SMOKE, "--out", out.to_str().unwrap(), "--set", "ppo.steps=100000", "--set", "evaluation.every=0"];
    let child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !out.join("step_000002/COMPLETE").exists() {
        assert!(started.elapsed() < Duration::from_secs(300), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// The last step that is done in what a run has saved.
fn last_saved(out: &Path) -> usize {
    let folder = RunFolder::new(out);
    let unfinished = fs::read_to_string(folder.unfinished_step(0).state()).unwrap_or("{\"step\": 0}".into());
    let unfinished: serde_json::Value = serde_json::from_str(&unfinished).unwrap();
    let newest = folder.latest().unwrap().map_or(0, |checkpoint| checkpoint.step);
    newest.max(unfinished["step"].as_u64().unwrap() as usize)
}

#[test]
fn a_signal_leaves_a_checkpoint_and_exit_code_75() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-HUP", "-USR1", "-USR2"] {
        let out = dir.path().join(signal);
        let mut child = endless(&out);
        kill(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
        let last = last_saved(&out) as u64;
        assert_eq!(steps(&out).keys().last(), Some(&last), "{signal}: the last step is in the checkpoint");
    }
}

/// The warm start goes on where it was, and ends with the very weights of one that was not interrupted.
#[test]
fn a_warm_start_is_resumed_to_the_bit() {
    if !repeats_to_the_bit("a warm start that is resumed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sets = ["--set", "ppo=unset", "--set", "sft.epochs=60", "--set", "sft.validation=0"];
    let train = |out: &Path| program(&[&[SMOKE, "--out", out.to_str().unwrap()][..], &sets].concat());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    assert_eq!(train(&whole).stdout(Stdio::null()).status().unwrap().code(), Some(0));
    let mut child = train(&parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let records = || fs::read_to_string(parts.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while records() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let kept = RunFolder::new(&parts).unfinished_start();
    assert!(kept.state().exists() && !parts.join("start").exists());
    run(0, &[&[SMOKE, "--out", parts.to_str().unwrap(), "--resume"][..], &sets].concat());
    assert!(!kept.path().exists());
    let weights = |out: &Path| fs::read(out.join("start/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&parts));
    let losses = |out: &Path| -> Vec<String> {
        let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let loss = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", record["step"], record["sft/loss"])
        };
        text.lines().map(loss).collect()
    };
    assert_eq!(losses(&whole), losses(&parts));
    let record = |out: &Path| fs::read_to_string(out.join("start/warm_start.json")).unwrap();
    assert_eq!(record(&whole), record(&parts));
}

#[test]
fn a_warm_start_does_not_go_on_with_other_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (dir.path().join("run"), dir.path().join("rows.jsonl"));
    let rows = |answer: &str| {
        let row = format!("{{\"prompt\": \"Numbers: 1 2\", \"response\": \"<answer>{answer}</answer>\"}}\n");
        fs::write(&file, row.repeat(64)).unwrap();
    };
    rows("1+2");
    let data = format!("sft.data={{ kind = \"file\", path = {file:?} }}");
    let sets = ["--set", "ppo=unset", "--set", "sft.epochs=1000", "--set", "sft.validation=0", "--set", &data];
    let args = [&[SMOKE, "--out", out.to_str().unwrap()][..], &sets].concat();
    let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    rows("2+1");
    let said = String::from_utf8(run(2, &[&args[..], &["--resume"]].concat()).stderr).unwrap();
    assert!(said.contains("the rows of the warm start have changed since it was interrupted"), "{said}");
}

#[test]
fn seeds_share_a_warm_start_that_they_do_not_reach() {
    if !repeats_to_the_bit("a shared warm start") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = |seeds| [SMOKE, "--out", out.to_str().unwrap(), "--seeds", seeds];
    let sets = ["--set", "ppo.steps=1", "--set", "sft.seed=5", "--set", "model.random_weights=false"];
    run(0, &[&args("1,3")[..], &sets].concat());
    let start = |seed: u64| out.with_file_name(format!("run-{seed}")).join("start");
    let weights = |seed| fs::read(start(seed).join("model.safetensors")).unwrap();
    assert!(weights(1) == weights(3));
    let trained = |seed: u64| {
        let metrics = fs::read_to_string(start(seed).with_file_name("metrics.jsonl")).unwrap();
        metrics.contains("sft/loss")
    };
    assert!(trained(1) && !trained(3));
    assert!(start(3).with_file_name("traces.json").exists());
    // Finished runs are those of this very recipe.
    let said = run(2, &[&args("1,3")[..], &sets, &["--set", "ppo.kl_coef=0.5"]].concat());
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("ppo.kl_coef: was 0.001, is 0.5"), "{said}");
    // Finished runs stay as they are; the start serves a run that names it.
    let said = run(0, &[&args("1..3")[..], &sets, &["--set", "evaluation.every=0"]].concat());
    assert!(weights(2) == weights(1) && !trained(2));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("seed 1: finished in ") && said.contains("seed 2: "), "{said}");
    assert!(said.contains(&format!(", which begins with {}\n", start(1).display())), "{said}");
    let from = format!("sft={{ from = {:?} }}", start(1));
    let other = dir.path().join("other");
    run(0, &[SMOKE, "--out", other.to_str().unwrap(), "--set", "ppo.steps=1", "--set", "sft=unset", "--set", &from]);
    assert!(fs::read(other.join("start/model.safetensors")).unwrap() == weights(1));
}

/// A recipe that shares its warm start between seeds gives each seed its own without that key.
#[test]
fn seeds_vary_the_warm_start_if_its_seed_is_unset() {
    let dir = tempfile::tempdir().unwrap();
    let (out, recipe) = (dir.path().join("run"), dir.path().join("recipe.toml"));
    let base = fs::canonicalize(SMOKE).unwrap();
    fs::write(&recipe, format!("extends = {base:?}\n[sft]\nseed = 5\n[model]\nrandom_weights = false\n")).unwrap();
    let args = [recipe.to_str().unwrap(), "--out", out.to_str().unwrap(), "--seeds", "1..3"];
    run(0, &[&args[..], &["--set", "ppo.steps=1", "--set", "sft.seed=unset"]].concat());
    let folder = |seed: u64| out.with_file_name(format!("run-{seed}"));
    let weights = |seed| fs::read(folder(seed).join("start/model.safetensors")).unwrap();
    assert!(weights(1) != weights(2) && weights(2) != weights(3) && weights(1) != weights(3));
    for seed in 1..=3 {
        assert!(fs::read_to_string(folder(seed).join("metrics.jsonl")).unwrap().contains("sft/loss"));
        let record = fs::read_to_string(folder(seed).join("start/warm_start.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!((&record["seed"], &record["sft"]["seed"]), (&seed.into(), &serde_json::Value::Null));
    }
    // They are still one arm.
    let folders: Vec<String> = (1..=3).map(|seed| folder(seed).display().to_string()).collect();
    let compared = run(0, &["compare", "--json", &folders[0], &folders[1], &folders[2]]);
    let compared: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!((compared["arms"].as_array().unwrap().len(), compared["runs"].as_array().unwrap().len()), (1, 3));
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = ["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ppo-train"), SMOKE, "--out"];
    let mut child = Command::new("sh")
        .args(args)
        .arg(&out)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !out.join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-HUP", &child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(out.join("step_000004/COMPLETE").exists());
}

#[test]
fn a_run_does_not_need_its_output_to_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (name, broken_out) in [("closed", false), ("full", true)] {
        let out = dir.path().join(name);
        let mut command = program(&[SMOKE, "--out", out.to_str().unwrap(), "--set", "ppo.steps=1"]);
        let (stdout, stderr) = if broken_out { (full(), full()) } else { (Stdio::piped(), Stdio::piped()) };
        let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        assert!(out.join("step_000001/COMPLETE").exists(), "{name}");
    }
}

#[test]
fn commands_that_print_exit_quietly_when_nobody_reads() {
    let commands: &[&[&str]] = &[
        &["plan", "recipes/quickstart.toml"],
        &["plan", "recipes/quickstart.toml", "--json"],
        &["data", SMOKE, "--count", "64"],
        &["generate", "checkpoints/countdown-base", "--prompt", "7+25=", "--max-tokens", "4"],
        &["generate", "checkpoints/countdown-base", "--prompt", "7+25=", "--max-tokens", "4", "--json"],
        &["--help"],
    ];
    for args in commands {
        let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
    // A full disk is not a reader who has seen enough.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = program(&["plan", SMOKE]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("error: cannot write to standard output: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn one_process_trains_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut first = endless(&out);
    for more in [&[][..], &["--resume"]] {
        let args = [&[SMOKE, "--out", out.to_str().unwrap()], more].concat();
        let refused = String::from_utf8(run(2, &args).stderr).unwrap();
        assert!(refused.contains(&format!("is in use by process {} on ", first.id())), "{refused}");
    }
    // The lock is free once its holder is gone, however it ended.
    kill("-KILL", &first);
    first.wait().unwrap();
    let last = RunFolder::new(&out).latest().unwrap().unwrap().step;
    let steps = format!("ppo.steps={}", last + 1);
    let sets = ["--resume", "--set", &steps, "--set", "evaluation.every=0"];
    run(0, &[&[SMOKE, "--out", out.to_str().unwrap()][..], &sets].concat());
}

#[test]
fn a_different_recipe_does_not_continue_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("run"));
    let resume = |code, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        run(code, &[SMOKE, "--out", &out, "--resume"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    run(0, &[SMOKE, "--out", &out, "--set", "ppo.steps=1"]);
    let files = || {
        let names = ["recipe.toml", "metrics.jsonl", "step_000001/recipe.toml"];
        names.map(|name| fs::read_to_string(Path::new(&out).join(name)).unwrap())
    };
    let before = files();
    for (set, shown) in [
        ("seed=2", "seed: was 1, is 2"),
        ("ppo.actor_lr=1e-3", "ppo.actor_lr: was 0.000001, is 0.001"),
        ("ppo.kl_coef=0.5", "ppo.kl_coef: was 0.001, is 0.5"),
        ("ppo.advantage='grpo'", "ppo.advantage: was \"gae\", is \"grpo\""),
        ("ppo.critic='shared'", "ppo.critic: was \"separate\", is \"shared\""),
        ("reward.format=0.2", "reward.format: was 0.1, is 0.2"),
        ("reward.rules='tinyzero'", "reward.rules"),
        ("task.max_number=20", "task.max_number: was 25, is 20"),
        ("rollout.temperature=0.9", "rollout.temperature"),
        ("sft.lr=1e-4", "sft.lr"),
        ("machine.precision='bfloat16'", "machine.precision"),
        ("model.random_weights=false", "model.random_weights"),
    ] {
        let message = String::from_utf8(resume(2, &[set, "ppo.steps=2"]).stderr).unwrap();
        assert!(message.contains(&format!("\n  {shown}")) && !message.contains("\n  ppo.steps"), "{set}: {message}");
        assert_eq!(files(), before, "{set}");
    }
    // Where a run is computed, how long it is and what it shows may change.
    let free = [
        "ppo.steps=2",
        "evaluation.problems=8",
        "checkpoints.every=1",
        "logging.tensorboard=false",
        "hooks.samples=0",
        "machine.threads=2",
        "memory.gradient_checkpointing=true",
        "rollout.batch=4",
        "name='other'",
    ];
    let said = String::from_utf8(resume(0, &free).stderr).unwrap();
    assert!(said.contains("continues with a changed recipe:") && said.contains("\n  ppo.steps: was 1, is 2"), "{said}");
    assert!(Path::new(&out).join("step_000002/COMPLETE").exists());
}

#[test]
fn an_adaptive_kl_coefficient_is_resumed_exactly() {
    if !repeats_to_the_bit("a run that is resumed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let train = |name: &str, stops: &[usize]| {
        let out = dir.path().join(name);
        for (i, stop) in stops.iter().enumerate() {
            let stop = format!("ppo.steps={stop}");
            let keys = ["ppo.kl_target=0.001", "ppo.kl_horizon=37", "ppo.kl_coef=0.1", "evaluation.every=0", &stop];
            let mut args = vec![SMOKE, "--out", out.to_str().unwrap()];
            args.extend(keys.iter().flat_map(|key| ["--set", key]));
            args.extend((i > 0).then_some("--resume"));
            run(0, &args);
        }
        steps(&out)
    };
    assert_eq!(train("whole", &[8]), train("parts", &[1, 2, 3, 4, 5, 6, 7, 8]));
}
