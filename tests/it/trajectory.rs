//! Reference trajectories: three short runs whose metrics and final weights equal those recorded in
//! tests/golden/trajectory, to the last digit. Changing the numbers is a decision: record them again with
//! `UPDATE_TRAJECTORIES=1 cargo test trajectories`, and give the reason in the commit.
//!
//! The runs use one thread and the instructions that every x86-64 processor has, so that one recording is valid on all.

use super::support::{SMOKE, golden, is_measured, program, repeats_to_the_bit};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const VARIANTS: [(&str, &[&str]); 3] = [
    ("separate_critic", &[]),
    ("shared_critic", &["ppo.critic='shared'", "ppo.critic_warmup_steps=1"]),
    ("grpo", &["ppo.advantage='grpo'", "ppo.kl_in='loss'", "ppo.kl_estimator='k3'"]),
];

/// Keeps libtorch, its two matrix libraries and the C library from choosing code by the processor.
const ANY_PROCESSOR: [(&str, &str); 4] = [
    ("ATEN_CPU_CAPABILITY", "default"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-AVX512F,-AVX512F_Usable"),
];

/// The records of a run without what depends on the machine, and hashes of its last checkpoint.
fn trajectory(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let machine = |name: &str| name == "texts" || is_measured(name);
    let record = |line: &str| {
        let all: Map<String, Value> = serde_json::from_str(line).unwrap();
        Value::Object(all.into_iter().filter(|(name, _)| !machine(name)).collect())
    };
    let files = ["start/model.safetensors", "step_000004/model/model.safetensors", "step_000004/optimizer.safetensors"];
    let hash = |file: &str| {
        let bytes = std::fs::read(run.join(file)).unwrap();
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (file.to_string(), Value::from(digest))
    };
    json!({
        "records": text.lines().map(record).collect::<Vec<_>>(),
        "sha256": files.iter().copied().map(hash).collect::<Map<_, _>>(),
    })
}

#[test]
fn trajectories_are_as_recorded() {
    if !repeats_to_the_bit("trajectories as recorded") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, sets) in VARIANTS {
        let out = dir.path().join(name);
        let mut command = program(&[SMOKE, "--out", out.to_str().unwrap()]);
        command.args(sets.iter().flat_map(|set| ["--set", set])).envs(ANY_PROCESSOR);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let (found, file) = (trajectory(&out), golden(&format!("trajectory/{name}.json")));
        if std::env::var_os("UPDATE_TRAJECTORIES").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        }
        let expected: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let records = |value: &Value| value["records"].as_array().unwrap().clone();
        assert_eq!(records(&found).len(), records(&expected).len(), "{name}");
        for (found, expected) in records(&found).iter().zip(&records(&expected)) {
            for (key, value) in expected.as_object().unwrap() {
                let place = format!("{name}, {} {}, {key}", expected["stage"], expected["step"]);
                assert_eq!(found.get(key), Some(value), "{place}");
            }
            assert_eq!(found.as_object().unwrap().len(), expected.as_object().unwrap().len(), "{name}");
        }
        assert_eq!(found["sha256"], expected["sha256"], "{name}");
    }
}
