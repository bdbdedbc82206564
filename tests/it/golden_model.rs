//! The decoder against transformers: logits, log-probs and gradients of three small models (scripts/golden_model.py).

use crate::support::{assert_close, golden, tensors};
use ppo_train::dist::Solo;
use ppo_train::model::{Head, ModelConfig, Policy, Tokens, Weights};
use ppo_train::optim::AdamW;
use ppo_train::rollout::{Engine, Sampling, Stop};
use ppo_train::torch::{AdamWStep, ids_to_host, on_device, test_device, to_host};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::HashMap;
use tch::{Kind, Tensor};

const MODELS: [&str; 3] = ["qwen2_tiny", "qwen3_tiny", "llama_tiny"];

pub fn load(name: &str) -> (Policy, HashMap<String, Tensor>) {
    let dir = golden(name);
    let config = ModelConfig::from_dir(&dir).unwrap();
    let weights = Weights::load(&dir, &config, Head::Language, Kind::Float, test_device()).unwrap();
    (Policy::trainable(&config, weights), tensors(&format!("{name}.safetensors")))
}

/// For right-padded `ids` with `lengths`: flat positions that predict a real token, and those tokens.
fn next_tokens(ids: &Tensor, lengths: &[i64]) -> (Tensor, Tensor) {
    let width = ids.size()[1];
    let read: Vec<i64> =
        lengths.iter().enumerate().flat_map(|(row, n)| (0..n - 1).map(move |t| row as i64 * width + t)).collect();
    let read = on_device(&read, ids.device());
    let targets = ids.flatten(0, 1).index_select(0, &(&read + 1));
    (read, targets)
}

/// The mean negative log-prob of the golden batch.
fn loss(policy: &Policy, golden: &HashMap<String, Tensor>) -> Tensor {
    let (read, targets) = next_tokens(&golden["ids"], &ids_to_host(&golden["lengths"]));
    -policy
        .log_probs(&policy.hidden(&Tokens::padded(golden["ids"].shallow_clone(), read.shallow_clone())), &targets, 1.0)
        .mean(Kind::Float)
}

#[test]
fn logits_and_log_probs_equal_transformers() {
    for name in MODELS {
        let (policy, golden) = load(name);
        let lengths = ids_to_host(&golden["lengths"]);
        let logits = policy.logits(&policy.decoder.forward(&golden["ids"]));
        for (row, length) in lengths.iter().enumerate() {
            let real = |t: &Tensor| t.get(row as i64).narrow(0, 0, *length);
            assert_close(&format!("{name} logits of row {row}"), &real(&logits), &real(&golden["logits"]), 1e-5);
        }
        let (read, targets) = next_tokens(&golden["ids"], &lengths);
        let log_probs = policy.log_probs(
            &policy.hidden(&Tokens::padded(golden["ids"].shallow_clone(), read.shallow_clone())),
            &targets,
            1.0,
        );
        let valid: Vec<Tensor> =
            lengths.iter().enumerate().map(|(row, n)| golden["logprobs"].get(row as i64).narrow(0, 0, n - 1)).collect();
        assert_close(&format!("{name} log-probs"), &log_probs, &Tensor::cat(&valid, 0), 1e-5);

        let long = policy.logits(&policy.decoder.forward(&golden["long_ids"]));
        assert_close(&format!("{name} far positions"), &long.narrow(1, 36, 4), &golden["long_logits"], 1e-5);
    }
}

#[test]
fn gradients_equal_transformers() {
    for name in MODELS {
        // Plain, with recomputed layers, and with the vocabulary in parts of three rows as well.
        for (checkpointed, part) in [(false, 1 << 25), (true, 1 << 25), (true, 3 * 64)] {
            let (mut policy, golden) = load(name);
            policy.decoder.gradient_checkpointing = checkpointed;
            policy.vocabulary_part = part;
            loss(&policy, &golden).backward();
            for (parameter, tensor) in policy.weights.entries() {
                let expected = &golden[&format!("grad.{parameter}")];
                assert_close(&format!("{name} {parameter}"), &tensor.grad(), expected, 1e-5);
            }
        }
    }
}

/// Half the bits, and on a CPU another attention kernel if a gradient is needed: still the same model.
#[test]
fn bfloat16_stays_near_transformers() {
    for name in MODELS {
        let (float, golden) = load(name);
        let half =
            Weights::load(&crate::support::golden(name), &float.config, Head::Language, Kind::BFloat16, test_device());
        let policy = Policy::trainable(&float.config, half.unwrap());
        let (learning, read) = (loss(&policy, &golden), tch::no_grad(|| loss(&policy, &golden)));
        assert_close(&format!("{name} loss"), &learning, &loss(&float, &golden), 1e-2);
        assert_close(&format!("{name} loss"), &learning, &read, 1e-2);
        learning.backward();
        let entries = policy.weights.entries();
        let flat =
            |gradients: Vec<Tensor>| Tensor::cat(&gradients.iter().map(|g| g.flatten(0, -1)).collect::<Vec<_>>(), 0);
        let found = flat(entries.iter().map(|(_, tensor)| tensor.grad().to_kind(Kind::Float)).collect());
        let expected = flat(entries.iter().map(|(at, _)| golden[&format!("grad.{at}")].shallow_clone()).collect());
        let error = ((&found - &expected).norm() / expected.norm()).double_value(&[]);
        assert!(error < 0.05, "{name}: the gradient is off by {error} of its length");
    }
}

/// Entropies in parts, and their gradient, are those of the whole.
#[test]
fn a_vocabulary_in_parts_changes_nothing() {
    let measure = |part: i64| {
        let (mut policy, golden) = load("qwen3_tiny");
        policy.vocabulary_part = part;
        let (read, targets) = next_tokens(&golden["ids"], &ids_to_host(&golden["lengths"]));
        let (log_probs, entropies) = policy.log_probs_and_entropies(
            &policy.hidden(&Tokens::padded(golden["ids"].shallow_clone(), read.shallow_clone())),
            &targets,
            0.7,
        );
        let grad = policy.weights.open_gradient().unwrap();
        (&log_probs * 2.0 - &entropies * &log_probs).sum(Kind::Float).backward();
        (log_probs.detach(), entropies.detach(), grad)
    };
    let (log_probs, entropies, grad) = measure(1 << 25);
    assert!(to_host(&entropies).iter().all(|e| (0.0..64f32.ln()).contains(e)));
    for part in [1, 64, 5 * 64] {
        let parts = measure(part);
        assert_close("log-probs", &parts.0, &log_probs, 1e-6);
        assert_close("entropies", &parts.1, &entropies, 1e-6);
        assert_close("gradients", &parts.2, &grad, 1e-5);
    }
}

#[test]
fn ten_steps_of_training_follow_torch() {
    let (policy, golden_tensors) = load("llama_tiny");
    let text = std::fs::read_to_string(golden("optim_losses.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut optimizer = AdamW::new(&policy.weights, &Solo);
    let hyper = AdamWStep { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    for (step, expected) in expected["losses"].as_array().unwrap().iter().enumerate() {
        let loss = loss(&policy, &golden_tensors);
        let (got, expected) = (loss.double_value(&[]), expected.as_f64().unwrap());
        assert!((got - expected).abs() < 1e-4 * expected.abs(), "step {step}: {got} {expected}");
        optimizer.begin().unwrap();
        loss.backward();
        optimizer.accumulate(&Solo).unwrap();
        let _figures = optimizer.step(&Solo, 0.0, hyper, &Tensor::from(0f32)).unwrap();
    }
}

/// Greedy and sampled generation, whose every token comes from the cache, against the full forward pass.
#[test]
fn decoding_with_the_cache_equals_the_full_forward() {
    for name in MODELS {
        let (policy, golden) = load(name);
        let stop = Stop { ends: &|_, _| false, max_tokens: 16 };
        let mut engine = Engine {
            policy: &policy,
            sampling: Sampling::greedy(),
            stop,
            vocabulary: 64,
            batch: 0,
            goes_on: &|| true,
            steering: None,
        };
        let stream = |p: usize, s: usize| ChaCha8Rng::seed_from_u64((p * 10 + s) as u64);
        let prompt = ids_to_host(&golden["greedy_prompt"]);
        let greedy = &engine.generate(std::slice::from_ref(&prompt), 1, stream, |_| ())[0];
        assert_eq!(greedy.ids, ids_to_host(&golden["greedy_tokens"]), "{name}");

        // Prompts of uneven lengths, several samples each, rows that end early.
        let prompts = [prompt, vec![1], vec![9, 8, 7, 6, 5, 4, 3, 2, 1]];
        engine.sampling = Sampling { temperature: 1.3, greedy: false, ..Sampling::greedy() };
        let ends = |_: usize, ids: &[i64]| ids.last().is_some_and(|last| [3, 17, 40].contains(last));
        engine.stop.ends = &ends;
        let responses = engine.generate(&prompts, 4, stream, |_| ());
        assert!(responses.iter().any(|r| r.terminated) && responses.iter().any(|r| r.ids.len() > 4));
        for (i, response) in responses.iter().enumerate() {
            assert!(response.terminated || response.ids.len() == 16);
            let prompt = &prompts[i / 4];
            let all = [prompt.as_slice(), &response.ids].concat();
            let read =
                Tensor::arange_start(prompt.len() as i64 - 1, all.len() as i64 - 1, (Kind::Int64, test_device()));
            let ids = on_device(&all, test_device()).unsqueeze(0);
            let full = policy.log_probs(
                &policy.hidden(&Tokens::padded(ids, read)),
                &on_device(&response.ids, test_device()),
                1.3,
            );
            assert_close(&format!("{name} response {i}"), &Tensor::from_slice(&response.log_probs), &full, 1e-5);
        }

        // Samples do not depend on the batch they are drawn in.
        engine.batch = 4;
        let alone = engine.generate(&prompts, 4, stream, |_| ());
        let ids = |rs: &[ppo_train::rollout::Response]| rs.iter().map(|r| r.ids.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&alone), ids(&responses), "{name}");
    }
}

#[test]
fn a_folder_that_does_not_fit_is_refused_with_its_tensors_named() {
    let dir = golden("qwen2_tiny");
    let mut config = ModelConfig::from_dir(&dir).unwrap();
    config.intermediate_size += 1;
    config.num_hidden_layers += 1;
    let error = Weights::load(&dir, &config, Head::Language, Kind::Float, test_device()).err().unwrap().to_string();
    for part in [
        "mlp.up_proj.weight in ",
        ": shape [48, 32], expected [49, 32]",
        "model.layers.2.mlp.down_proj.weight: missing",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(error.lines().count() == 10 && error.ends_with("\n  and 10 more"), "{error}");
}
