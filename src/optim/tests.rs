//! The optimizer against the published algorithm, in parts, and divided among ranks.

use super::*;
use crate::dist::threads::Thread;
use crate::dist::{Solo, offer};
use crate::model::{Head, ModelConfig};
use crate::torch::test_device;

impl AdamW {
    /// As if a backward pass had produced this gradient.
    fn put(&self, gradient: &Tensor) {
        self.gradient.as_ref().unwrap().open.shallow_clone().copy_(gradient);
    }
}

/// Steps; returns the norm.
fn descend(optimizer: &mut AdamW, max_norm: f64, hyper: AdamWStep) -> f64 {
    let [norm, _] = optimizer.step(&Solo, max_norm, hyper, &Tensor::from(0f32)).unwrap();
    norm.double_value(&[])
}

/// A model small enough to step by hand.
fn config() -> ModelConfig {
    ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "max_position_embeddings": 8}"#,
    )
    .unwrap()
}

const HYPER: AdamWStep = AdamWStep { lr: 0.1, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1 };

#[test]
fn steps_equal_the_published_algorithm() {
    let mut weights = Weights::random(&config(), Head::Language, Kind::Float, test_device(), 3).unwrap();
    weights.require_grad();
    let mut optimizer = AdamW::new(&weights, &Solo);
    let mut naive: Vec<f64> = to_host(weights.flat()).into_iter().map(f64::from).collect();
    let (mut m, mut v) = (vec![0.0; naive.len()], vec![0.0; naive.len()]);
    for t in 1..=5 {
        let grad: Vec<f32> = (0..naive.len()).map(|i| ((i * 7 + t * 3) % 11) as f32 / 5.0 - 1.0).collect();
        optimizer.begin().unwrap();
        optimizer.put(&Tensor::from_slice(&grad));
        let norm = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let reported = descend(&mut optimizer, 1.0, HYPER);
        assert!((reported - norm).abs() < 1e-3 * norm);
        for i in 0..naive.len() {
            let g = f64::from(grad[i]) / (norm + 1e-6);
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            let (mhat, vhat) = (m[i] / (1.0 - 0.9f64.powi(t as i32)), v[i] / (1.0 - 0.99f64.powi(t as i32)));
            naive[i] -= 0.1 * (mhat / (vhat.sqrt() + 1e-8) + 0.1 * naive[i]);
        }
    }
    for (got, expected) in to_host(weights.flat()).iter().zip(&naive) {
        assert!((f64::from(*got) - expected).abs() < 2e-5, "{got} {expected}");
    }
    assert!(weights.entries().iter().all(|(_, tensor)| !tensor.grad().defined()));
}

/// Parts that hold several tensors, the last one shorter. Their length is a multiple of a vector register's: the
/// kernel may round elements that do not fill a register differently.
#[test]
fn a_step_in_parts_is_the_same_step() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let stepped = |part: Option<i64>| {
            let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
            weights.require_grad();
            let mut optimizer = AdamW::new(&weights, &Solo);
            optimizer.at_once = part.unwrap_or(optimizer.at_once);
            for step in 0..3 {
                let grad = Tensor::arange(weights.flat().size()[0], (Kind::Float, test_device())) * 0.1 + step;
                optimizer.begin().unwrap();
                optimizer.put(&grad.sin());
                optimizer.accumulate(&Solo).unwrap();
                descend(&mut optimizer, 1.0, HYPER);
            }
            to_host(weights.flat())
        };
        assert_eq!(stepped(None), stepped(Some(96)));
    }
}

#[test]
fn bfloat16_keeps_what_its_weights_cannot_hold() {
    let mut weights = Weights::random(&config(), Head::Language, Kind::BFloat16, test_device(), 3).unwrap();
    weights.require_grad();
    let mut optimizer = AdamW::new(&weights, &Solo);
    let before = to_host(weights.flat());
    let hyper = AdamWStep { lr: 1e-5, weight_decay: 0.0, ..HYPER };
    // One such step is lost in bfloat16's eight bits; a thousand of them must not be.
    for _ in 0..1000 {
        optimizer.begin().unwrap();
        optimizer.put(&Tensor::from(1.0f32));
        optimizer.accumulate(&Solo).unwrap();
        descend(&mut optimizer, 0.0, hyper);
    }
    let moved =
        to_host(weights.flat()).iter().zip(&before).map(|(a, b)| f64::from(b - a)).sum::<f64>() / before.len() as f64;
    assert!((moved - 0.01).abs() < 0.002, "{moved}");
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
        weights.require_grad();
        let mut optimizer = AdamW::new(&weights, &Solo);
        let before = to_host(weights.flat());
        for poison in [f32::NAN, f32::INFINITY] {
            optimizer.begin().unwrap();
            optimizer.put(&Tensor::from(poison));
            assert_eq!(optimizer.broken_gradients().len(), weights.entries().len());
            optimizer.accumulate(&Solo).unwrap();
            assert!(!descend(&mut optimizer, 1.0, HYPER).is_finite());
        }
        // A gradient of a loss that is not finite.
        optimizer.begin().unwrap();
        optimizer.put(&Tensor::from(1f32));
        assert!(optimizer.broken_gradients().is_empty());
        optimizer.accumulate(&Solo).unwrap();
        let [norm, sum] = optimizer.step(&Solo, 1.0, HYPER, &Tensor::from(f32::NAN)).unwrap();
        assert!(norm.double_value(&[]).is_nan() && sum.double_value(&[]).is_finite());
        assert_eq!(to_host(weights.flat()), before);
        assert!(optimizer.state().iter().all(|(_, state, _)| to_host(state).iter().all(|x| x.is_finite())));
    }
}

/// Two and three ranks with a third and a half of the gradient each; parts that do not divide the buffer evenly.
#[test]
fn ranks_with_a_part_each_take_the_same_step() {
    for (kind, divides) in [(Kind::Float, false), (Kind::BFloat16, false), (Kind::BFloat16, true)] {
        let stepped = |comm: &dyn Comm| {
            let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
            weights.require_grad();
            let mut optimizer = AdamW::new(&weights, comm);
            optimizer = if divides { optimizer.dividing_gradients(comm) } else { optimizer };
            assert_eq!(optimizer.divides_gradients(), divides && comm.size() > 1);
            let total = weights.flat().size()[0];
            let mut norms = vec![];
            for step in 0..3 {
                let grad = (Tensor::arange(total, (Kind::Float, test_device())) * 0.1 + step).sin();
                optimizer.begin().unwrap();
                // Two micro-batches.
                for share in [0.25, 0.75] {
                    optimizer.put(&(&grad * (share / comm.size() as f64)));
                    optimizer.accumulate(comm).unwrap();
                }
                let [norm, _] = optimizer.step(comm, 1.0, HYPER, &Tensor::from(0f32)).unwrap();
                norms.push(norm.double_value(&[]));
            }
            let mut state = vec![];
            let mut keep = |piece: &Tensor| {
                state.push(to_host(piece));
                Ok(())
            };
            offer(comm, &optimizer.state(), |offer| offer.take(&mut keep)).unwrap();
            (to_host(weights.flat()), norms, state, optimizer.exp_avg.numel() as i64)
        };
        let (weights, norms, state, total) = stepped(&Solo);
        for size in [2, 3] {
            let held = std::thread::scope(|scope| {
                let ranks: Vec<_> = Thread::group(size)
                    .into_iter()
                    .map(|comm| scope.spawn(move || (comm.is_first(), stepped(&comm))))
                    .collect();
                ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
            });
            let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-2);
            assert_eq!(held.iter().map(|(_, rank)| rank.3).sum::<i64>(), total);
            for (first, (own, own_norms, own_state, _)) in &held {
                assert_eq!(own, &held[0].1.0, "all ranks have the same weights");
                assert!(near(own, &weights));
                assert!(own_norms.iter().zip(&norms).all(|(a, b)| (a - b).abs() < 1e-2 * b));
                assert_eq!(own_state.len(), if *first { state.len() } else { 0 });
                assert!(own_state.iter().zip(&state).all(|(a, b)| near(a, b)));
            }
        }
    }
}
