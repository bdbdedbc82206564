//! What a plan counts: memory, disk, and whether it fits.

use super::*;
use crate::plan::memory::PROGRAM_AND_GAPS;

#[test]
fn memory_adds_up() {
    let bench = Bench::new();
    let sets = ["machine.device=cuda", "machine.precision=bfloat16", "ppo.micro_batch_tokens=128"];
    let plan = bench.load(bench.good(), &sets).unwrap();
    let parts = estimate(&plan, 1);
    let bytes = |name: &str, phase: Phase| {
        parts.iter().filter(|p| p.name == name && p.phases.contains(&phase)).map(|p| p.bytes).sum::<u64>()
    };
    let p = plan.config.parameters();
    assert_eq!(bytes("actor weights", Phase::WarmStart), 2 * p);
    assert_eq!((bytes("actor gradients", Phase::ActorUpdate), bytes("actor gradients", Phase::Rollout)), (6 * p, 0));
    assert_eq!(bytes("critic optimizer", Phase::Rollout), 12 * (p + 65));
    assert_eq!(bytes("reference weights", Phase::WarmStart), 0);
    // 64 sequences of 64 tokens, 2 layers, keys and values of 2 heads of 16, 2 bytes.
    assert_eq!(bytes("KV cache", Phase::Rollout), 64 * 64 * 2 * 2 * 32 * 2);
    // One step's logits, whose memory graphs keep.
    let graphs = Phase::ALL.map(|phase| bytes("graphs of kernels", phase));
    assert_eq!(graphs, [0, 1, 1, 1, 1].map(|held| held * 64 * 512 * 20));
    let layer = (4 * 64 + 4 * 64 + 4 * 128) * 2 + 4 * 4 + 8;
    assert_eq!(bytes("activations", Phase::ActorUpdate), 128 * (2 * layer + 2 * 64 * 2));
    assert_eq!(bytes("logits", Phase::ActorUpdate), 128 * 512 * 22);
    assert_eq!(bytes("logits", Phase::CriticUpdate), 0);
    let (phase, most) = peak(&parts);
    assert_eq!((phase, most), (Phase::WarmStart, total(&parts, Phase::WarmStart)));

    // What is offloaded leaves the device, if there is one besides the CPU; recomputed layers keep only their inputs.
    for (device, elsewhere) in [("cuda", 2 * p + 12 * (2 * p + 65)), ("cpu", 0)] {
        let sets = [
            &format!("machine.device={device}"),
            "machine.precision=bfloat16",
            "ppo.micro_batch_tokens=128",
            "memory.return_freed=true",
            "memory.gradient_checkpointing=true",
            "memory.offload_reference=true",
            "memory.offload_optimizer=true",
        ];
        let parts = estimate(&bench.load(bench.good(), &sets).unwrap(), 1);
        let bytes = |name: &str, phase: Phase| {
            parts.iter().filter(|p| p.name == name && p.phases.contains(&phase)).map(|p| p.bytes).sum::<u64>()
        };
        assert_eq!(on_host(&parts), elsewhere, "{device}");
        assert_eq!(bytes("reference weights", Phase::Scoring), 2 * p);
        assert_eq!(bytes("reference weights", Phase::Rollout), if device == "cpu" { 2 * p } else { 0 });
        // On a CPU attention keeps weights of 4 heads over 64 tokens, and its keys and values once; no silu is kept.
        let own = (4 * 64 + 3 * 128 + 2 * 64 + 2 * 32 + 4 * 64) * 2 + 8;
        let layer = if device == "cpu" { own } else { layer };
        assert_eq!(bytes("activations", Phase::ActorUpdate), 128 * (2 * 64 * 2 + layer + 2 * 64 * 2));
        let program = bytes(PROGRAM_AND_GAPS, Phase::Scoring);
        assert!(if device == "cpu" { program > 300 << 20 } else { program == 0 }, "{program}");
        assert_eq!(bytes("graphs of kernels", Phase::Scoring) > 0, device == "cuda");
    }

    // A hook has its own copy of the weights and its own cache, unless it is on another device.
    let hooks = ["machine.device=cuda", "machine.precision=bfloat16", "hooks.persona.traces=8", "hooks.batch=4"];
    let beside = |sets: &[&str]| {
        let parts = estimate(&bench.load(bench.good(), sets).unwrap(), 1);
        parts.iter().find(|part| part.name == "hooks beside training").map(|part| part.bytes)
    };
    let (own, step) = (2 * p + 4 * 64 * 2 * 2 * 32 * 2, 4 * 512 * 20);
    assert_eq!(beside(&hooks), Some(own + 2 * step));
    assert_eq!(beside(&[&hooks[..], &["machine.graphs=false"]].concat()), Some(own + step));
    assert_eq!(beside(&[&hooks[..], &["hooks.device=cuda:0"]].concat()), Some(own + 2 * step));
    assert_eq!(beside(&[&hooks[..], &["hooks.device=cpu"]].concat()), None);
    assert_eq!(beside(&hooks[..2]), None);
    // A local judge is loaded when the policy is gone: 4 replies of at most 1,500 + 2 x 64 + 100 tokens, or as many as
    // it reads, in bfloat16 unless its own key says otherwise.
    let path = format!("hooks.persona.judge.path={}", plan.recipe.model.path.display());
    let judge = ["hooks.persona.judge.kind=local", &path, "hooks.persona.judge.batch=4"];
    let tokens = (1500 + 2 * 64 + 100).min(plan.config.max_position_embeddings as u64);
    let with = [&hooks[..], &judge, &["hooks.persona.judge.max_tokens=100"]].concat();
    assert_eq!(beside(&with), Some(2 * p + 4 * tokens * 2 * 2 * 32 * 2 + 4 * 512 * 20));

    let plan = bench.load(bench.good(), &["machine.precision=float32", "ppo.advantage=grpo", "ppo.kl_in=off"]).unwrap();
    let parts = estimate(&plan, 1);
    assert!(parts.iter().all(|p| !p.name.starts_with("critic") && !p.name.starts_with("reference")));
    assert!(parts.iter().any(|p| p.name == "actor optimizer" && p.bytes == 8 * plan.config.parameters()));
}

/// Long sequences and few words: the scores of attention and their softmax are more than a step's logits.
#[test]
fn a_decoding_step_is_its_logits_or_the_inside_of_a_layer() {
    let bench = Bench::new();
    let sets = ["machine.device=cuda", "machine.precision=float32", "rollout.batch=4"];
    let mut plan = bench.load(bench.good(), &sets).unwrap();
    let graphs = |plan: &Plan| {
        let parts = estimate(plan, 1);
        parts.iter().find(|part| part.name == "graphs of kernels").map(|part| part.bytes)
    };
    assert_eq!(graphs(&plan), Some(4 * 512 * 20));
    plan.config.vocab_size = 16;
    assert_eq!(graphs(&plan), Some(4 * (4 * 64 + 3 * 64 + 4 * 128 + 2 * 4 * 64) * 4));
    plan.recipe.machine.graphs = false;
    assert_eq!(graphs(&plan), None);
}

/// `auto` is what this machine has, unless the plan is for others.
#[test]
fn auto_is_this_machine_s_device_or_that_of_others() {
    let bench = Bench::new();
    let sets = ["memory.offload_optimizer=true", "hooks.persona.traces=8", "hooks.device=auto"];
    let load = |device: &str| bench.load(bench.good(), &[&sets[..], &[device]].concat()).unwrap();
    let [cpu, gpu] = [false, true].map(|gpus| {
        let plan = load(if gpus { "machine.device=cuda" } else { "machine.device=cpu" }).elsewhere(gpus);
        assert_eq!(plan.on_cpu(), !gpus);
        estimate(&plan, 1)
    });
    let auto = load("machine.device=auto");
    let has_gpu = tch::Cuda::is_available();
    assert_eq!((auto.on_cpu(), &estimate(&auto, 1)), (!has_gpu, if has_gpu { &gpu } else { &cpu }));
    let devices = Devices::of(&auto);
    let here = if has_gpu { "auto (here a GPU)" } else { "auto (here the CPU)" };
    assert!(devices.memory.is_some() && report(&auto, devices).contains(here));
    for (gpus, expected) in [(true, gpu), (false, cpu)] {
        assert_eq!(estimate(&auto.clone().elsewhere(gpus), 1), expected);
    }
}

/// What each of several processes holds, counted anew; and what all of a machine hold together.
#[test]
fn processes_divide_optimizers_and_sequences() {
    let bench = Bench::new();
    let sets = ["machine.precision=bfloat16", "ppo.micro_batch_tokens=100000", "sft.micro_batch_tokens=100000"];
    let load = |more: &[&str]| bench.load(bench.good(), &[&sets, more].concat()).unwrap();
    let plan = load(&["machine.device=cuda"]);
    let p = plan.config.parameters();
    let rounded = |parts: u64| p.div_ceil(parts).next_multiple_of(64);
    for n in [1u64, 3, 5, 40] {
        let parts = estimate(&plan, n as usize);
        let bytes = |name: &str, phase: Phase| {
            parts.iter().filter(|p| p.name == name && p.phases.contains(&phase)).map(|p| p.bytes).sum::<u64>()
        };
        assert_eq!(bytes("actor weights", Phase::Rollout), 2 * p);
        assert_eq!(bytes("actor optimizer", Phase::Rollout), 12 * rounded(n));
        assert_eq!(bytes("actor gradients", Phase::ActorUpdate), 6 * p);
        // 16 prompts of 4 samples, 50 problems of an evaluation, mini-batches of 32, 20 rows of the warm start.
        let rows = (16u64.div_ceil(n) * 4).max(50u64.div_ceil(n));
        assert_eq!(bytes("KV cache", Phase::Rollout), rows * 64 * 2 * 2 * 32 * 2, "{n}");
        assert_eq!(bytes("logits", Phase::Scoring), 64u64.div_ceil(n) * 64 * 512 * 22);
        assert_eq!(bytes("logits", Phase::ActorUpdate), 32u64.div_ceil(n) * 40 * 512 * 22);
        assert_eq!(bytes("logits", Phase::WarmStart), 20u64.div_ceil(n) * 64 * 512 * 22);
    }
    let gradients = |plan: &Plan| {
        let parts = estimate(plan, 4);
        parts.into_iter().find(|part| part.name == "actor gradients").map(|part| part.bytes)
    };
    assert_eq!(gradients(&load(&["memory.divide_gradients=true"])), Some(2 * p + p));
    assert_eq!(gradients(&load(&["memory.divide_gradients=true", "machine.precision=float32"])), Some(4 * p));

    // On a CPU the processes of a machine add up, and one of them has hooks.
    let devices = Devices { processes: 6, nodes: 2, memory: Some(64 << 30) };
    let [alone, hooked] = [&["machine.device=cpu"][..], &["machine.device=cpu", "hooks.persona.traces=8"]].map(load);
    let most = peak(&estimate(&alone, 6));
    assert_eq!(devices.peak(&alone), (most.0, 3 * most.1));
    let more = devices.peak(&hooked).1 - devices.peak(&alone).1;
    let hooks = estimate(&hooked, 6).iter().find(|p| p.name == "hooks beside training").unwrap().bytes;
    // Their gaps are counted in every process, which is no less than they take.
    assert!((hooks..3 * hooks).contains(&more), "{more} {hooks}");
    let text = report(&alone, devices);
    for part in ["6 processes on 2 machines, which divide", "on a machine with 3: ", "in each process", "it fits"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let described = json(&alone, devices);
    assert_eq!(described["memory"]["node_bytes"], 3 * most.1);
    assert_eq!((&described["memory"]["processes"], &described["memory"]["nodes"]), (&6.into(), &2.into()));
    // What stays on the hosts of GPUs is that of all processes there.
    let offloaded = load(&["machine.device=cuda", "memory.offload_optimizer=true"]);
    let own = on_host(&estimate(&offloaded, 6));
    assert_eq!(json(&offloaded, devices)["memory"]["host_bytes"], 3 * own);
    assert!(report(&offloaded, devices).contains("on the host of each machine"), "{}", report(&offloaded, devices));
}

#[test]
fn the_report_is_narrow_and_says_what_a_run_does() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &[]).unwrap();
    let devices = Devices { processes: 1, nodes: 1, memory: None };
    let text = report(&plan, devices);
    for line in text.lines().filter(|line| !line.contains("tiny-model")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for fragment in
        ["10 steps of 64 sequences", "2 actor updates", "50 steps", "4,096 per step", "checkpoints/trial", "peak"]
    {
        assert!(text.contains(fragment), "{fragment}:\n{text}");
    }
    let json = json(&plan, devices);
    assert_eq!(json["ppo"]["sequences_per_step"], 64);
    assert_eq!(json["memory"]["peak_bytes"], peak(&estimate(&plan, 1)).1);
    assert_eq!(json["recipe"]["rollout"]["prompts_per_step"], 16);
    // bfloat16: two bytes per weight, and twelve of the optimizer's; the newest two checkpoints, the best, a new one.
    let p = plan.config.parameters();
    let disk = Disk::of(&plan);
    assert_eq!((disk.start, disk.checkpoint, disk.checkpoints), (2 * p, 14 * (2 * p + 65), 4));
    assert_eq!(json["disk"]["total_bytes"], disk.total());
    assert!(disk.free.is_some_and(|free| free > 0) && text.contains("disk, at most"));
    let short = Disk { free: Some(3 << 30), ..disk };
    assert_eq!(short.shortage("it", 3 << 30), None);
    assert_eq!(short.shortage("it", 80 << 30).unwrap(), "it takes 80.0 GiB, and 3.0 GiB are free");
    // Of ten steps the third, the sixth and the ninth are kept for good.
    let permanent = bench.load(bench.good(), &["checkpoints.keep_every=3"]).unwrap();
    assert_eq!(Disk::of(&permanent).checkpoints, 7);
}

#[test]
fn what_is_held_leaves_room_for_what_an_update_makes() {
    let bench = Bench::new();
    for (set, gaps) in [("memory.return_freed=false", 0.6), ("memory.return_freed=true", 0.1)] {
        let hooked = bench.load(bench.good(), &["machine.device=cpu", set, "hooks.persona.traces=8"]).unwrap();
        let plan = bench.load(bench.good(), &["machine.device=cpu", set]).unwrap();
        let (parts, held) = (estimate(&plan, 1), held(&plan, 1));
        let (phase, most) = peak(&parts);
        let program = parts.iter().find(|p| p.name == PROGRAM_AND_GAPS && p.phases == [phase]).unwrap().bytes;
        let tensors = most - program;
        assert!((held.within as f64 - (300 << 20) as f64 - (1.0 + gaps / 2.0) * tensors as f64).abs() < 2.0);
        // An update makes gradients, activations and logits; weights and optimizers are there.
        let resting = |part: &&Part| part.phases.contains(&phase) && part.phases.contains(&Phase::Rollout);
        let resting: u64 = parts.iter().filter(resting).map(|part| part.bytes).sum();
        assert_eq!(held.before + (tensors - resting), most);
        // Hooks are other processes: they hold what they hold.
        assert_eq!(super::held(&hooked, 1), held);
    }
}

#[test]
fn a_plan_that_does_not_fit_says_what_would_make_it_fit() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &["machine.device=cuda"]).unwrap();
    let (_, needed) = peak(&estimate(&plan, 1));
    let fit_in = |bytes: u64| fit(&plan, Devices { processes: 1, nodes: 1, memory: Some(bytes) }).unwrap();
    assert!(fit_in(needed * 2).fits());
    assert!(fit_in(needed * 2).changes.is_empty());

    let tight = fit_in(needed);
    assert!(!tight.fits() && tight.reached() <= tight.room, "{tight:?}");
    // The recipe with these changes has the peak that was promised.
    let sets: Vec<String> = tight.changes.iter().map(|change| format!("{}={}", change.key, change.value)).collect();
    let sets: Vec<&str> = ["machine.device=cuda"].into_iter().chain(sets.iter().map(String::as_str)).collect();
    let changed = bench.load(bench.good(), &sets).unwrap();
    assert_eq!(peak(&estimate(&changed, 1)).1, tight.reached());

    // With mini-batches of its own a critic cannot be shared: the advice takes them out, and can be followed.
    let own = ["machine.device=cuda", "ppo.critic_mini_batch=8", "sft=unset"];
    let own = bench.load(bench.good(), &own).unwrap();
    let advice = fit(&own, Devices { processes: 1, nodes: 1, memory: Some(1 << 20) }).unwrap();
    let last = advice.changes.iter().find(|change| change.key == "ppo.critic").unwrap();
    assert_eq!(last.value, "\"shared\" with ppo.critic_mini_batch = \"unset\"");
    let followed = ["ppo.critic_mini_batch=8", "ppo.critic=shared", "ppo.critic_mini_batch=unset"];
    assert_eq!(bench.load(bench.good(), &followed).unwrap().recipe.ppo.unwrap().critic_mini_batch, None);

    let none = fit_in(1 << 20);
    let peaks: Vec<u64> = none.changes.iter().map(|change| change.peak).collect();
    assert!(peaks.is_sorted_by(|a, b| a > b), "{peaks:?}");
    assert!(none.reached() > none.room);
    let text = report(&plan, Devices { processes: 2, nodes: 1, memory: Some(1 << 20) });
    for fragment in
        ["IT DOES NOT FIT", "memory.offload_optimizer = true", "still too much", "2 processes, which divide"]
    {
        assert!(text.contains(fragment), "{fragment}:\n{text}");
    }
}
