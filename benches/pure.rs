//! Times of what the host computes between the passes of a model, and of the loops of our own: `cargo bench`, or
//! `cargo bench -- grade` for some of them. Each says tokens, rows or bytes per second.
//!
//! Nothing asserts a time: compare with an earlier run of the same machine (`-- --save-baseline`, `-- --baseline`).

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ppo_train::algo::advantage::{gae, whiten};
use ppo_train::env::Environment;
use ppo_train::judge::lexical;
use ppo_train::plan;
use ppo_train::rollout::Sampling;
use ppo_train::task::countdown::expression;
use ppo_train::task::{Split, layout};
use ppo_train::torch::{norm, split, swiglu};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Rows that a decoding step has, and the vocabulary and sizes of a small model.
const ROWS: i64 = 32;
const VOCABULARY: i64 = 49_152;
const HIDDEN: i64 = 576;
const INNER: i64 = 1536;
const HEADS: [i64; 2] = [9, 64];

/// What a task of Countdown sees: its prompt's environment, without the model's weights.
fn environment() -> Environment {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.toml");
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).expect("the project's folder");
    let plan = plan::load(&recipe, &["machine.device=cpu".into()], None).expect("the quickstart's recipe is valid");
    Environment::of(&plan).expect("its tokenizer and problems are there")
}

/// A response in the layout that earns a reward, with a thought of several sentences.
fn response(answer: &str) -> String {
    let thought = "Wait, is that right? 98 - 44 is 54, so 54 - 19 = 35. No, but let me check: 44 + 19 = 63. \
                   Alternatively, I could start from the target and go backwards. Actually, you are right. ";
    layout::monologue(&thought.repeat(8), answer, false)
}

fn text(c: &mut Criterion) {
    let env = environment();
    let prompt = env.prompt(Split::Train, 0).expect("the first problem has a prompt");
    let right = env.task.right_answer(Split::Train, 0).unwrap_or_else(|| "1 + 2".into());
    let response = response(&right);
    let ids = env.tokenizer.encode(&response).expect("plain text");
    let mut group = c.benchmark_group("text");
    group.throughput(Throughput::Bytes(response.len() as u64));
    group.bench_function("grade", |b| b.iter(|| env.grade(&prompt, black_box(&response))));
    group.bench_function("lexical", |b| b.iter(|| lexical::judgement(black_box(&response))));
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("decode", |b| b.iter(|| env.decode(black_box(&ids))));
    group.bench_function("ends", |b| b.iter(|| (1..=ids.len()).any(|end| env.ends_at(black_box(&ids[..end])))));
    group.throughput(Throughput::Elements(1));
    group.bench_function("expression", |b| b.iter(|| expression::parse(black_box("(98 - 44) / (19 + 8) * 3 - 7"))));
    group.finish();
}

fn advantages(c: &mut Criterion) {
    let lengths: Vec<usize> = (0..256).map(|i| 16 + i * 37 % 240).collect();
    let count: usize = lengths.iter().sum();
    let numbers = |scale: f32| (0..count).map(|i| (i as f32 * 0.7).sin() * scale).collect::<Vec<f32>>();
    let (rewards, values) = (numbers(0.1), numbers(1.0));
    let mut group = c.benchmark_group("advantages");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("gae", |b| b.iter(|| gae(black_box(&rewards), &values, &lengths, 0.99, 0.95)));
    group.bench_function("whiten", |b| b.iter_batched_ref(|| values.clone(), |v| whiten(v), BatchSize::LargeInput));
    group.finish();
}

fn tensor(shape: &[i64], kind: Kind) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7).sin().view(shape).to_kind(kind)
}

fn sampler(c: &mut Criterion) {
    let uniform = tensor(&[ROWS], Kind::Float).abs() * 0.99;
    let mut group = c.benchmark_group("sampler");
    group.throughput(Throughput::Elements(ROWS as u64));
    let plain = Sampling::plain();
    let truncated = Sampling { top_p: 0.95, top_k: 50, ..Sampling::plain() };
    for (name, sampling) in [("plain", plain), ("truncated", truncated), ("greedy", Sampling::greedy())] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let logits = tensor(&[ROWS, VOCABULARY], kind);
            let pick = || tch::no_grad(|| sampling.pick(black_box(&logits), VOCABULARY, &uniform));
            group.bench_function(format!("{name} {kind:?}"), |b| b.iter(pick));
        }
    }
    group.finish();
}

fn loops(c: &mut Criterion) {
    let mut group = c.benchmark_group("loops");
    for rows in [ROWS, 1024] {
        group.throughput(Throughput::Elements(rows as u64));
        for kind in [Kind::Float, Kind::BFloat16] {
            let (x, weight) = (tensor(&[rows, HIDDEN], kind), tensor(&[HIDDEN], kind));
            let (gate, up) = (tensor(&[rows, INNER], kind), tensor(&[rows, INNER], kind));
            let [heads, size] = HEADS;
            let [cos, sin] = [0.0, 1.0].map(|_| tensor(&[1, rows, size / 2], Kind::Float));
            let wide = tensor(&[1, rows, heads * size], kind);
            let of = |name: &str| format!("{name} {rows} {kind:?}");
            group.bench_function(of("norm"), |b| b.iter(|| tch::no_grad(|| norm(&x, &weight, 1e-6))));
            group.bench_function(of("swiglu"), |b| b.iter(|| tch::no_grad(|| swiglu(&gate, &up))));
            let turned = || tch::no_grad(|| split(&wide, heads, Some([&cos, &sin]), 1.0));
            group.bench_function(of("rotation"), |b| b.iter(turned));
        }
    }
    group.finish();
}

criterion_group! {
    name = pure;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = text, advantages, sampler, loops
}
criterion_main!(pure);
