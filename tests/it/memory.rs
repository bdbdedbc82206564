//! Memory that runs out: micro-batches become smaller, and where that is not enough the program says what would be.

use crate::support::{SMOKE, golden, program, repeats_to_the_bit, run};
use ppo_train::algo::aggregate::token_mean;
use ppo_train::dist::Solo;
use ppo_train::model::{Head, ModelConfig, Policy, Weights};
use ppo_train::optim::AdamW;
use ppo_train::torch::{AdamWStep, test_device, to_host};
use ppo_train::train::batch::{Batch, MicroBatch, Sequence};
use ppo_train::train::descent::{OptimizerStep, Sums, descend};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use tch::{Device, Kind, Tensor};

/// Takes more memory than any machine has.
fn run_out() {
    let _ = Tensor::zeros([1i64 << 60], (Kind::Float, test_device()));
}

fn sequences() -> Vec<Sequence> {
    let sequence = |i: i64| Sequence { prompt: (1..4 + i % 3).collect(), response: (5..9 + i % 4).collect() };
    (0..8).map(sequence).collect()
}

/// The weights and the figure after one step on all sequences, whose micro-batches have room for `room` tokens: those
/// that have more run out of memory, half of the time after the passes of others. Starts with micro-batches of `first`
/// tokens, and returns what they have in the end.
fn step(first: usize, room: usize) -> anyhow::Result<(Vec<f32>, f64, usize)> {
    let dir = golden("qwen2_tiny");
    let config = ModelConfig::from_dir(&dir).unwrap();
    let policy =
        Policy::trainable(&config, Weights::load(&dir, &config, Head::Language, Kind::Float, test_device()).unwrap());
    let mut optimizer = AdamW::new(&policy.weights, &Solo);
    let all = sequences();
    let all: Vec<&Sequence> = all.iter().collect();
    let batch = Batch::new(&all, first, test_device(), &Solo);
    let hyper = AdamWStep { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
    let mut steps = [OptimizerStep { optimizer: &mut optimizer, max_norm: 1.0, hyper }];
    let mut sums = Sums::of(&["loss"], test_device());
    let mut calls = 0;
    descend(&batch, 0..all.len(), token_mean, &mut steps, &mut sums, |micro: &MicroBatch, weights, sums| {
        calls += 1;
        if micro.tokens.ids.numel() > room && (calls > 1 || batch.micro_tokens() < first) {
            run_out();
        }
        let log_probs = policy.log_probs(&policy.hidden(&micro.tokens), &micro.targets, 1.0);
        let loss = -(log_probs * weights).sum(Kind::Float);
        sums.add("loss", &loss);
        loss
    })?;
    Ok((to_host(policy.weights.flat()), sums.read(&Solo)?["loss"], batch.micro_tokens()))
}

#[test]
fn a_mini_batch_that_runs_out_of_memory_is_done_again_in_smaller_parts() {
    if !repeats_to_the_bit("a step in smaller parts") {
        return;
    }
    let (weights, loss, tokens) = step(40, 20).unwrap();
    assert!((10..=20).contains(&tokens), "{tokens}");
    // It is the very step of a run whose micro-batches were as small from the start.
    let (same, same_loss, _) = step(tokens, usize::MAX).unwrap();
    assert!(weights == same && loss == same_loss && loss > 0.0, "{loss} {same_loss}");
    // Single sequences cannot be made smaller.
    let error = step(60, 0).unwrap_err().to_string();
    assert!(error.starts_with("not enough memory: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn scores_that_run_out_of_memory_are_computed_in_smaller_parts() {
    let all = sequences();
    let all: Vec<&Sequence> = all.iter().collect();
    let scores = |first: usize, room: usize| {
        let batch = Batch::new(&all, first, test_device(), &Solo);
        let [scores] = batch.score(|micro| {
            if micro.tokens.ids.numel() > room {
                run_out();
            }
            [micro.targets.to_kind(Kind::Float)]
        })?;
        anyhow::Ok((to_host(&scores), batch.micro_tokens()))
    };
    let (whole, tokens) = scores(1000, usize::MAX).unwrap();
    assert_eq!(tokens, 1000);
    let (parts, tokens) = scores(1000, 24).unwrap();
    assert!(parts == whole && tokens <= 24);
    assert!(scores(1000, 3).is_err());
}

#[test]
fn a_model_that_is_too_large_is_an_error_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let base = fs::read_to_string("checkpoints/countdown-base/config.json").unwrap();
    let mut config: Value = serde_json::from_str(&base).unwrap();
    for (key, value) in [("hidden_size", 1 << 16), ("intermediate_size", 1 << 20), ("num_hidden_layers", 1 << 10)] {
        config[key] = value.into();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let model = format!("model.path={:?}", dir.path());
    let tokenizer = "model.tokenizer='checkpoints/countdown-base'";
    let out = dir.path().join("out");
    let output = run(1, &[SMOKE, "--out", out.to_str().unwrap(), "--set", &model, "--set", tokenizer]);
    let said = String::from_utf8(output.stderr).unwrap();
    let error = &said[said.find("error: ").unwrap()..];
    assert!(error.starts_with("error: not enough memory") && error.contains("in the phase \"actor update\""), "{said}");
    assert!(error.contains("\n    memory.gradient_checkpointing = true ") && error.contains(" GiB\n"), "{said}");
    assert!(error.contains("still too much for this machine") && !error.contains("RUST_BACKTRACE"), "{said}");
}

#[test]
fn rust_code_that_runs_out_of_memory_ends_with_a_word() {
    if test_device() != Device::Cpu {
        return; // the libraries of a GPU map more than that
    }
    let limited = ["-c", "ulimit -v 6000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ppo-train"), "generate"];
    let more = ["checkpoints/countdown-base", "--prompt", "7+25=", "--max-tokens", "500", "--samples", "100000"];
    let mut command = std::process::Command::new("sh");
    let command = command.args(limited).args(more).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("error: not enough memory"), "{said}");
    let output = program(&["generate", "checkpoints/countdown-base", "--prompt", "7", "--samples", "100001"]).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}
