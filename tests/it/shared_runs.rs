//! Runs that several processes share, compared with those of one.

use crate::support::{SMOKE, steps};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A run of few steps with an odd batch.
pub fn arguments(out: &Path) -> Vec<&str> {
    let sets = [
        "machine.threads=1",
        // Adam makes steps of the learning rate's size of gradients that are rounding, and whitening makes
        // advantages of the rounding of rewards that are all 0.
        "sft.lr=1e-4",
        "ppo.actor_lr=1e-5",
        "ppo.critic_lr=1e-5",
        "ppo.whiten=false",
        "sft.train=21",
        "sft.batch=7",
        "rollout.prompts_per_step=5",
        "rollout.samples_per_prompt=1",
        "ppo.mini_batch=5",
        "ppo.micro_batch_tokens=150",
        "ppo.kl_coef=0.1",
        "evaluation.problems=5",
        "checkpoints.every=1",
        "checkpoints.keep_last=8",
    ];
    let sets = sets.into_iter().flat_map(|set| ["--set", set]);
    [SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets).collect()
}

fn weights(out: &Path, step: usize) -> Vec<f32> {
    let file = out.join(format!("step_{step:06}/model/model.safetensors"));
    let mut tensors = tch::Tensor::read_safetensors(file).unwrap();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors.iter().flat_map(|(_, tensor)| ppo_train::torch::to_host(tensor)).collect()
}

/// Asserts that two runs had the same steps and came to the same weights, but for rounding.
pub fn assert_same(one: &Path, other: &Path) {
    let (a, b) = (steps(one), steps(other));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (step, figures) in &a {
        for (name, value) in figures.iter().filter(|(name, _)| !name.starts_with("global_seqlen")) {
            let (Some(value), Some(expected)) = (value.as_f64(), b[step][name].as_f64()) else { continue };
            assert!((value - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{step} {name}: {value} {expected}");
        }
    }
    let last = *a.keys().last().unwrap() as usize;
    let pairs: Vec<(f32, f32)> = weights(one, last).into_iter().zip(weights(other, last)).collect();
    let worst = pairs.iter().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(pairs.len() > 1000 && worst <= 1e-5, "{worst}");
}

pub fn wait_for(what: &str, limit: Duration, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < limit, "{what} takes too long");
        sleep(Duration::from_millis(20));
    }
}
