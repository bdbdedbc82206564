//! One whole PPO update against PyTorch (scripts/golden_ppo.py): rollout tensors in, new weights out.

use crate::support::{assert_close, golden, tensors};
use ppo_train::algo::aggregate::{sequence_mean, token_mean};
use ppo_train::algo::loss::{Clip, policy_loss, value_loss};
use ppo_train::algo::{advantage, kl};
use ppo_train::dist::Solo;
use ppo_train::model::{Critic, Head, ModelConfig, Policy, ValueHead, Weights};
use ppo_train::optim::AdamW;
use ppo_train::recipe::{Aggregation, Ppo};
use ppo_train::torch::{ids_to_host, on_device, test_device, to_host};
use ppo_train::train::batch::{Batch, Sequence};
use ppo_train::train::clock::Clock;
use ppo_train::train::descent::Scalars;
use ppo_train::train::estimates::estimate;
use ppo_train::train::experience::{Experience, Scored, experience};
use ppo_train::train::learner::{Estimator, Learner, Models, Reference};
use ppo_train::train::not_finite::NotFinite;
use ppo_train::train::update::{StepSettings, Updates};
use serde_json::Value;
use std::collections::HashMap;
use tch::{Kind, Tensor};

struct Case {
    config: ModelConfig,
    golden: HashMap<String, Tensor>,
    settings: Value,
    ppo: Ppo,
    temperature: f64,
    sequences: Vec<Sequence>,
}

impl Case {
    fn load() -> Self {
        let settings = settings("ppo_update.json");
        let golden_tensors = tensors("ppo_update.safetensors");
        let ragged = |name: &str| {
            let ids = ids_to_host(&golden_tensors[&format!("{name}_ids")]);
            let mut rest = ids.as_slice();
            let take = |n: &i64| {
                let (own, after) = rest.split_at(*n as usize);
                rest = after;
                own.to_vec()
            };
            ids_to_host(&golden_tensors[&format!("{name}_lengths")]).iter().map(take).collect::<Vec<_>>()
        };
        let sequences = ragged("prompt").into_iter().zip(ragged("response"));
        Self {
            config: ModelConfig::from_dir(&golden("qwen2_tiny")).unwrap(),
            ppo: serde_json::from_value(settings["ppo"].clone()).unwrap(),
            temperature: settings["rollout"]["temperature"].as_f64().unwrap(),
            sequences: sequences.map(|(prompt, response)| Sequence { prompt: prompt.into(), response }).collect(),
            golden: golden_tensors,
            settings,
        }
    }

    /// Weights under a prefix of the golden file.
    fn weights(&self, prefix: &str, head: Head) -> Weights {
        let weights = Weights::zeros(&self.config, head, Kind::Float, test_device());
        for (name, tensor) in weights.entries() {
            tensor.shallow_clone().copy_(&self.golden[&format!("{prefix}.{name}")]);
        }
        weights
    }

    fn actor(&self) -> Learner<Policy> {
        let dir = golden("qwen2_tiny");
        let weights = Weights::load(&dir, &self.config, Head::Language, Kind::Float, test_device()).unwrap();
        let model = Policy::trainable(&self.config, weights);
        Learner { optimizer: AdamW::new(&model.weights, &Solo), model }
    }

    fn critic(&self) -> Estimator {
        let model = Critic::trainable(&self.config, self.weights("critic", Head::Value));
        Estimator::Critic(Box::new(Learner { optimizer: AdamW::new(&model.weights, &Solo), model }))
    }

    fn models(&self, critic: Estimator) -> Models {
        let reference = Reference::new(Policy::new(&self.config, self.weights("ref", Head::Language)), test_device());
        Models { actor: self.actor(), critic: Some(critic), reference: Some(reference) }
    }

    /// The stages of a step, as the loop calls them, on the golden file's rollouts; `check` sees the experience before
    /// anything learns. Returns the updates of the critic and of the actor.
    fn step(&self, models: &mut Models, ppo: &Ppo, check: impl Fn(&Experience)) -> [Vec<Scalars>; 2] {
        let sequences: Vec<&Sequence> = self.sequences.iter().collect();
        let batch = Batch::new(&sequences, ppo.micro_batch_tokens, test_device(), &Solo);
        let estimates = estimate(models, &batch, self.temperature, &mut Clock::start()).unwrap();
        let (scores, lengths) = (to_host(&self.golden["scores"]), batch.lengths(0..sequences.len()));
        let scored = Scored { scores: &scores, lengths: &lengths, group: 2, kl_coef: ppo.kl_coef };
        let experience = experience(ppo, &scored, estimates);
        check(&experience);
        let Ppo { actor_lr, critic_lr, kl_coef, .. } = *ppo;
        let settings = StepSettings { actor_lr, critic_lr, kl_coef, temperature: self.temperature };
        let updates = Updates { ppo, settings, batch: &batch, experience: &experience };
        let [mut critic, mut actor] = [vec![], vec![]];
        updates.critic(models, false, &mut critic).unwrap();
        updates.actor(models, &mut actor).unwrap();
        [critic, actor]
    }

    fn check_weights(&self, prefix: &str, weights: &Weights) {
        for (name, tensor) in weights.entries() {
            assert_close(name, tensor, &self.golden[&format!("{prefix}.{name}")], 2e-4);
        }
    }
}

fn settings(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(file)).unwrap()).unwrap()
}

fn check_updates(updates: &[Scalars], expected: &Value) {
    let expected = expected.as_array().unwrap();
    assert_eq!(updates.len(), expected.len());
    for (i, (got, expected)) in updates.iter().zip(expected).enumerate() {
        for (name, expected) in expected.as_object().unwrap() {
            let (got, expected) = (got[name.as_str()], expected.as_f64().unwrap());
            assert!((got - expected).abs() < 2e-5 * expected.abs().max(0.1), "update {i} {name}: {got} {expected}");
        }
    }
}

#[test]
fn a_whole_update_equals_pytorch() {
    let case = Case::load();
    let mut models = case.models(case.critic());
    let [critic_updates, actor_updates] = case.step(&mut models, &case.ppo, |experience| {
        let estimates = &experience.estimates;
        for (name, got) in [
            ("old_logp", &estimates.old),
            ("ref_logp", estimates.reference.as_ref().unwrap()),
            ("values", estimates.values.as_ref().unwrap()),
            ("advantages", &experience.advantages),
            ("returns", &experience.returns),
        ] {
            assert_close(name, got, &case.golden[name], 1e-5);
        }
    });
    check_updates(&critic_updates, &case.settings["critic_updates"]);
    check_updates(&actor_updates, &case.settings["actor_updates"]);
    case.check_weights("actor_new", &models.actor.model.weights);
    case.check_weights("critic_new", models.critic.unwrap().weights());
}

#[test]
fn an_update_of_a_value_head_on_the_actor_equals_pytorch() {
    let case = Case::load();
    let golden = tensors("ppo_shared.safetensors");
    let weights = Weights::zeros(&case.config, Head::ValueOnly, Kind::Float, test_device());
    for (name, tensor) in weights.entries() {
        tensor.shallow_clone().copy_(&golden[name]);
    }
    let model = ValueHead::trainable(weights);
    let learner = Learner { optimizer: AdamW::new(&model.weights, &Solo), model };
    let mut models = case.models(Estimator::Head(Box::new(learner)));
    let [critic_updates, updates] = case.step(&mut models, &case.ppo, |experience| {
        let values = experience.estimates.values.as_ref().unwrap();
        for (name, got) in
            [("values", values), ("advantages", &experience.advantages), ("returns", &experience.returns)]
        {
            assert_close(name, got, &golden[name], 1e-5);
        }
    });
    assert!(critic_updates.is_empty());
    check_updates(&updates, &settings("ppo_shared.json")["updates"]);
    let critic = models.critic.unwrap();
    let learnt = models.actor.model.weights.entries().iter().chain(critic.weights().entries());
    let held: Vec<_> =
        learnt.filter_map(|(name, tensor)| Some((name, tensor, golden.get(&format!("new.{name}"))?))).collect();
    assert_eq!(held.len(), 4);
    for (name, tensor, expected) in held {
        assert_close(name, tensor, expected, 2e-4);
    }
}

/// The gradient of a mini-batch must not depend on how it is cut into micro-batches, for any loss and aggregation.
#[test]
fn micro_batches_do_not_change_the_gradient() {
    let case = Case::load();
    for aggregation in [Aggregation::TokenMean, Aggregation::SequenceMean] {
        let figures = |micro_batch_tokens: usize| -> Vec<f64> {
            let ppo = Ppo { aggregation, micro_batch_tokens, mini_batch: 8, ..case.ppo.clone() };
            let mut models = case.models(case.critic());
            let updates = case.step(&mut models, &ppo, |_| ());
            // The norms after one update depend on its gradient; those of the weights, on both.
            let weights = [models.actor.model.weights.flat().norm(), models.critic.unwrap().weights().flat().norm()];
            let updates = updates.iter().flatten().flat_map(|update| update.values().copied());
            updates.chain(weights.iter().map(|w| w.double_value(&[]))).collect()
        };
        let whole = figures(1 << 20);
        for micro in [1, 20, 33] {
            for (cut, whole) in figures(micro).iter().zip(&whole) {
                assert!((cut - whole).abs() < 1e-5 * whole.abs().max(0.1), "{aggregation:?} {micro}: {cut} {whole}");
            }
        }
    }
}

#[test]
fn pure_functions_equal_numpy() {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(golden("algo.json")).unwrap()).unwrap();
    let rows = |v: &Value| -> Vec<Vec<f32>> { serde_json::from_value(v.clone()).unwrap() };
    let close = |what: &str, got: &[f32], expected: &[f32]| {
        assert_eq!(got.len(), expected.len(), "{what}");
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() < 2e-5 * e.abs().max(1.0), "{what}: {got:?} {expected:?}");
        }
    };

    for case in all["gae"].as_array().unwrap() {
        let (rewards, values) = (rows(&case["rewards"]), rows(&case["values"]));
        let lengths: Vec<usize> = rewards.iter().map(Vec::len).collect();
        let (gamma, lambda) = (case["gamma"].as_f64().unwrap(), case["lambda"].as_f64().unwrap());
        let (advantages, returns) = advantage::gae(&rewards.concat(), &values.concat(), &lengths, gamma, lambda);
        close("gae", &advantages, &rows(&case["advantages"]).concat());
        close("returns", &returns, &rows(&case["returns"]).concat());
    }

    let case = &all["groups"];
    let scores = rows(&case["scores"]);
    let (group, count) = (scores[0].len(), scores.concat().len());
    close("grpo", &advantage::grpo(&scores.concat(), group, &vec![1; count]), &rows(&case["grpo"]).concat());
    close("rloo", &advantage::rloo(&scores.concat(), group, &vec![1; count]), &rows(&case["rloo"]).concat());

    let case = &all["kl"];
    let vector = |name: &str| -> Vec<f32> { serde_json::from_value(case[name].clone()).unwrap() };
    let (actor, reference) = (on_device(&vector("logp"), test_device()), on_device(&vector("ref_logp"), test_device()));
    for (name, estimates) in
        [("k1", kl::k1(&actor, &reference)), ("k2", kl::k2(&actor, &reference)), ("k3", kl::k3(&actor, &reference))]
    {
        close(name, &to_host(&estimates), &vector(name));
    }

    let case = &all["whiten"];
    let kept = |name: &str| -> Vec<f32> {
        let mask = rows(&case["mask"]).concat();
        rows(&case[name]).concat().into_iter().zip(mask).filter(|(_, m)| *m > 0.0).map(|(v, _)| v).collect()
    };
    let mut values = kept("values");
    advantage::whiten(&mut values);
    close("whiten", &values, &kept("whitened"));

    let case = &all["policy_loss"];
    let flat = |name: &str| on_device(&rows(&case[name]).concat(), test_device());
    let lengths: Vec<usize> = rows(&case["logp"]).iter().map(Vec::len).collect();
    let number = |name: &str| case[name].as_f64().unwrap();
    let clip = Clip { low: number("clip_low"), high: number("clip_high"), dual: number("clip_dual") };
    for (name, token_weights) in [("token_mean", token_mean(&lengths)), ("sequence_mean", sequence_mean(&lengths))] {
        let weights = on_device(&token_weights, test_device());
        let policy = policy_loss(&flat("logp"), &flat("old_logp"), &flat("advantages"), &weights, clip);
        close(name, &to_host(&policy.loss), &[number(name) as f32]);
        if name == "token_mean" {
            close("clipped", &to_host(&policy.clip_fraction), &[number("pg_clipfrac") as f32]);
            close("bounded", &to_host(&policy.clip_fraction_lower), &[number("pg_clipfrac_lower") as f32]);
            close("ppo_kl", &to_host(&policy.kl), &[number("ppo_kl") as f32]);
        }
    }

    let case = &all["value_loss"];
    let vector =
        |name: &str| on_device(&serde_json::from_value::<Vec<f32>>(case[name].clone()).unwrap(), test_device());
    let number = |name: &str| case[name].as_f64().unwrap();
    let weights = vector("values").ones_like() / vector("values").numel() as f64;
    let (values, old, returns) = (vector("values"), vector("old_values"), vector("returns"));
    let value = value_loss(&values, &old, &returns, &weights, number("value_clip"));
    close("value", &to_host(&(value.loss * number("value_coef"))), &[number("loss") as f32]);
    close("value clipped", &to_host(&value.clip_fraction), &[number("vf_clipfrac") as f32]);
}

#[test]
fn an_update_that_is_not_finite_names_where_it_comes_from() {
    let case = Case::load();
    let poisoned = |poison: &dyn Fn(&mut Models, &mut Experience)| {
        let mut models = case.models(case.critic());
        let sequences: Vec<&Sequence> = case.sequences.iter().collect();
        let batch = Batch::new(&sequences, case.ppo.micro_batch_tokens, test_device(), &Solo);
        let estimates = estimate(&models, &batch, case.temperature, &mut Clock::start()).unwrap();
        let (scores, lengths) = (to_host(&case.golden["scores"]), batch.lengths(0..sequences.len()));
        let scored = Scored { scores: &scores, lengths: &lengths, group: 2, kl_coef: case.ppo.kl_coef };
        let mut experience = experience(&case.ppo, &scored, estimates);
        poison(&mut models, &mut experience);
        let before = to_host(models.actor.model.weights.flat());
        let settings = StepSettings {
            actor_lr: case.ppo.actor_lr,
            critic_lr: case.ppo.critic_lr,
            kl_coef: case.ppo.kl_coef,
            temperature: case.temperature,
        };
        let updates = Updates { ppo: &case.ppo, settings, batch: &batch, experience: &experience };
        let error = updates.actor(&mut models, &mut vec![]).unwrap_err();
        let same =
            to_host(models.actor.model.weights.flat()).iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "the weights have changed");
        let found = error.downcast_ref::<NotFinite>().unwrap_or_else(|| panic!("{error:#}"));
        (found.sequences.clone(), found.to_string())
    };
    let lengths: Vec<i64> = case.sequences.iter().map(|sequence| sequence.response.len() as i64).collect();
    // A token of the second sequence, which is in the first mini-batch.
    for poison in [f64::NAN, f64::INFINITY] {
        let (sequences, said) = poisoned(&|_, experience| {
            let _ = experience.advantages.narrow(0, lengths[0], 1).fill_(poison);
        });
        assert_eq!(sequences, [1], "{said}");
        assert!(said.starts_with("the loss is ") && said.contains("(actor/pg_loss), and so is the gradient"), "{said}");
    }
    // A weight that every sequence meets.
    let (sequences, said) = poisoned(&|models, _| {
        let norm = models.actor.model.weights.entries().iter().find(|(name, _)| name == "model.norm.weight").unwrap();
        let _ = tch::no_grad(|| norm.1.shallow_clone().fill_(f64::INFINITY));
    });
    assert!(sequences.len() > 1, "{said}");
    assert!(said.starts_with("the loss is NaN (actor/entropy, actor/pg_loss"), "{said}");
}
