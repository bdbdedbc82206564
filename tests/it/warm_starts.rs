//! Warm starts: which rows of files are trained on and what is said of them, and which folders are finished ones.

use super::support::{self, SMOKE, run, stdout};
use ppo_train::text::Tokenizer;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A dialogue about 1+2 of so many personas, who speak in this order.
fn dialogue(personas: usize, speakers: &[usize]) -> String {
    let cast: String = (1..=personas).map(|n| format!("<persona{n}>\nP{n}\n</persona{n}>\n")).collect();
    let turns: String = speakers.iter().map(|n| format!("<think{n}>\nIt is 3, I say.\n</think{n}>\n")).collect();
    format!(
        "<cast_of_characters>\n{cast}</cast_of_characters>\n<conversation>\n{turns}</conversation>\n\
         <group_solution>\n3\n</group_solution>"
    )
}

const MONOLOGUE: &str = "<think>\n1+2\n</think>\n\n3";

/// A folder with files of rows.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        fs::write(bench.path("task.jinja"), "{{ task }}\n").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes rows with these traces, and returns the keys of a recipe that reads them, and `more` of its data.
    fn rows(&self, name: &str, key: &str, traces: &[String], more: &str) -> Vec<String> {
        let line = |trace: &String| format!("{}\n", json!({ "task": "1+2?", "answer": "3", key: trace }));
        fs::write(self.path(name), traces.iter().map(line).collect::<String>()).unwrap();
        let (path, template) = (self.path(name), self.path("task.jinja"));
        vec![
            format!("sft.data={{ kind = 'file', path = {path:?}, template = {template:?}{more} }}"),
            format!("sft.train={}", traces.len()),
            "sft.batch=2".into(),
            "sft.validation=0".into(),
        ]
    }
}

/// What a run says that refuses these keys.
fn refused(sets: &[String], more: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = sets.iter().map(String::as_str).chain(more.iter().copied()).flat_map(|set| ["--set", set]);
    stderr(&run(2, &[SMOKE, "--out", out.to_str().unwrap()].into_iter().chain(sets).collect::<Vec<_>>()))
}

/// `ppo-train data` on these keys.
fn data(how: &[&str], sets: &[String], more: &[&str]) -> Output {
    let sets = sets.iter().map(String::as_str).chain(more.iter().copied()).flat_map(|set| ["--set", set]);
    run(0, &["data", SMOKE].into_iter().chain(how.iter().copied()).chain(sets).collect::<Vec<_>>())
}

#[test]
fn too_few_answers_have_causes() {
    let bench = Bench::new();
    let good = dialogue(2, &[1, 2]);
    let broken = good.replace("think2", "Think2");
    let traces = [vec![good.clone(); 2], vec![broken; 2], vec![good.clone(); 6]].concat();
    let said = refused(&bench.rows("rows.jsonl", "dialogue", &traces, ", answer_tags = true"), &[]);
    for line in [3, 4] {
        let row = format!("warning: left out: {}, line {line}: key `dialogue`", bench.path("rows.jsonl").display());
        assert!(said.contains(&row), "{said}");
    }
    assert!(
        said.contains(", line 13, byte ") && said.contains(": expected an utterance or `</conversation>`"),
        "{said}"
    );
    assert!(said.contains("found `<Think2>`\n"), "{said}");
    assert!(said.contains("\nrows that cannot be read: 2; mend them, or take them out of the file\nor, if"), "{said}");
    assert!(!said.contains("answer_tags") && !said.contains("dialogue_format"), "{said}");

    let dialogues = bench.rows("rows.jsonl", "dialogue", &vec![good; 4], "");
    let said = refused(&dialogues, &[]);
    assert!(
        said.contains(": 4; set sft.data.answer_tags = true or reward.dialogue_format = true, whichever"),
        "{said}"
    );
    let monologues = bench.rows("rows.jsonl", "monologue", &vec![MONOLOGUE.to_string(); 4], "");
    assert!(refused(&monologues, &[]).contains(": 4; set sft.data.answer_tags = true\n"));

    // The answers are beyond the context, so nobody learns to give one.
    let tagged = bench.rows("rows.jsonl", "monologue", &vec![MONOLOGUE.to_string(); 4], ", answer_tags = true");
    let short = ["sft.context=9"];
    let stats = |more: &[&str]| support::json(&data(&["--stats", "--json"], &tagged, more));
    assert_eq!((&stats(&[])["answered"], &stats(&[])["cut"]), (&json!(4), &json!(0)));
    assert_eq!((&stats(&short)["answered"], &stats(&short)["cut"]), (&json!(0), &json!(4)));
    let said = refused(&tagged, &short);
    assert!(said.contains("\nrows cut before the end of their answer: 4; raise sft.context (9)\n"), "{said}");
}

#[test]
fn matched_lengths_are_measured_on_whole_rows() {
    let bench = Bench::new();
    let plain = bench.rows("monologues.jsonl", "monologue", &vec![MONOLOGUE.to_string(); 4], "");
    let long = dialogue(3, &[1, 2, 3, 1]);
    let more = format!(", partner = {:?}, match_lengths = true", bench.path("monologues.jsonl"));
    let matched = bench.rows("dialogues.jsonl", "dialogue", &vec![long; 4], &more);
    let tokenizer = Tokenizer::from_dir(Path::new("checkpoints/countdown-base")).unwrap();
    let tokens = |sets: &[String]| -> usize {
        let lines = stdout(&data(&["--traces", "--count", "1"], sets, &[]));
        let row: Value = serde_json::from_str(&lines).unwrap();
        tokenizer.encode(row["response"].as_str().unwrap()).unwrap().len()
    };
    let off = tokens(&matched).abs_diff(tokens(&plain));
    for more in [&[][..], &["sft.context=40"]] {
        let output = data(&["--stats", "--json"], &matched, more);
        let (stats, said) = (support::json(&output), stderr(&output));
        assert_eq!(stats["off_partner"], json!({ "fewest": off, "mean": off as f64, "most": off }));
        assert!(said.contains(&format!("of the warm start {off}.0 tokens off their partners on average")), "{said}");
        assert_eq!(stats["cut"], if more.is_empty() { 0 } else { 4 });
    }
    // What was said in between is left out, and two of the cast have lost all they said.
    let output = data(&["--stats", "--json"], &matched, &[]);
    let stats = support::json(&output);
    assert_eq!([&stats["personas"], &stats["cast"]], [&json!({ "1": 4 }), &json!({ "3": 4 })]);
    let said = stderr(&output);
    assert!(
        said.contains("note: 4 rows of the warm start (of 4) in which somebody of the cast never speaks"),
        "{said}"
    );
    let table = stdout(&data(&["--stats"], &matched, &[]));
    assert!(table.contains("of a cast of") && table.contains("3 in 4 rows"), "{table}");
}

/// A warm start is known by its record, so that a model as it was before cannot pass for a primed one.
#[test]
fn a_finished_warm_start_has_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (first, exported, start) = (place("first"), place("exported"), place("first/start"));
    run(0, &[SMOKE, "--out", &first, "--set", "ppo=unset"]);
    run(0, &["export", &start, &exported]);
    let begin = |code: i32, from: &str, out: &str| {
        let from = format!("sft={{ from = {from:?} }}");
        let sets = ["--set", "sft=unset", "--set", &from, "--set", "ppo.steps=1", "--set", "evaluation.every=0"];
        run(code, &[&[SMOKE, "--out", &place(out)][..], &sets].concat())
    };
    begin(0, &exported, "second");
    for file in ["warm_start.json", "model.safetensors"] {
        let read = |run: &str| fs::read(place(&format!("{run}/start/{file}"))).unwrap();
        assert!(read("first") == read("second"), "{file}");
    }
    let from = format!("sft={{ from = {start:?} }}");
    let said = stderr(&run(2, &["data", SMOKE, "--stats", "--set", "sft=unset", "--set", &from]));
    assert!(said.contains("begins with the finished warm start") && said.contains("traces.json"), "{said}");

    let weights = place("exported/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let said = stderr(&begin(2, &exported, "third"));
    assert!(said.contains("has other weights than those of the warm start in its warm_start.json"), "{said}");
    fs::write(place("exported/warm_start.json"), "{\"sft\": null}").unwrap();
    let said = stderr(&begin(2, &exported, "third"));
    assert!(said.contains("had no warm start: its warm_start.json has no `sft`"), "{said}");
    fs::remove_file(place("exported/warm_start.json")).unwrap();
    for model in [exported.as_str(), "checkpoints/countdown-base"] {
        let said = stderr(&begin(2, model, "third"));
        let parts = ["is a model, but no finished warm start: it has no warm_start.json", "belongs into model.path"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    assert!(!dir.path().join("third/start").exists());
}
