//! Checkpoints that are no longer what was written: found, named, and never gone on from.

use crate::support::{SMOKE, json, repeats_to_the_bit, run, stdout, steps};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The arguments of a run of four steps, each with a checkpoint.
pub fn arguments(out: &Path) -> Vec<&str> {
    let sets = ["checkpoints.every=1", "checkpoints.keep_last=4", "evaluation.every=0", "evaluation.problems=4"];
    let sets = sets.into_iter().chain(["sft.train=16", "rollout.prompts_per_step=4"]).flat_map(|set| ["--set", set]);
    [SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets).collect()
}

pub fn resume(code: i32, out: &Path) -> String {
    stderr(&run(code, &[&arguments(out)[..], &["--resume"]].concat()))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A copy of a run's folder that can be damaged.
fn copy(of: &Path, name: &str) -> PathBuf {
    let to = of.with_file_name(name);
    assert!(Command::new("cp").arg("-r").args([of, &to]).status().unwrap().success());
    to
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn empty(path: &Path) {
    fs::write(path, "").unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Replaces a key of state.json in a checkpoint as an older version wrote it, without checksums.
fn state(folder: &Path, from: &str, to: &str) {
    empty(&folder.join("COMPLETE"));
    let path = folder.join("state.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

type Harm<'a> = &'a dyn Fn(&Path);

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used() {
    if !repeats_to_the_bit("a run after damage") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    run(0, &arguments(&whole));
    let end = |out: &Path| {
        let files = ["model/model.safetensors", "critic/model.safetensors", "optimizer.safetensors", "state.json"];
        (steps(out), files.map(|file| fs::read(out.join("step_000004").join(file)).unwrap()))
    };
    let expected = end(&whole);

    let cases: [(&str, Harm, &str); 12] = [
        ("bit", &|last| flip(&last.join("optimizer.safetensors")), "optimizer.safetensors has other bytes"),
        (
            "bit-critic",
            &|last| flip(&last.join("critic/model.safetensors")),
            "critic/model.safetensors has other bytes",
        ),
        ("cut", &|last| cut(&last.join("model/model.safetensors")), "model/model.safetensors has 1720328 bytes"),
        ("empty", &|last| empty(&last.join("model/config.json")), "model/config.json has 0 bytes"),
        ("gone", &|last| remove(&last.join("state.json")), "state.json: it is missing"),
        ("unmarked", &|last| remove(&last.join("COMPLETE")), "COMPLETE: it is missing"),
        ("mark", &|last| cut(&last.join("COMPLETE")), "COMPLETE: it is"),
        // Without checksums, what can be known is.
        (
            "old-cut",
            &|last| {
                empty(&last.join("COMPLETE"));
                cut(&last.join("optimizer.safetensors"))
            },
            "optimizer.safetensors: ",
        ),
        ("old-step", &|last| state(last, "\"step\": 4", "\"step\": 3"), "it is of step 3, and not of step 4"),
        ("old-far", &|last| state(last, "\"step\": 4", "\"step\": 18446744073709551615"), "and not of step 4"),
        ("old-kl", &|last| state(last, "\"kl_coefficient\": 0.001", "\"kl_coefficient\": -5"), "kl_coefficient is -5"),
        ("renamed", &|last| fs::rename(last, last.with_file_name("step_000400")).unwrap(), "it is of step 4, and not"),
    ];
    for (name, harm, what) in cases {
        let out = copy(&whole, name);
        let last = out.join("step_000004");
        harm(&last);
        let damaged = if name == "renamed" { out.join("step_000400") } else { last };
        // Without --resume nothing is changed.
        run(2, &arguments(&out));
        assert!(damaged.exists());
        let said = resume(0, &out);
        let aside = damaged.with_file_name(format!("damaged_{}", damaged.file_name().unwrap().to_str().unwrap()));
        let called = format!("warning: {} is damaged, and is called {} now: ", damaged.display(), aside.display());
        assert!(said.contains(&called) && said.contains(what), "{name}: {said}");
        assert!(said.contains(&format!("the run goes on from {}", out.join("step_000003").display())), "{said}");
        assert!(aside.exists() && !out.join("step_000400").exists());
        assert!(end(&out) == expected, "{name}: not the run that it was");
        if name == "renamed" {
            assert!(!resume(0, &out).contains("damaged"), "it is seen again");
        }
        fs::remove_dir_all(out).unwrap();
    }

    // Two of them; and a removal that was interrupted, as older versions left it.
    let out = copy(&whole, "two");
    flip(&out.join("step_000004/model/model.safetensors"));
    empty(&out.join("step_000003/recipe.toml"));
    remove(&out.join("step_000001/COMPLETE"));
    let said = resume(0, &out);
    assert!(said.contains("recipe.toml has 0 bytes") && said.contains("goes on from"), "{said}");
    assert!(said.contains("step_000001 is removed: "), "{said}");
    assert!(out.join("damaged_step_000003").exists() && !out.join("step_000001").exists());
    assert!(end(&out) == expected);

    // None is whole: the start is where PPO begins.
    let out = copy(&whole, "none");
    (1..=4).for_each(|step| flip(&out.join(format!("step_00000{step}/model/model.safetensors"))));
    let broken = copy(&out, "not-even-a-start");
    let said = resume(0, &out);
    assert!(said.contains(&format!("the run does PPO anew, from {}", out.join("start").display())), "{said}");
    assert!(end(&out) == expected);

    // Nothing is left to begin from, or a start that the steps were not made with.
    flip(&broken.join("start/model.safetensors"));
    let said = resume(2, &broken);
    assert!(said.contains("has no whole checkpoint, and no start either: model.safetensors has other bytes"), "{said}");
    assert!(said.contains("step_000002: model/model.safetensors has other") && said.contains("--out DIR"), "{said}");
    assert!(broken.join("step_000004/COMPLETE").exists(), "nothing is changed");
    let out = copy(&whole, "start");
    fs::remove_dir_all(out.join("start")).unwrap();
    let before = fs::read(out.join("metrics.jsonl")).unwrap();
    let said = resume(2, &out);
    assert!(said.contains("step_000004 is whole, but ") && said.contains("put "), "{said}");
    assert!(fs::read(out.join("metrics.jsonl")).unwrap() == before);
}

#[test]
fn a_damaged_start_without_steps_is_made_anew() {
    if !repeats_to_the_bit("a start after damage") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [&arguments(&out)[..], &["--set", "ppo=unset"]].concat();
    run(0, &args);
    let weights = || fs::read(out.join("start/model.safetensors")).unwrap();
    let expected = weights();
    cut(&out.join("start/model.safetensors"));
    let said = stderr(&run(0, &[&args[..], &["--resume"]].concat()));
    assert!(
        said.contains("damaged_start now: model.safetensors has") && said.contains("the run begins anew"),
        "{said}"
    );
    assert!(weights() == expected && out.join("damaged_start").exists());
    let records = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 1, "{records}");
}

#[test]
fn commands_refuse_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(0, &[&arguments(&out)[..], &["--set", "ppo.steps=1"]].concat());
    let step = out.join("step_000001");
    let [shown, model, start] = [&step, &step.join("model"), &out.join("start")].map(|p| p.display().to_string());
    let exported = |name: &str| dir.path().join(name).display().to_string();
    let critic = exported("critic");
    let generate = ["--prompt", "Numbers: 3 5 7", "--max-tokens", "2"];
    let commands = [
        vec!["eval", &shown, "--problems", "2"],
        vec!["export", &shown, &critic, "--critic"],
        [&["generate", &model][..], &generate].concat(),
        [&["generate", &start][..], &generate].concat(),
    ];
    let said = commands.each_ref().map(|args| {
        let output = run(0, args);
        assert!(!stderr(&output).contains("note:"), "{}", stderr(&output));
        stdout(&output)
    });
    let mark = fs::read(step.join("COMPLETE")).unwrap();
    // An older version's checkpoint is read, with a word.
    empty(&step.join("COMPLETE"));
    let old = run(0, &commands[0]);
    assert!(stdout(&old) == said[0] && stderr(&old).contains("was written without checksums"), "{}", stderr(&old));
    // One that was not written to its end is not, whoever would read it.
    remove(&step.join("COMPLETE"));
    let model_path = format!("model.path={model:?}");
    let [actor, further] = ["actor", "further"].map(exported);
    let weights = ["--set", &model_path, "--set", "model.random_weights=false", "--set", "sft=unset"];
    for args in [
        &commands[0],
        &commands[2],
        &vec!["export", &shown, &actor],
        &[&[SMOKE, "--out", &further][..], &weights].concat(),
    ] {
        let error = stderr(&run(2, args));
        assert!(error.contains(&format!("{shown} is not complete: it has no COMPLETE")), "{args:?}: {error}");
    }
    assert!(!Path::new(&actor).exists());
    fs::write(step.join("COMPLETE"), mark).unwrap();

    // The critic is not read where it is not needed.
    flip(&step.join("critic/model.safetensors"));
    run(0, &commands[0]);
    fs::remove_dir_all(&critic).unwrap();
    let message = |args: &[&str]| stderr(&run(2, args));
    let error = message(&commands[1]);
    assert!(error.contains("is damaged: critic/model.safetensors has other bytes than were written"), "{error}");
    assert!(!Path::new(&critic).exists());
    flip(&step.join("model/tokenizer.json"));
    cut(&out.join("start/tokenizer_config.json"));
    for (args, file) in [
        (&commands[0], "model/tokenizer.json has other bytes"),
        (&commands[2], "model/tokenizer.json has other bytes"),
        (&commands[3], "tokenizer_config.json has"),
        (&vec!["export", &shown, &exported("actor")], "model/tokenizer.json has other bytes"),
        (&vec!["export", &start, &exported("start")], "tokenizer_config.json has"),
    ] {
        let error = message(args);
        assert!(error.contains(" is damaged: ") && error.contains(file), "{args:?}: {error}");
    }
    let from = format!("sft={{ from = {start:?} }}");
    let other = exported("other");
    let error = message(&[SMOKE, "--out", &other, "--set", "sft=unset", "--set", &from]);
    assert!(error.contains("tokenizer_config.json has"), "{error}");
    // The run itself is whole where it matters: nothing but its damaged parts is refused.
    assert_eq!(json(&run(0, &["status", out.to_str().unwrap(), "--json"]))[0]["saved"], 1);
}

#[test]
fn a_damaged_result_of_a_hook_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let score = "hooks.external.score.command=[\"sh\", \"-c\", \"echo '{\\\"x\\\": 1}'\"]";
    let newest = ["ppo.steps=2", "checkpoints.keep_last=1", "checkpoints.keep_best=false"];
    let sets = newest.into_iter().chain(["hooks.external.score.every=1", score]).flat_map(|set| ["--set", set]);
    let args: Vec<&str> = arguments(&out).into_iter().chain(sets).collect();
    run(0, &args);
    let spoil = |step: usize| flip(&out.join(format!("hooks/step_{step:06}/score/result.json")));
    let judge = |code: i32, step: &str| run(code, &["judge", out.to_str().unwrap(), "--steps", step]);
    let note = "score is damaged: result.json has other bytes than were written; it is made anew";
    spoil(1);
    spoil(2);
    let made = judge(0, "2");
    assert!(stdout(&made).starts_with("hook score at step 2: ") && stderr(&made).contains(note), "{}", stderr(&made));
    // Without its checkpoint it cannot be.
    let said = stderr(&judge(2, "1"));
    assert!(said.contains(note) && said.contains("has no checkpoint of step 1; it has 0 and 2"), "{said}");
    spoil(2);
    let said = stderr(&run(0, &[&args[..], &["--resume"]].concat()));
    assert!(said.contains(note), "{said}");
    assert!(!stderr(&judge(0, "2")).contains(note), "it is made anew once");
}
