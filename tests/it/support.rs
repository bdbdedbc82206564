//! What several tests need.

use ppo_train::metrics::measures_machine;
use ppo_train::torch::{kind_of, test_device, test_device_name, to_host};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tch::{Device, Tensor};

pub const SMOKE: &str = "recipes/smoke.toml";

/// Everything that a step may depend on: adaptive KL, critic warm-up, a schedule, evaluations; a checkpoint each step.
pub const STATEFUL: [&str; 9] = [
    "rollout.prompts_per_step=4",
    "ppo.kl_target=0.001",
    "ppo.kl_horizon=37",
    "ppo.kl_coef=0.1",
    "ppo.critic_warmup_steps=1",
    "ppo.lr_schedule='cosine'",
    "ppo.warmup_ratio=0.5",
    "checkpoints.every=1",
    "evaluation.problems=4",
];

/// Whether a name in metrics.jsonl is that of a figure which measures the machine.
pub fn is_measured(name: &str) -> bool {
    name == "time" || measures_machine(name)
}

/// A file of tests/golden.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// All tensors of a golden file, on the device of the tests.
pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(golden(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |data: safetensors::tensor::TensorView| {
        let shape: Vec<i64> = data.shape().iter().map(|d| *d as i64).collect();
        Tensor::from_data_size(data.data(), &shape, kind_of(data.dtype()).unwrap()).to_device(test_device())
    };
    file.iter().map(|(name, data)| (name.to_string(), tensor(data))).collect()
}

/// Asserts that the largest difference is at most `bound` of the expected tensor's largest magnitude.
pub fn assert_close(what: &str, got: &Tensor, expected: &Tensor, bound: f64) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let (got, expected) = (to_host(got), to_host(expected));
    let scale = expected.iter().fold(1e-12f64, |m, e| m.max(f64::from(e.abs())));
    let worst = got.iter().zip(&expected).map(|(g, e)| f64::from((g - e).abs())).fold(0.0, f64::max);
    assert!(
        worst.is_finite() && worst <= bound * scale,
        "{what}: off by {worst:.3e}, largest {scale:.3e}, bound {bound:.0e}"
    );
}

/// The program with these arguments, started from the repository. Runs of recipes are on the device of the tests.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppo-train"));
    command.args(args).args(device_of(args)).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// The arguments that put a run on the device of the tests, unless it says itself where it wants to be.
pub fn device_of(args: &[&str]) -> Vec<String> {
    let is_run = args.first().is_some_and(|first| first.ends_with(".toml"));
    let says = args.iter().any(|arg| arg.starts_with("machine.device"));
    let set = format!("machine.device='{}'", test_device_name());
    if is_run && !says { vec!["--set".into(), set] } else { vec![] }
}

/// Whether tests run on the CPU, where sums are rounded the same each time and as recorded. Elsewhere says what is not
/// tested for that.
pub fn repeats_to_the_bit(what: &str) -> bool {
    let on_cpu = test_device() == Device::Cpu;
    if !on_cpu {
        let why = "where sums are rounded in another order each time";
        let _ = writeln!(std::io::stderr(), "not tested on {:?}, {why}: {what}", test_device());
    }
    on_cpu
}

/// Runs to the end; the exit code must be `code`.
pub fn run(code: i32, args: &[&str]) -> Output {
    let output = program(args).output().unwrap();
    let shown = || (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {:?}", shown());
    output
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Scalars of the PPO steps in a run's metrics.jsonl, without those that measure the machine.
pub fn steps(run: &Path) -> BTreeMap<u64, BTreeMap<String, Value>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["stage"] == "ppo")
        .map(|row| {
            let scalars = row.as_object().unwrap().iter().filter(|(name, _)| !is_measured(name));
            (row["step"].as_u64().unwrap(), scalars.map(|(n, v)| (n.clone(), v.clone())).collect())
        })
        .collect()
}

/// Sends a signal, such as `-INT`.
pub fn kill(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}
