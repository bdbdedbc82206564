//! The program as a user runs it: whole runs of recipes/smoke.toml, and what they leave behind.

use super::support::{self, SMOKE, repeats_to_the_bit, run, stdout, steps};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The metrics that common dashboards look for in each step, besides times and memory.
const METRICS: &[&str] = &[
    "actor/pg_loss",
    "actor/entropy",
    "actor/pg_clipfrac",
    "actor/pg_clipfrac_lower",
    "actor/ppo_kl",
    "actor/reward_kl_penalty",
    "actor/reward_kl_penalty_coeff",
    "actor/grad_norm",
    "actor/lr",
    "critic/vf_loss",
    "critic/vf_clipfrac",
    "critic/vpred_mean",
    "critic/vf_explained_var",
    "critic/grad_norm",
    "critic/lr",
    "critic/score/mean",
    "critic/rewards/max",
    "critic/advantages/min",
    "critic/returns/mean",
    "critic/values/mean",
    "response_length/mean",
    "response_length/clip_ratio",
    "response_length/terminated_mean",
    "prompt_length/max",
    "global_seqlen/mean",
    "training/rollout_probs_diff_mean",
    "training/rollout_probs_diff_max",
    "training/rollout_probs_diff_std",
    "training/global_step",
    "training/epoch",
    "reward/accuracy",
    "reward/format",
    "reward/zero_std_frac",
];

#[test]
fn a_run_leaves_everything_a_resumed_one_needs() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let path = |p: &Path| p.to_str().unwrap().to_string();
    let first = run(0, &[SMOKE, "--out", &path(&whole)]);
    // Random weights produce no answer, and the run says so.
    let warning = String::from_utf8(first.stderr).unwrap();
    assert!(warning.contains("none of the 16 rollouts in the first step has an answer"), "{warning}");
    for file in ["recipe.toml", "metrics.jsonl", "curve.svg", "start/model.safetensors", "step_000004/COMPLETE"] {
        assert!(whole.join(file).exists(), "{file}");
    }
    for file in ["model/config.json", "model/tokenizer.json", "critic/model.safetensors", "optimizer.safetensors"] {
        assert!(whole.join("step_000004").join(file).exists(), "{file}");
    }
    let metrics = steps(&whole);
    assert_eq!(metrics.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    for name in METRICS {
        assert!(metrics[&4].contains_key(*name), "{name} is missing: {:?}", metrics[&4].keys());
    }

    // Stopped after two steps and resumed, the run is the same run.
    let parts = dir.path().join("parts");
    run(0, &[SMOKE, "--out", &path(&parts), "--set", "ppo.steps=2"]);
    run(0, &[SMOKE, "--out", &path(&parts), "--resume"]);
    let same = support::repeats_to_the_bit("a run that is resumed");
    assert!(!same || steps(&parts) == metrics);
    let weights = |run: &Path| std::fs::read(run.join("step_000004/model/model.safetensors")).unwrap();
    assert!(!same || weights(&whole) == weights(&parts), "the resumed run's weights differ");

    let compared =
        support::json(&run(0, &["compare", &path(&whole), &path(&parts), "--metric", "critic/score/mean", "--json"]));
    assert!(!same || compared["runs"][0]["points"] == compared["runs"][1]["points"]);
    assert_eq!(compared["runs"][0]["points"].as_array().unwrap().len(), 4);

    // A second start does not touch a run.
    let refused = run(2, &[SMOKE, "--out", &path(&whole)]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume"));

    // The means that eval reports are those of its rows.
    let checkpoint = path(&whole.join("step_000004"));
    let eval = support::json(&run(0, &["eval", &checkpoint, "--split", "test", "--decoding", "sampled", "--json"]));
    let rows = eval["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 16);
    let mean = |name: &str| rows.iter().map(|r| r[name].as_f64().unwrap()).sum::<f64>() / 16.0;
    assert!((eval["reward"].as_f64().unwrap() - mean("reward")).abs() < 1e-6);
    assert!((eval["accuracy"].as_f64().unwrap() - mean("accuracy")).abs() < 1e-9);

    // An export is the model and nothing else.
    let exported = dir.path().join("exported");
    run(0, &["export", &checkpoint, &path(&exported)]);
    run(0, &["export", &checkpoint, &path(&dir.path().join("critic")), "--critic"]);
    run(2, &["export", &checkpoint, &path(&exported)]);
    let mut files: Vec<_> = std::fs::read_dir(&exported).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);

    let model = path(&exported);
    let args = ["generate", &model, "--prompt", "Numbers: 3 5 7\nTarget: 22\n", "--max-tokens", "8", "--json"];
    let text = stdout(&run(0, &[&args[..], &["--temperature", "1", "--samples", "3"]].concat()));
    assert_eq!(text.lines().count(), 3);
    assert_eq!(text, stdout(&run(0, &[&args[..], &["--temperature", "1", "--samples", "3"]].concat())), "same seed");
}

#[test]
fn other_variants_of_ppo_run_too() {
    let dir = tempfile::tempdir().unwrap();
    for (name, sets) in [
        ("grpo", &["ppo.advantage='grpo'", "ppo.kl_in='loss'", "ppo.kl_estimator='k3'"][..]),
        ("kernels", &["machine.attention='plain'", "machine.tf32=true"]),
        ("rloo", &["ppo.advantage='rloo'", "ppo.kl_in='off'", "ppo.aggregation='sequence_mean'"]),
        (
            "variants",
            &[
                "ppo.kl_target=0.01",
                "ppo.clip_dual=3.0",
                "ppo.clip_high=0.3",
                "ppo.critic_warmup_steps=1",
                "ppo.epochs=2",
                "rollout.top_p=0.9",
                "rollout.top_k=20",
                "rollout.batch=4",
                "rollout.temperature=0.8",
            ],
        ),
        ("shared", &["ppo.critic='shared'", "ppo.critic_warmup_steps=1"]),
    ] {
        let out = dir.path().join(name);
        let mut args = vec![SMOKE, "--out", out.to_str().unwrap(), "--set", "ppo.steps=2"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        run(0, &args);
        let steps = steps(&out);
        assert_eq!(steps.len(), 2, "{name}");
        let critic = steps[&2].keys().any(|k| k.starts_with("critic/vf_loss"));
        assert_eq!(critic, name != "grpo" && name != "rloo", "{name}");
    }
}

/// The model that decodes with a cache and the one that scores whole sequences are the same, in either precision.
#[test]
fn sampler_and_scorer_probabilities_agree() {
    let dir = tempfile::tempdir().unwrap();
    for (precision, mean, max) in [("float32", 1e-5, 1e-4), ("bfloat16", 5e-3, 0.3)] {
        let out = dir.path().join(precision);
        let precision = format!("machine.precision='{precision}'");
        let sets = ["--set", &precision, "--set", "model.random_weights=false", "--set", "ppo.steps=2"];
        run(0, &[&[SMOKE, "--out", out.to_str().unwrap()][..], &sets].concat());
        for (step, scalars) in steps(&out) {
            let gap = |name: &str| scalars[&format!("training/rollout_probs_diff_{name}")].as_f64().unwrap();
            assert!(gap("mean") <= mean && gap("max") <= max, "{precision}, step {step}: {scalars:?}");
            assert!(precision.contains("float32") || gap("mean") > 0.0, "{scalars:?}");
        }
    }
}

#[test]
fn memory_options_do_not_change_results() {
    let dir = tempfile::tempdir().unwrap();
    for precision in ["machine.precision='float32'", "machine.precision='bfloat16'"] {
        let train = |name: &str, keys: &[&str]| {
            let out = dir.path().join(format!("{name} {}", precision.len()));
            let mut args = vec![SMOKE, "--out", out.to_str().unwrap(), "--set", precision, "--set", "ppo.steps=2"];
            args.extend(keys.iter().flat_map(|key| ["--set", key]));
            run(0, &args);
            steps(&out)
        };
        let keys = ["gradient_checkpointing", "offload_optimizer", "offload_reference", "return_freed"]
            .map(|k| format!("memory.{k}=true"));
        let (plain, spare) = (train("plain", &[]), train("spare", &keys.each_ref().map(String::as_str)));
        let names = |steps: &BTreeMap<u64, BTreeMap<String, Value>>| {
            steps.iter().map(|(step, scalars)| (*step, scalars.keys().cloned().collect())).collect::<Vec<(_, Vec<_>)>>()
        };
        assert_eq!(names(&plain), names(&spare), "{precision}");
        if repeats_to_the_bit("runs that save memory") {
            assert_eq!(plain, spare, "{precision}");
        }
    }
}

#[test]
fn a_warm_start_reads_prompts_and_responses_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    run(0, &["data", SMOKE, "--traces", "--count", "64", "--file", rows.to_str().unwrap()]);
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let data = format!("sft.data={{ kind = 'file', path = '{}' }}", rows.display());
    let (solver, file) = (out("solver"), out("file"));
    run(0, &[SMOKE, "--out", &solver, "--set", "ppo.steps=1", "--set", "sft.validation=0"]);
    let sets = ["--set", "ppo.steps=1", "--set", "sft.validation=0", "--set", &data];
    run(0, &[&[SMOKE, "--out", &file][..], &sets].concat());
    // The rows are the solver's, so the warm start is the same.
    let weights = |run: &str| std::fs::read(Path::new(run).join("start/model.safetensors")).unwrap();
    assert!(weights(&solver) == weights(&file));

    // What the plan says about the rows is what they are.
    std::fs::write(&rows, "{\"prompt\": \"1\", \"response\": \"2\"}\n{\"prompt\": \"1 2\", \"response\": \"3\"}\n")
        .unwrap();
    let sets = ["--set", "sft.validation=0", "--set", "sft.train=2", "--set", "sft.batch=2", "--set", &data];
    let plan = support::json(&run(0, &[&["plan", SMOKE, "--json"][..], &sets].concat()));
    let read = json!({"training": 2, "validation": 0, "tokens": {"fewest": 3, "most": 5, "mean": 4.0}});
    assert_eq!(plan["warm_start"]["read"], read);

    std::fs::write(&rows, "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\"}\n").unwrap();
    let sets = ["--set", "sft.validation=0", "--set", "sft.train=2", "--set", "sft.batch=2", "--set", &data];
    let refused = run(2, &[&[SMOKE, "--out", &out("broken")][..], &sets].concat());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("rows.jsonl, line 2") && message.contains("response"), "{message}");
}

#[test]
fn the_other_commands_work() {
    let plan = support::json(&run(0, &["plan", "recipes/quickstart.toml", "--json"]));
    assert!(plan["first_prompt"]["text"].as_str().unwrap().starts_with("Numbers: "));
    assert_eq!(plan["first_prompt"]["ids"].as_array().unwrap().len() as u64, plan["first_prompt"]["tokens"]);
    let small = stdout(&run(0, &["plan", SMOKE, "--memory", "0.001", "--processes", "2"]));
    assert!(small.contains("IT DOES NOT FIT") && small.contains("first prompt, "), "{small}");
    // Memory that is given is that of a GPU, wherever the plan is made.
    let other = ["plan", SMOKE, "--set", "machine.device=auto", "--memory", "80", "--json"];
    let other = support::json(&run(0, &other));
    assert_eq!((&other["memory"]["node_bytes"], &other["recipe"]["machine"]["device"]), (&json!(null), &json!("cuda")));
    let costly = support::json(&run(0, &["plan", SMOKE, "--cost=a100", "--response-tokens", "7", "--json"]));
    assert_eq!(costly["cost"]["tokens"]["response"], 7.0);
    assert!(costly["cost"]["steps"][6]["seconds"].as_f64().unwrap() > 0.0);
    let problems = stdout(&run(0, &["data", SMOKE, "--split", "test", "--count", "5"]));
    assert_eq!(problems.lines().filter(|l| serde_json::from_str::<Value>(l).unwrap()["target"].is_i64()).count(), 5);
    let traces = stdout(&run(0, &["data", SMOKE, "--traces", "--count", "3", "--set", "sft.data.style=dialogue"]));
    assert!(traces.lines().all(|l| l.contains("<persona1>")), "{traces}");
    for command in [
        &["--help"][..],
        &["plan", "--help"],
        &["eval", "--help"],
        &["generate", "--help"],
        &["steer", "--help"],
        &["data", "--help"],
        &["compare", "--help"],
        &["export", "--help"],
        &["completions", "--help"],
    ] {
        assert!(stdout(&run(0, command)).contains("Example: ppo-train"), "{command:?}");
    }
    let help = stdout(&run(0, &["--help"]));
    assert!(["  0   done", "  1   failed", "  2   bad input", "  75  stopped"].iter().all(|code| help.contains(code)));
    assert!(stdout(&run(0, &["--version"])).contains("libtorch 2.13.0 with"));
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(0, &["completions", shell]));
        assert!(["ppo-train", "compare", "temperature"].iter().all(|word| script.contains(word)), "{shell}");
    }
}

#[test]
fn bad_input_is_one_message_and_exit_code_2() {
    for (args, parts) in [
        (&["recipes/smok.toml"][..], &["smoke.toml"][..]),
        (&["evla", "x"], &["`evla` is neither a command nor a recipe", "did you mean `eval`?"]),
        (&["zzz"], &["`zzz` is neither a command nor a recipe", "plan, eval,"]),
        (&["plan", SMOKE, "--set", "ppo.actor_rl=1"], &["actor_lr", "--set"]),
        (&["plan", SMOKE, "--set", "ppo.mini_batch=5"], &["mini_batch", "16"]),
        (&["plan", SMOKE, "--set", "model.path='checkpoints/countdown-bas'"], &["countdown-base"]),
        (&["eval", "recipes"], &["recipe.toml"]),
        (&["generate", "recipes", "--prompt", "x"], &["config.json"]),
        (&["compare", "recipes"], &["metrics.jsonl"]),
        (&[SMOKE, "--set", "rollout.stop=['']", "--out", "/nonexistent/x"], &["a stop string is empty"]),
        (&[SMOKE, "--set", "machine.device='cuda:99'", "--out", "/nonexistent/x"], &["no device `cuda:99`"]),
        (&["plan", SMOKE, "--cost", "--response-tokens", "100000"], &["100000 tokens", "allows at most"]),
        (&["bench", SMOKE, "--against", "README.md"], &["README.md: expected value"]),
        (&["bench", SMOKE, "--response-tokens", "9..3"], &["such as 10..256"]),
        (&["bench", "--config", "recipes/schema.json"], &["recipes/schema.json: neither `architectures`"]),
        (&["plan", SMOKE, "--nodes", "2"], &["1 processes cannot be on 2 machines", "--processes COUNT"]),
        // Rewards that no rollout could earn.
        (&[SMOKE, "--set", "rollout.stop=['</think>']", "--out", "/nonexistent/x"], &["cannot be earned"]),
        (
            &[SMOKE, "--set", "rollout.max_response_tokens=8", "--out", "/nonexistent/x"],
            &["cannot be earned", "8 tokens"],
        ),
    ] {
        let message = String::from_utf8(run(2, args).stderr).unwrap();
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
        let errors = message.lines().filter(|line| line.starts_with("error")).count();
        assert!(!message.contains("panicked") && errors == 1, "{message}");
    }
}

/// The base model's folder without its weights, and with this end token in config.json.
fn folder_without_weights(dir: &Path, end: u64) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(base.join(name), dir.join(name)).unwrap();
    }
    let config = std::fs::read_to_string(base.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["eos_token_id"] = end.into();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// A plan sends a right answer through the reward, as a run does.
#[test]
fn a_plan_refuses_a_reward_that_cannot_be_earned() {
    let dir = tempfile::tempdir().unwrap();
    // `</answer>`
    folder_without_weights(dir.path(), 520);
    let model = format!("model.path='{}'", dir.path().display());
    for (set, part) in [
        ("rollout.stop=['</think>']", "a known right answer earns"),
        (model.as_str(), "it is cut at </answer> (520), which is an end token of this model"),
    ] {
        let refused = run(2, &["plan", SMOKE, "--set", "model.random_weights=true", "--set", set]);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains("cannot be earned") && message.contains(part), "{message}");
    }
}

#[test]
fn every_command_says_that_weights_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    folder_without_weights(dir.path(), 0);
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(SMOKE), dir.path().join("recipe.toml")).unwrap();
    let (folder, target) = (dir.path().to_str().unwrap(), dir.path().join("exported"));
    for args in [
        &["generate", folder, "--prompt", "1"][..],
        &["export", folder, target.to_str().unwrap()],
        &["export", folder, target.to_str().unwrap(), "--critic"],
        &["eval", folder, "--problems", "1"],
    ] {
        let message = String::from_utf8(run(2, args).stderr).unwrap();
        assert!(
            message.contains("has no weights (model.safetensors, or model.safetensors.index"),
            "{args:?}: {message}"
        );
    }
}

/// Two arms differ in what they say, and nothing else.
#[test]
fn a_plan_shows_how_it_differs_from_another() {
    let sets = ["--set", "ppo.kl_coef=0.5", "--set", "sft.data.style=dialogue"];
    let shown = stdout(&run(0, &[&["plan", SMOKE, "--against", SMOKE, "--json"], &sets[..]].concat()));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let expected = json!([
        {"key": "ppo.kl_coef", "against": "0.001", "recipe": "0.5"},
        {"key": "sft.data.style", "against": "\"monologue\"", "recipe": "\"dialogue\""},
    ]);
    assert_eq!(shown, expected);
    assert!(stdout(&run(0, &["plan", SMOKE, "--against", SMOKE])).contains("do not differ"));
    assert!(stdout(&run(0, &[&["plan", SMOKE, "--against", SMOKE], &sets[..]].concat())).contains("ppo.kl_coef"));
}

/// The files for editors and readers are the ones the program writes.
#[test]
fn the_schema_and_its_page_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let written = [
        (&["schema"][..], "recipes/schema.json"),
        (&["schema", "--markdown"], "docs/recipe.md"),
        (&["schema", "--site", "--markdown"], "docs/site.md"),
    ];
    for (arguments, file) in written {
        let written = stdout(&run(0, arguments));
        let kept = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(written == kept, "{file} is not current: ppo-train {} > {file}", arguments.join(" "));
    }
    let mut recipes = 0;
    for dir in ["recipes", "recipes/llama"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema ")).map(str::to_string);
                let schema = named.map(|name| path.with_file_name(name));
                assert!(schema.is_some_and(|file| file.exists()), "{} does not begin with a schema", path.display());
                recipes += 1;
            }
        }
    }
    assert!(recipes > 8);
}

#[test]
fn a_bench_measures_every_stage_and_compares_itself() {
    let dir = tempfile::tempdir().unwrap();
    let shape = ["--samples", "2", "--prompt-tokens", "5..9", "--response-tokens", "3..12", "--steps", "1"];
    let arguments = [&["bench", SMOKE, "--json", "--profile"][..], &shape].concat();
    let measured = support::json(&run(0, &arguments));
    for stage in ["gen", "old_log_prob", "ref", "update_actor"] {
        let stage = &measured["stages"][stage];
        assert!(stage["seconds"].as_f64().unwrap() > 0.0 && stage["share_of_gemm"].as_f64().unwrap() < 1.5, "{stage}");
    }
    assert!(measured["profile"]["update_actor"].as_array().unwrap().len() > 5);
    let file = dir.path().join("before.json");
    std::fs::write(&file, measured.to_string()).unwrap();
    assert_eq!(measured["shapes"]["responses"].as_array().unwrap().len() % 2, 0, "two responses for each prompt");
    let table = stdout(&run(0, &[&["bench", SMOKE, "--against", file.to_str().unwrap()][..], &shape].concat()));
    assert!(table.contains("speed-up") && table.contains("ceiling: "), "{table}");
    // A peer that only decodes has no step.
    std::fs::write(&file, r#"{"stages": {"gen": {"seconds": 1e6}}, "step_s": null}"#).unwrap();
    let table = stdout(&run(0, &[&["bench", SMOKE, "--against", file.to_str().unwrap()][..], &shape].concat()));
    assert!(table.contains("speed-up"), "{table}");
}
