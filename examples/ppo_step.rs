//! One PPO step on plain tensors: a policy over eight actions, two episodes of three actions each, one update.
//!
//! cargo run --example ppo_step

#![allow(clippy::print_stdout)] // an example has something to show

use ppo_train::algo::advantage::{gae, token_rewards, whiten};
use ppo_train::algo::aggregate::token_mean;
use ppo_train::algo::loss::{Clip, policy_loss};
use tch::{Device, Kind, Tensor, no_grad};

fn main() {
    // The policy is a row of logits per action, [N, V], without a model behind it.
    let actions = Tensor::from_slice(&[3i64, 1, 4, 1, 5, 2]);
    let logits = Tensor::zeros([6, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let log_probs =
        |logits: &Tensor| logits.log_softmax(-1, Kind::Float).gather(1, &actions.unsqueeze(1), false).squeeze_dim(1);
    let old = log_probs(&logits).detach(); // [N]

    // The first episode earns 1, the second nothing; the critic expected 0.5 before every action.
    let lengths = [3, 3];
    let rewards = token_rewards(&[1.0, 0.0], &[0.0; 6], 0.0, &lengths);
    let (mut advantages, returns) = gae(&rewards, &[0.5; 6], &lengths, 1.0, 0.95);
    whiten(&mut advantages);
    println!("returns     {returns:.3?}");
    println!("advantages  {advantages:.3?}");

    // One step along the gradient of the clipped surrogate.
    let clip = Clip { low: 0.2, high: 0.2, dual: 0.0 };
    let weights = Tensor::from_slice(&token_mean(&lengths));
    let update = policy_loss(&log_probs(&logits), &old, &Tensor::from_slice(&advantages), &weights, clip);
    update.loss.backward();
    let new = no_grad(|| log_probs(&(&logits - logits.grad() * 0.5)));
    let ratios: Vec<f32> = Vec::try_from((new - old).exp()).expect("a row of numbers");
    println!("ratios      {ratios:.3?}");
    assert!(ratios[..3].iter().all(|ratio| *ratio > 1.0) && ratios[3..].iter().all(|ratio| *ratio < 1.0));
}
