//! What comes from outside is bounded before it is used: numbers, files that are none, depth, length, and what a
//! terminal would obey. Each case is one command that is refused in a moment, with one message.

use crate::support::{SMOKE, program, run};
use ppo_train::torch::test_device;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tch::Device;

/// Runs a command that must end with `code` within a few seconds; returns what it said. It may use 8 GB of memory.
fn within_bounds(code: i32, args: &[&str]) -> String {
    let mut shell = Command::new("sh");
    // The libraries of a GPU map more than that.
    let most = if test_device() == Device::Cpu { "8000000" } else { "unlimited" };
    let limited = format!("ulimit -v {most}; exec \"$@\"");
    shell.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_ppo-train")]).args(args);
    let shell = shell.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let mut child = shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{args:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let shown = said.get(..600).unwrap_or(&said);
    assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}: {shown}");
    assert!(!said.contains('\u{1b}') && said.len() < 10_000, "{shown}");
    assert_eq!(said.matches("error: ").count(), 1, "{shown}");
    said
}

/// A copy of the quickstart's model, whose config.json is changed.
fn model(dir: &Path, name: &str, key: &str, value: Value) -> String {
    let copy = dir.join(name);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir("checkpoints/countdown-base").unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let path = copy.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
    copy.display().to_string()
}

#[test]
fn numbers_of_a_model_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    for (i, (key, value, said)) in [
        ("initializer_range", (-0.02).into(), "initializer_range = -0.02: expected a number from 0 to 1e1"),
        ("initializer_range", 1e300.into(), "initializer_range = 1e300: expected a number from 0 to"),
        ("rms_norm_eps", (-1.0).into(), "rms_norm_eps = -1: expected a number from 0 to 1e0"),
        ("rms_norm_eps", 1e300.into(), "rms_norm_eps = 1e300: expected"),
        ("rope_theta", 1e-300.into(), "rope_theta = 1e-300: expected a number from 1 to 1e15"),
        ("vocab_size", i64::MAX.into(), "vocab_size = 9223372036854775807: expected a number from 1 to 16777216"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("model.path={:?}", model(dir.path(), &i.to_string(), key, value));
        let error = within_bounds(2, &["plan", SMOKE, "--set", &path]);
        assert!(error.contains(said), "{key}: {error}");
    }
    // A tokenizer that was extended, and a config that was not: other ends are there.
    for (name, id) in [("544", 544), ("-1", -1), ("far", i64::MAX)] {
        let path = format!("model.path={:?}", model(dir.path(), name, "eos_token_id", id.into()));
        let noted = String::from_utf8(run(0, &["plan", SMOKE, "--set", &path]).stderr).unwrap();
        assert!(noted.contains(&format!("config.json ends texts at the id {id}, which is not in the")), "{noted}");
    }
}

#[test]
fn numbers_of_arguments_and_recipes_are_bounded() {
    let generate = ["generate", "checkpoints/countdown-base", "--prompt", "7+25="];
    for (more, said) in [
        (&["--max-tokens", "9223372036854775807"][..], "is not in 1..=16777216"),
        (&["--max-tokens", "18446744073709551600"], "is not in 1..=16777216"),
        (&["--max-tokens", "0"], "is not in 1..=16777216"),
        (&["--max-tokens", "600"], "4 prompt tokens and 600 new ones, expected"),
        (&["--temperature", "nan"], "expected 0, or a number from 0.001 to 100"),
        (&["--temperature", "1e-300"], "expected 0, or a number from 0.001 to 100"),
        (&["--temperature=-1"], "expected 0, or a number from 0.001 to 100"),
        (&["--temperature", "inf"], "expected 0, or a number from 0.001 to 100"),
        (&["--samples", "18446744073709551615"], "is not in 1..=100000"),
    ] {
        let error = within_bounds(2, &[&generate[..], more].concat());
        assert!(error.contains(said), "{more:?}: {error}");
    }
    for (set, said) in [
        ("rollout.temperature=1e-300", "`rollout.temperature` is 1e-300, expected a number from 0.001 to 100"),
        ("rollout.temperature=1e300", "`rollout.temperature` is 1e300, expected"),
        ("task.train=1000000000", "the splits have 1000000032 problems, but there are not more than 266175 of such"),
        ("sft.train=1000000000", "`sft.train` is 1000000000, expected a whole number of at most 10000000"),
        ("ppo.steps=9223372036854775807", "expected a whole number of at most 1000000000"),
        ("machine.threads=5000", "expected a whole number of at most 4096"),
    ] {
        let error = within_bounds(2, &["plan", SMOKE, "--set", set]);
        assert!(error.contains(said), "{set}: {error}");
    }
    for memory in ["nan", "inf", "-1", "0"] {
        let memory = format!("--memory={memory}");
        assert!(within_bounds(2, &["plan", SMOKE, &memory]).contains("a number of GiB"), "{memory}");
    }
    let teacher = ["dialogues", "none.jsonl", "--out", "none", "--temperature", "1e-300"];
    assert!(within_bounds(2, &teacher).contains("--temperature 1e-300: expected 0, or a number from 0.001"));
    // More than there is, is all there is, written as it comes.
    let all = run(0, &["data", SMOKE, "--traces", "--count", "18446744073709551615"]);
    assert_eq!(String::from_utf8(all.stdout).unwrap().lines().count(), 64);
}

#[test]
fn keys_messages_and_recipes_are_bounded() {
    let key = |parts: usize| vec!["a"; parts].join(".");
    for (set, said) in [
        (format!("{}=x y", key(60_000)), "a key has at most 8 parts"),
        (format!("{}=3", key(60_000)), "a key has at most 8 parts"),
        (format!("{}=3", key(8)), "unknown section [a]"),
        (format!("{}=3", "a".repeat(120_000)), "bytes are left out]"),
    ] {
        let error = within_bounds(2, &["plan", SMOKE, "--set", &set]);
        assert!(error.contains(said), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let large = write("large.toml", format!("name = \"large\"\n# {}\n", "x".repeat(1 << 20)));
    assert!(within_bounds(2, &["plan", &large]).contains("cannot be read: it is larger than 1048576 bytes"));
    for i in 0..100 {
        write(&format!("{i}.toml"), format!("extends = \"{}.toml\"\n# {}\n", i + 1, "x".repeat(100_000)));
    }
    let chain = dir.path().join("0.toml").display().to_string();
    assert!(within_bounds(2, &["plan", &chain]).contains("a recipe consists of at most 16 files"));
}

#[test]
fn pipes_and_devices_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display().to_string();
    for (i, (path, what)) in [(pipe.as_str(), "a pipe"), ("/dev/zero", "a device")].into_iter().enumerate() {
        let recipe = dir.path().join("extends.toml");
        fs::write(&recipe, format!("extends = {path:?}\nname = \"x\"\n")).unwrap();
        let recipe = recipe.display().to_string();
        let (data, template) =
            (format!("sft.data={{ kind = 'file', path = {path:?} }}"), format!("prompt.template={path:?}"));
        let split = format!("task.train_file={path:?}");
        let others = ["--set", "task.validation_file='a'", "--set", "task.test_file='b'"];
        let not_a_file = format!("is {what}, not a file");
        for args in [
            vec!["plan", path],
            vec!["plan", &recipe],
            vec!["plan", SMOKE, "--set", &data],
            vec!["plan", SMOKE, "--set", &template],
            [&["plan", SMOKE, "--set", &split][..], &others].concat(),
        ] {
            let error = within_bounds(2, &args);
            assert!(error.contains(&not_a_file) && !error.contains("did you mean"), "{args:?}: {error}");
        }
        let error = within_bounds(2, &["compare", path]);
        assert!(error.contains(&format!("{path} is {what}, not the folder of a run")), "{error}");
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let folder = PathBuf::from(model(dir.path(), &format!("{file}-{i}"), "hidden_act", "silu".into()));
            let _ = fs::remove_file(folder.join(file));
            symlink(path, folder.join(file)).unwrap();
            let error = within_bounds(2, &["generate", folder.to_str().unwrap(), "--prompt", "7"]);
            assert!(error.contains(file) && error.contains(&not_a_file), "{file}: {error}");
        }
        let folder = PathBuf::from(model(dir.path(), &format!("weights-{i}"), "hidden_act", "silu".into()));
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        symlink(path, folder.join("model.safetensors")).unwrap();
        let error = within_bounds(2, &["generate", folder.to_str().unwrap(), "--prompt", "7"]);
        assert!(error.contains("has no weights (model.safetensors"), "{error}");
        // A run would copy it into every checkpoint.
        let folder = PathBuf::from(model(dir.path(), &format!("copied-{i}"), "hidden_act", "silu".into()));
        symlink(path, folder.join("merges.txt")).unwrap();
        let path = format!("model.path={:?}", folder.display().to_string());
        let out = dir.path().join(format!("out-{i}")).display().to_string();
        let error = within_bounds(1, &[SMOKE, "--out", &out, "--set", &path, "--set", "sft.train=16"]);
        assert!(error.contains("merges.txt") && error.contains(&not_a_file), "{error}");
    }
}

/// What files hold reaches a terminal spelt out, in errors and in what commands print.
#[test]
fn control_characters_of_files_are_spelt_out() {
    let dir = tempfile::tempdir().unwrap();
    // A tensor's name: the head of the weights is JSON with room for it.
    let folder = PathBuf::from(model(dir.path(), "escape", "hidden_act", "silu".into()));
    let weights = folder.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    let head = head.replace("model.layers.0.mlp.gate_proj.weight", "gate\\u001b[2J").into_bytes();
    fs::write(&weights, [&(head.len() as u64).to_le_bytes(), &head[..], &bytes[8 + length..]].concat()).unwrap();
    let folder = folder.display().to_string();
    within_bounds(2, &["generate", &folder, "--prompt", "7"]);

    let run_folder = dir.path().join("run");
    fs::create_dir(&run_folder).unwrap();
    let line = |step| format!("{{\"stage\":\"ppo\",\"step\":{step},\"val/\\u001b[2J\\u009b/accuracy\":0.5}}\n");
    fs::write(run_folder.join("metrics.jsonl"), line(1) + &line(2)).unwrap();
    let output = program(&["compare", "--any", run_folder.to_str().unwrap()]).output().unwrap();
    for said in [output.stdout, output.stderr] {
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains(['\u{1b}', '\u{9b}']), "{said:?}");
    }
}

#[test]
fn a_checkpoint_is_evaluated_and_exported_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let source = model(dir.path(), "source", "hidden_act", "silu".into());
    let (out, path) = (dir.path().join("run"), format!("model.path={source:?}"));
    let sets = ["--set", "ppo.steps=1", "--set", "evaluation.problems=2", "--set", "sft.train=16", "--set", &path];
    run(0, &[&[SMOKE, "--out", out.to_str().unwrap()][..], &sets].concat());
    let step = out.join("step_000001");
    let eval = |from: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ppo-train"));
        let output = command.arg("eval").arg(&step).args(["--problems", "2"]).current_dir(from).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let here = eval(Path::new(env!("CARGO_MANIFEST_DIR")));
    // The recipe's model is gone, and the working folder is another one.
    fs::remove_dir_all(&source).unwrap();
    assert!(eval(dir.path()) == here);
    // Without its mark it is no checkpoint.
    fs::remove_file(step.join("COMPLETE")).unwrap();
    let exported = dir.path().join("exported").display().to_string();
    let error = within_bounds(2, &["export", step.to_str().unwrap(), &exported]);
    assert!(error.contains("step_000001 is not complete") && !Path::new(&exported).exists(), "{error}");
    // A model folder has no checksums: what is wrong with a file is said by who reads it.
    let folder = dir.path().join("plain");
    fs::rename(step.join("model"), &folder).unwrap();
    let generate = ["generate", folder.to_str().unwrap(), "--prompt", "7"];
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let file = folder.join(file);
        let whole = fs::read(&file).unwrap();
        File::options().write(true).open(&file).unwrap().set_len(20).unwrap();
        let error = within_bounds(2, &generate);
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        fs::write(&file, whole).unwrap();
    }
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert!(within_bounds(2, &generate).contains("no tokenizer: "));
}
