//! Costs against a second, naive count, and times against rates.

use super::step::{Cost, Step};
use super::*;
use crate::model::{Head, Weights};
use crate::plan::Plan;
use crate::plan::tests::Bench;
use tch::{Device, Kind};

const LENGTHS: Lengths = Lengths { prompt: 20.0, response: 30.0, longest: 40.0 };

/// A machine with rates of its own.
fn machine(change: impl FnOnce(&mut Machine)) -> Machine {
    let mut machine = Machine::known("h100").unwrap();
    (machine.products_share, machine.memory_share, machine.link_share, machine.launch_us) = (1.0, 1.0, 1.0, 0.0);
    change(&mut machine);
    machine
}

fn near(a: f64, b: f64, share: f64) -> bool {
    (a - b).abs() <= share * b.abs()
}

/// Two operations for each weight of a matrix and token, and for each pair of tokens and number of a head's key or
/// value: counted matrix by matrix, sequence by sequence, token by token.
fn operations(plan: &Plan, sequences: usize, prompt: usize, response: usize, head: bool) -> f64 {
    let config = &plan.config;
    let weights = Weights::random(config, Head::Language, Kind::Float, Device::Cpu, 1).unwrap();
    let mut sum = 0.0;
    for (name, weight) in weights.entries().iter().filter(|(_, weight)| weight.dim() == 2) {
        let embedding = name.contains("embed_tokens");
        let is_head = name.contains("lm_head") || (embedding && config.tie_word_embeddings);
        let tokens = match (is_head, embedding) {
            (true, _) if head => response,
            (true, _) | (_, true) => 0,
            _ => prompt + response,
        };
        sum += (2 * sequences * tokens * weight.numel()) as f64;
    }
    for _ in 0..config.num_hidden_layers {
        for token in 0..prompt + response {
            let pairs = (token + 1) as f64;
            sum += sequences as f64 * pairs * 4.0 * (config.num_attention_heads * config.head_dim) as f64;
        }
    }
    sum
}

#[test]
fn operations_are_those_of_every_matrix_and_pair_of_tokens() {
    let bench = Bench::new();
    // On a GPU sequences are padded in float32, and stand in rows in bfloat16.
    for (recompute, precision) in [(false, "float32"), (true, "float32"), (true, "bfloat16")] {
        let set = format!("memory.gradient_checkpointing={recompute}");
        let precise = format!("machine.precision={precision}");
        let plan = bench.load(bench.good(), &["machine.device=cuda", &set, &precise]).unwrap();
        let step = Step::of(&plan, &machine(|_| ()), LENGTHS, 1).unwrap();
        let cost = |name: &str| step.stages.iter().find(|cost| cost.stage == name).unwrap().operations;
        let names: Vec<_> = step.stages.iter().map(|cost| cost.stage).collect();
        assert_eq!(names, ["gen", "old_log_prob", "ref", "values", "update_critic", "update_actor"]);
        let all = |head| operations(&plan, 64, 20, 30, head);
        // A row has each prompt once.
        let prompts = operations(&plan, 16, 20, 0, false);
        let rows = |head| prompts + all(head) - operations(&plan, 64, 20, 0, head);
        let (with, without) = if precision == "float32" { (all(true), all(false)) } else { (rows(true), rows(false)) };
        assert!(near(cost("old_log_prob"), with, 0.01), "{} {with}", cost("old_log_prob"));
        assert!(near(cost("values"), without, 0.01));
        // Forward and twice as much backward, of all sequences once; with recomputed layers their forward once more.
        let again = if recompute { without } else { 0.0 };
        assert!(near(cost("update_actor"), 3.0 * with + again, 0.01));
        assert!(near(cost("update_critic"), 3.0 * without + again, 0.01));
        // Prompts are read once for all their samples, and each token is decoded once.
        assert!(near(cost("gen"), rows(true), 0.01), "{} {}", cost("gen"), rows(true));
    }
}

#[test]
fn processes_divide_the_work_and_exchange_gradients_and_weights() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &["machine.precision=bfloat16"]).unwrap();
    let parameters = plan.config.parameters() as f64;
    let of = |processes| Step::of(&plan, &machine(|_| ()), LENGTHS, processes).unwrap();
    let one = of(1);
    assert_eq!(one.sum(|cost| cost.exchanged + cost.exchange + cost.over_mpi), 0.0);
    for processes in [2, 4, 8] {
        let step = of(processes);
        for (whole, share) in one.stages.iter().zip(&step.stages) {
            assert!(near(share.operations * processes as f64, whole.operations, 1e-9), "{}", whole.stage);
        }
        let last = step.stages.last().unwrap();
        let others = (processes - 1) as f64 / processes as f64;
        // Two updates of the actor: float32 gradients, bfloat16 weights.
        assert!(near(last.exchanged, 2.0 * parameters * 6.0 * others, 1e-9));
        assert!(near(last.exchange, last.exchanged / 450e9, 1e-9));
        assert!(near(last.over_mpi, last.exchanged * (1.0 / 1.5e9 + 1.0 / 50e9), 1e-9));
    }
    // Beyond a machine the network is the slowest link; beyond the prompts nobody has less to do.
    let last = |processes| of(processes).stages.pop().unwrap();
    assert!(near(last(16).exchange, last(16).exchanged / 50e9, 1e-9));
    assert_eq!(of(16).stages[0].operations, of(64).stages[0].operations);
}

#[test]
fn a_stage_takes_what_its_slowest_rate_says() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &["machine.precision=float32", "ppo.micro_batch_tokens=100000"]).unwrap();
    let work = |machine: &Machine| Step::of(&plan, machine, LENGTHS, 1).unwrap().sum(|cost| cost.work);
    let sum = |of: fn(&Cost) -> f64| Step::of(&plan, &machine(|_| ()), LENGTHS, 1).unwrap().sum(of);
    let products = work(&machine(|m| m.memory_gb_s = 1e12));
    assert!(near(products, sum(|cost| cost.operations) / 67e12, 1e-3), "{products}");
    let traffic = work(&machine(|m| m.float32_tflops = 1e12));
    assert!(near(traffic, sum(|cost| cost.traffic) / 3350e9, 1e-9), "{traffic}");
    assert!(work(&machine(|_| ())) >= products.max(traffic));
    // On a GPU kernels are started while others run; a CPU does both.
    let slow = work(&machine(|m| m.launch_us = 1e3));
    assert!(work(&machine(|m| (m.launch_us, m.gpu) = (1e3, false))) > slow && slow > work(&machine(|_| ())));
    assert!(slow > 40.0 * 2.0 * 36.0 * 1e-3, "40 steps of two layers: {slow}");
}

#[test]
fn what_is_printed_is_narrow_and_agrees_with_its_json() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &[]).unwrap();
    let machine = Machine::named("h100", &plan).unwrap();
    let (text, json) = (cost_report(&plan, &machine, LENGTHS), cost_json(&plan, &machine, LENGTHS));
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for part in [
        "H100 80 GB SXM",
        "responses of 30 (the longest 40)",
        "efficiency",
        "60 % of the peak",
        "2.35 TB/s",
        "400 Gb/s",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let steps = json["steps"].as_array().unwrap();
    let processes: Vec<_> = steps.iter().map(|step| step["processes"].as_u64().unwrap()).collect();
    assert_eq!(processes, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(json["steps"][0]["efficiency"], 1.0);
    let stages = steps[3]["stages"].as_array().unwrap();
    let seconds = |key: &str| stages.iter().map(|stage| stage[key].as_f64().unwrap()).sum::<f64>();
    assert!(near(seconds("work_seconds") + seconds("exchange_seconds"), steps[3]["seconds"].as_f64().unwrap(), 1e-9));
    assert_eq!(steps[1]["memory_bytes"], crate::plan::peak(&crate::plan::estimate(&plan, 2)).1);
    // A stage that there is none of takes no time, which is not negative.
    let shared = bench.load(bench.good(), &["ppo.critic=shared"]).unwrap();
    assert!(!cost_report(&shared, &machine, LENGTHS).contains("-0"));
    let none = bench.load(bench.good(), &["ppo=unset"]).unwrap();
    assert!(cost_report(&none, &machine, LENGTHS).contains("no PPO step"));
}

#[test]
fn machines_have_names_or_files() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &["machine.device=cpu"]).unwrap();
    let path = bench.0.path().join("m.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Machine::named(path.to_str().unwrap(), &plan).map_err(|error| error.to_string())
    };
    // One that is written as JSON is read again as it is.
    let known = Machine::named("a100", &plan).unwrap();
    assert_eq!(read(&toml::to_string(&known).unwrap()).unwrap(), known);
    assert!(read("name = 'x'\nmemory = 3").unwrap_err().contains("did you mean `memory_gb`?"));
    assert!(read("name = 'x'\nmemory_gb = 0").unwrap_err().contains("`memory_gb` is 0"));
    let error = Machine::named("h1000", &plan).unwrap_err().to_string();
    assert!(error.contains("\"h1000\" is not a machine") && error.contains("h100, a100, h200, here"), "{error}");
    let here = Machine::named("here", &plan).unwrap();
    assert!(!here.gpu && here.per_node == 1 && here.float32_tflops > 1e-3 && here.memory_gb_s > 0.1, "{here:?}");
    assert!(here.name.contains("threads"), "{}", here.name);
}
