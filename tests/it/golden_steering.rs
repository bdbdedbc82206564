//! Steering in the engine against transformers with a forward hook (scripts/golden_steering.py), and rows of a batch
//! against each other.

use crate::golden_model::load;
use crate::support::{assert_close, repeats_to_the_bit, tensors};
use ppo_train::model::{Policy, Steer};
use ppo_train::rollout::{Engine, Response, Sampling, Steering, Stop};
use ppo_train::torch::{ids_to_host, on_device, test_device, to_host};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use tch::{Kind, Tensor};

const MODELS: [&str; 2] = ["qwen2_tiny", "llama_tiny"];
/// The golden cases: their names, the layer, and from which token of the prompt on it is steered.
const CASES: [(&str, usize, Option<usize>); 4] =
    [("0.response", 0, None), ("0.prompt", 0, Some(0)), ("0.after_begin", 0, Some(1)), ("1.response", 1, None)];

fn engine<'a>(policy: &'a Policy, sampling: Sampling, stop: Stop<'a>, steering: Option<&'a Steering>) -> Engine<'a> {
    Engine { policy, sampling, stop, vocabulary: 64, batch: 0, goes_on: &|| true, steering }
}

#[test]
fn steered_logits_equal_transformers() {
    let golden = tensors("steering.safetensors");
    for name in MODELS {
        let (policy, _) = load(name);
        let [prompt, direction, strengths] =
            ["prompt", "direction", "strengths"].map(|part| &golden[&format!("{name}.{part}")]);
        let (prompt, vector, strengths) = (ids_to_host(prompt), to_host(direction), to_host(strengths));
        for (case, layer, prompt_from) in CASES {
            let part = |part: &str| &golden[&format!("{name}.{case}.{part}")];
            let (tokens, logits) = (part("tokens"), part("logits")); // [S, T], [S, T, V]
            let (rows, count) = tokens.size2().unwrap();

            let responses = strengths.iter().map(|strength| (0, f64::from(*strength))).collect();
            let steering = Steering::new(&policy.config, layer, &[&vector], responses, prompt_from).unwrap();
            let stop = Stop { ends: &|_, _| false, max_tokens: count as usize };
            let engine = engine(&policy, Sampling::greedy(), stop, Some(&steering));
            let stream = |_: usize, _: usize| ChaCha8Rng::seed_from_u64(0);
            let found = engine.generate(std::slice::from_ref(&prompt), rows as usize, stream, |_| ());
            let chosen = logits.log_softmax(-1, Kind::Float).gather(-1, &tokens.unsqueeze(-1), false).squeeze_dim(-1);
            for (row, response) in found.iter().enumerate() {
                let what = format!("{name} {case}, strength {}", strengths[row]);
                let own = tokens.get(row as i64);
                assert_eq!(response.ids, ids_to_host(&own), "{what}");
                assert_close(&what, &Tensor::from_slice(&response.log_probs), &chosen.get(row as i64), 1e-5);

                // All logits, in one pass over prompt and response.
                let first = prompt.len() as i64;
                let ids = Tensor::cat(&[on_device(&prompt, test_device()), own.narrow(0, 0, count - 1)], 0);
                let added = (direction * f64::from(strengths[row])).view([1, 1, -1]);
                let from = prompt_from.map_or(first, |from| from as i64);
                let hidden = policy.decoder.forward_tapped(&ids.unsqueeze(0), &mut Steer { layer, added, from });
                let whole = policy.logits(&hidden).get(0).narrow(0, first - 1, count);
                assert_close(&what, &whole, &logits.get(row as i64), 1e-5);
            }
        }
    }
}

/// Prompts of uneven lengths, several strengths and two directions for each, rows that end early and leave the batch.
#[test]
fn strengths_follow_their_rows() {
    let golden = tensors("steering.safetensors");
    for name in MODELS {
        let (policy, _) = load(name);
        let direction = to_host(&golden[&format!("{name}.direction")]);
        let other: Vec<f32> = direction.iter().rev().copied().collect();
        let directions = [direction.as_slice(), &other];
        let (prompts, conditions) =
            ([vec![5, 3, 8, 2, 7], vec![1], vec![9, 8, 7, 6]], [(0, 0.0), (0, 5.0), (1, 5.0), (0, -3.0), (1, 0.0)]);
        let ends = |_: usize, ids: &[i64]| ids.last().is_some_and(|last| [3, 17, 40, 41, 42, 43].contains(last));
        let sampling = Sampling { temperature: 1.2, ..Sampling::plain() };
        // The same numbers for a prompt in all conditions.
        let stream = |prompt: usize, _: usize| ChaCha8Rng::seed_from_u64(prompt as u64);
        let written = |conditions: Option<&[(usize, f64)]>, prompt_from: Option<usize>, batch: usize| {
            let samples = conditions.map_or(1, <[_]>::len);
            let steering = conditions.map(|conditions| {
                let all = conditions.repeat(prompts.len());
                Steering::new(&policy.config, 0, &directions, all, prompt_from).unwrap()
            });
            let stop = Stop { ends: &ends, max_tokens: 16 };
            let engine = Engine { batch, ..engine(&policy, sampling.clone(), stop, steering.as_ref()) };
            engine.generate(&prompts, samples, stream, |_| ())
        };
        let plain = written(None, None, 0);
        if repeats_to_the_bit("a strength of 0") {
            assert_eq!(written(Some(&[(0, 0.0)]), None, 0), plain, "{name}");
        }
        for prompt_from in [None, Some(0), Some(1)] {
            let together = written(Some(&conditions), prompt_from, 0);
            assert!(together.iter().any(|r| r.terminated && r.ids.len() < 8) && together.iter().any(|r| !r.terminated));
            let texts: std::collections::HashSet<_> = together.iter().map(|response| &response.ids).collect();
            assert!(texts.len() > 6, "{name}: {} different responses", texts.len());
            let same = |what: &str, found: &[&Response], expected: &[&Response]| {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert_eq!(found.ids, expected.ids, "{name} {prompt_from:?}: {what}");
                    let [a, b] = [found, expected].map(|response| Tensor::from_slice(&response.log_probs));
                    assert_close(what, &a, &b, 1e-5);
                }
            };
            let of = |condition: usize| together.iter().skip(condition).step_by(conditions.len()).collect::<Vec<_>>();
            for (at, condition) in conditions.iter().enumerate() {
                let alone = written(Some(&[*condition]), prompt_from, 0);
                same(&format!("{condition:?} alone"), &of(at), &alone.iter().collect::<Vec<_>>());
            }
            same("a strength of 0", &of(0), &plain.iter().collect::<Vec<_>>());
            let parts = written(Some(&conditions), prompt_from, 5);
            same("in batches", &parts.iter().collect::<Vec<_>>(), &together.iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_cannot_be_added_is_refused() {
    let (policy, _) = load("qwen2_tiny");
    let refused = |layer: usize, direction: &[f32], strength: f64| {
        let steering = Steering::new(&policy.config, layer, &[direction], vec![(0, strength)], None);
        steering.err().unwrap().to_string()
    };
    let fits = [1.0f32; 32];
    assert_eq!(refused(2, &fits, 1.0), "there is no layer 2: the model has 2, from 0 to 1");
    assert_eq!(refused(0, &fits[1..], 1.0), "a direction has 31 numbers, but the model's residual stream 32");
    let broken = [&fits[1..], &[f32::NAN]].concat();
    assert_eq!(refused(0, &broken, 1.0), "direction 0 has numbers that are not finite");
    for strength in [f64::NAN, f64::INFINITY, 1e39] {
        let message = format!("a strength of {strength} takes the direction beyond the range of float32");
        assert_eq!(refused(0, &fits, strength), message);
    }
}
