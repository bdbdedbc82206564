//! The seams, used: a task and a hook that the rest of the crate does not know (tests/toy); and runs that are stopped
//! wherever they ask whether to go on.

use super::{launch, launch_one};
use crate::Stopped;
use crate::dist::Solo;
use crate::dist::threads::Thread;
use crate::metrics::{jsonl, measures_machine};
use crate::plan::{self, Plan};
use crate::torch::{test_device_name, to_host};
use crate::train::hook::State;
use crate::train::pulse::{Phase, asked};
use crate::train::stop::Stop;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[test]
fn a_second_task_and_a_hook_take_part_in_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("toy");
    let device = format!("machine.device={}", test_device_name());
    let plan = plan::load(Path::new("tests/toy/recipe.toml"), &[device], Some(&out)).unwrap();
    assert!(plan::report(&plan, plan::Devices::of(&plan)).contains("larger, 16 training, 16 validation"));
    launch(&plan, false, &Solo).unwrap();

    let state: State = serde_json::from_str(&fs::read_to_string(out.join("step_000002/state.json")).unwrap()).unwrap();
    assert_eq!(state.step, 2);
    assert_eq!(fs::read_to_string(out.join("steps")).unwrap(), "2");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("val/larger/accuracy") && metrics.contains("actor/pg_loss"));
    // Every name has its place in the documentation.
    let (page, records) = (fs::read_to_string("docs/metrics.md").unwrap(), out.join("metrics.jsonl"));
    for record in jsonl::read(&records, |warning| panic!("{warning}")).unwrap() {
        for (name, _) in record.scalars() {
            let last = name.rsplit('/').next().unwrap();
            assert!(page.contains(&format!("`{last}`")) || page.contains(&format!("/{last}`")), "{name}");
        }
    }
    assert!(metrics.contains("actor/mfu") && metrics.contains("training/total_tokens"), "{metrics}");
}

/// Everything that a run leaves which is no time: records, texts, evaluations, and the last checkpoint.
fn left_by(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let timeless = |line: &str| {
        let mut record: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        record.retain(|name, _| name != "time" && !measures_machine(name));
        serde_json::to_string(&record).unwrap() + "\n"
    };
    let lines = |name: &str| -> Vec<u8> {
        let text = fs::read_to_string(out.join(name)).unwrap();
        text.lines().flat_map(|line| timeless(line).into_bytes()).collect()
    };
    let mut all: BTreeMap<_, _> =
        ["metrics.jsonl", "evaluations.jsonl"].map(|name| (name.to_string(), lines(name))).into();
    let last = out.join("step_000003");
    for name in ["model/model.safetensors", "critic/model.safetensors", "optimizer.safetensors", "state.json"] {
        all.insert(name.into(), fs::read(last.join(name)).unwrap());
    }
    let folders = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Checkpoints of the steps that it was stopped after are kept like others.
    let folders: BTreeSet<String> = folders.filter(|name| name != "lock" && !name.starts_with("step_")).collect();
    all.insert("folders".into(), format!("{folders:?}").into_bytes());
    all
}

/// Runs until it is asked to stop at the question `at`; returns the phases in which it asked.
fn run_until(plan: &Plan, at: usize) -> (bool, Vec<Phase>) {
    asked::PHASES.take();
    asked::STOP_AT.set(at);
    let stopped = match launch_one(plan, plan.out.exists(), (&Stop::default(), &Solo), None) {
        Ok(()) => false,
        Err(error) if error.is::<Stopped>() => true,
        Err(error) => panic!("{error:#}"),
    };
    asked::STOP_AT.set(usize::MAX);
    (stopped, asked::PHASES.take())
}

/// A run that is stopped at any question, and perhaps at further ones after it is resumed, comes to the same end as one
/// that is not, to the last bit; and it asks nothing more once it is told to stop.
fn stopped_anywhere(name: &str, sets: &[&str], every: usize) {
    let dir = tempfile::tempdir().unwrap();
    let small = [
        "ppo.steps=3",
        "sft.train=32",
        "sft.validation=8",
        "sft.epochs=2",
        "sft.micro_batch_tokens=300",
        "rollout.prompts_per_step=4",
        "rollout.max_response_tokens=32",
        "rollout.batch=4",
        "ppo.mini_batch=4",
        "ppo.micro_batch_tokens=100",
        "evaluation.problems=4",
        "evaluation.every=2",
        "checkpoints.every=0",
        "hooks.samples=0",
        "ppo.kl_target=0.01",
        "ppo.kl_coef=0.1",
    ];
    let sets: Vec<String> = small.iter().chain(sets).map(|set| set.to_string()).collect();
    let plan = |name: &str| plan::load(Path::new("recipes/smoke.toml"), &sets, Some(&dir.path().join(name))).unwrap();
    let whole = plan("whole");
    let (stopped, phases) = run_until(&whole, usize::MAX);
    assert!(!stopped);
    for phase in [Phase::WarmStart, Phase::Rollout, Phase::Scoring, Phase::Update, Phase::Evaluation] {
        assert!(phases.contains(&phase), "{name}: nothing asks in {phase:?}");
    }
    let expected = left_by(&whole.out);
    // STOP_EVERY=1 stops at every single one, which takes an hour.
    let every = std::env::var("STOP_EVERY").map_or(every, |every| every.parse().unwrap());
    for at in (0..phases.len()).step_by(every) {
        let parts = plan(&format!("{at}"));
        let (stopped, asked) = run_until(&parts, at);
        assert!(stopped, "{name}: asked at question {at}");
        let after = asked.len() - 1 - at;
        assert!(after <= 2, "{name}: {after} more questions after {at}, in {:?}", phases[at]);
        // Stopped once more, wherever that is.
        run_until(&parts, at / 2);
        let (stopped, _) = run_until(&parts, usize::MAX);
        assert!(!stopped);
        for (what, left) in left_by(&parts.out) {
            let same = left == expected[&what];
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
            assert!(
                same,
                "{name}, stopped at question {at} in {:?}: {what} differs:\n{}\n{}",
                phases[at],
                shown(&left),
                shown(&expected[&what])
            );
        }
        fs::remove_dir_all(&parts.out).unwrap();
    }
}

#[test]
fn a_run_with_its_own_critic_can_be_stopped_anywhere() {
    stopped_anywhere("own critic", &["ppo.epochs=2", "ppo.critic_warmup_steps=1"], 29);
}

#[test]
fn a_run_with_a_shared_critic_can_be_stopped_anywhere() {
    stopped_anywhere("shared critic", &["ppo.critic='shared'", "ppo.critic_warmup_steps=1"], 31);
}

/// What several ranks come to: the figures of their steps, and their last weights.
fn trained_by(ranks: usize, out: &Path) -> (BTreeMap<String, f64>, Vec<f32>) {
    let sets = [
        "machine.threads=1",
        "ppo.steps=2",
        // Adam makes steps of the learning rate's size of gradients that are rounding, and whitening makes
        // advantages of the rounding of rewards that are all 0.
        "sft.lr=1e-4",
        "ppo.actor_lr=1e-5",
        "ppo.critic_lr=1e-5",
        "ppo.whiten=false",
        "sft.train=21",
        "sft.validation=5",
        "sft.batch=7",
        "rollout.prompts_per_step=5",
        "rollout.samples_per_prompt=1",
        "ppo.mini_batch=5",
        "ppo.micro_batch_tokens=150",
        "evaluation.problems=5",
        "hooks.samples=0",
        "ppo.kl_coef=0.1",
    ];
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let plan = plan::load(Path::new("recipes/smoke.toml"), &sets, Some(out)).unwrap();
    std::thread::scope(|scope| {
        for comm in Thread::group(ranks) {
            let plan = &plan;
            scope.spawn(move || launch_one(plan, false, (&Stop::default(), &comm), None).unwrap());
        }
    });
    let mut figures = BTreeMap::new();
    for record in jsonl::read(&out.join("metrics.jsonl"), |warning| panic!("{warning}")).unwrap() {
        for (name, value) in record.scalars() {
            if !measures_machine(name) && !name.starts_with("global_seqlen") {
                let twice = figures.insert(format!("{:?} {} {name}", record.stage, record.step), value);
                assert!(twice.is_none(), "one rank writes");
            }
        }
    }
    let mut weights = tch::Tensor::read_safetensors(out.join("step_000002/model/model.safetensors")).unwrap();
    weights.sort_by(|a, b| a.0.cmp(&b.0));
    (figures, weights.iter().flat_map(|(_, tensor)| to_host(tensor)).collect())
}

/// An odd batch: five sequences on two and three ranks.
#[test]
fn several_ranks_train_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, weights) = trained_by(1, &dir.path().join("1"));
    assert!(alone.len() > 100);
    for ranks in [2, 3] {
        let (figures, own) = trained_by(ranks, &dir.path().join(ranks.to_string()));
        assert_eq!(figures.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
        for (name, value) in &figures {
            let expected = alone[name];
            assert!((value - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{ranks}: {name} {value} {expected}");
        }
        let worst = own.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(own.len() == weights.len() && worst <= 1e-5, "{ranks}: {worst}");
    }
}
