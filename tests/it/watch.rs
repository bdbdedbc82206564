//! Watchdogs of a run: warnings that begin and end, runs that end because of one, numbers that are not finite.

use super::support::{SMOKE, json, repeats_to_the_bit, run, steps};
use ppo_train::checkpoint::RunFolder;
use std::fs;
use std::path::Path;

/// The smoke recipe's random model earns nothing in its first steps.
fn arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let sets = ["watch.reward_constant=2", "evaluation.every=0", "evaluation.problems=4", "checkpoints.every=0"];
    let sets = sets.iter().chain(more).flat_map(|set| ["--set", set]);
    [SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets).collect()
}

#[test]
fn a_warning_ends_a_run_that_wants_it_and_is_resumed_exactly() {
    if !repeats_to_the_bit("a run that is resumed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let said = |output: &std::process::Output| String::from_utf8(output.stderr.clone()).unwrap();
    let begins = "warning: reward_constant since step 1: critic/score/mean is 0, the same for all responses";

    let warned = said(&run(0, &arguments(&whole, &[])));
    assert_eq!(warned.matches(begins).count(), 1, "{warned}");
    let on = |out: &Path| steps(out).values().map(|step| step["watch/reward_constant"].as_f64()).collect::<Vec<_>>();
    assert_eq!(on(&whole), [0.0, 1.0, 1.0, 1.0].map(Some));
    let status = json(&run(0, &["status", whole.to_str().unwrap(), "--json"]));
    assert_eq!(status[0]["warnings"], serde_json::json!(["reward_constant"]));

    // It ends after the step in which the warning begins, which is saved.
    let stop = "watch.stop=['reward_constant']";
    let stopped = said(&run(1, &arguments(&parts, &[stop])));
    assert!(stopped.contains(begins), "{stopped}");
    assert!(stopped.contains("error: watch.stop ends the run: reward_constant is on since step 1\n"), "{stopped}");
    assert_eq!(on(&parts), [0.0, 1.0].map(Some));
    assert!(parts.join("step_000002/COMPLETE").exists());
    // A scheduler that starts it again does not train on.
    let before = fs::read(parts.join("metrics.jsonl")).unwrap();
    let refused = said(&run(2, &[&arguments(&parts, &[stop])[..], &["--resume"]].concat()));
    assert!(refused.contains("reward_constant is on since step 1\nto go on, take the warning out"), "{refused}");
    assert!(fs::read(parts.join("metrics.jsonl")).unwrap() == before);

    // A person may go on; it is the run that it would have been.
    let resumed = said(&run(0, &[&arguments(&parts, &[])[..], &["--resume"]].concat()));
    assert!(!resumed.contains(begins), "it has begun before: {resumed}");
    assert!(resumed.contains("warning: reward_constant is on since step 1\n"), "{resumed}");
    assert_eq!(steps(&whole), steps(&parts));
    let state = |out: &Path| fs::read(out.join("step_000004/state.json")).unwrap();
    assert!(state(&whole) == state(&parts));
}

#[test]
fn a_warning_that_is_off_cannot_stop_a_run() {
    for (sets, what) in [
        (&["watch.stop=['kl_high']", "watch.kl_high=0"][..], "`watch.kl_high` is 0"),
        (&["watch.stop=['kl_high']", "ppo.kl_in='off'"], "there is no reference"),
        (&["watch.stop=['critic_misleads']", "ppo.advantage='grpo'"], "there is no critic"),
        (&["watch.stop=['kl_hihg']"], "did you mean \"kl_high\"?"),
    ] {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let output = run(2, &["plan", SMOKE].into_iter().chain(sets).collect::<Vec<_>>());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(what) && said.contains("watch.stop"), "{said}");
    }
}

/// A weight decay of 100 at a learning rate of 1 multiplies the weights by -99 at each update.
#[test]
fn numbers_that_are_not_finite_end_a_run_and_their_batch_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let said = |code, out: &Path, sets: &[&str]| {
        let sets = ["checkpoints.every=1", "evaluation.every=0", "evaluation.problems=2"].iter().chain(sets);
        let args = [SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets.flat_map(|set| ["--set", set]));
        String::from_utf8(run(code, &args.collect::<Vec<_>>()).stderr).unwrap()
    };
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };

    let ppo = dir.path().join("ppo");
    let error = said(1, &ppo, &["ppo.steps=9", "ppo.weight_decay=100", "ppo.critic_lr=1.0", "ppo.grad_clip=0"]);
    let error = error.split("error: ").last().unwrap();
    let step: usize = error.strip_prefix("step ").unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(error.contains(": the critic's update failed: the "), "{error}");
    assert!(error.contains("model.") && error.contains("; it comes from sequence"), "{error}");
    let file = ppo.join(format!("not_finite_ppo_{step:06}.json"));
    assert!(error.contains(&format!("\nits sequences are in {}\n", file.display())), "{error}");
    let kept = read(&file);
    let all = kept["sequences"].as_array().unwrap();
    assert_eq!(all.len(), 16);
    assert!(all.iter().any(|one| one["suspect"] == true) && all.iter().any(|one| one["suspect"] == false));
    for one in all {
        let tokens = one["response_ids"].as_array().unwrap().len();
        for name in ["sampler_log_probs", "old_log_probs", "reference_log_probs", "values", "advantages", "returns"] {
            assert_eq!(one[name].as_array().unwrap().len(), tokens, "{name}");
        }
        assert!(one["text"].is_string() && one["prompt_ids"].is_array() && one["reward"].is_number());
    }
    // What is saved is what was learnt before.
    let saved = RunFolder::new(&ppo).latest().unwrap().unwrap();
    assert_eq!(saved.step, step - 1);
    run(0, &["eval", saved.path().to_str().unwrap(), "--problems", "2"]);

    let sft = dir.path().join("sft");
    let error = said(1, &sft, &["ppo=unset", "sft.epochs=9", "sft.weight_decay=100", "sft.lr=1.0"]);
    let error = error.split("error: ").last().unwrap();
    assert!(error.contains(" of the warm start: the ") && error.contains("not_finite_sft_"), "{error}");
    let step: usize = error.strip_prefix("step ").unwrap().split(' ').next().unwrap().parse().unwrap();
    let kept = read(&sft.join(format!("not_finite_sft_{step:06}.json")));
    assert_eq!(kept["sequences"].as_array().unwrap().len(), 16);
    assert!(kept["sequences"][0]["text"].as_str().unwrap().contains("<answer>"));
    assert!(!sft.join("start").exists());
}
