//! The second task as a user meets it: two runs on claims, their evaluations by class, and checkpoints held against
//! each other. The files of rows are made here.

use super::support::{json, run, stdout};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const NAMES: [&str; 6] = ["pants-fire", "false", "barely-true", "half-true", "mostly-true", "true"];

/// Ratings in no order; six of ten are false.
const RATINGS: [usize; 10] = [0, 5, 1, 2, 3, 1, 4, 0, 2, 3];

fn class(rating: usize) -> u64 {
    [2, 2, 2, 1, 0, 0][rating]
}

fn claim(i: usize) -> String {
    format!("{} has {i} cats.", ["Ann", "Bob", "Cho", "Dee"][i % 4])
}

/// Writes the files into a folder: LIAR2's layout, LIAR's, and rows of a warm start with any verdict.
fn write_rows(dir: &Path) {
    let mut train = "id,label,date,statement,speaker\n".to_string();
    for i in 0..192 {
        writeln!(train, "{i},{},May 1,\"{}\",\"\"\"X\"\", a speaker\"", RATINGS[i % 10], claim(i)).unwrap();
    }
    let mut test = String::new();
    for i in 500..532 {
        writeln!(test, "{i}.json\t{}\t{}\tcats\t\t\t\tnone\t0\t0\t0\t0\t0\t", NAMES[RATINGS[i % 10]], claim(i))
            .unwrap();
    }
    let mut traces = String::new();
    for i in 0..160 {
        let (prompt, answer) =
            (format!("Claim: {}\nTrue, half-true or false?\n", claim(i)), ["true", "half-true", "false"]);
        let response = format!("<think>so</think><answer>{}</answer>", answer[i % 3]);
        writeln!(traces, "{}", json!({"prompt": prompt, "response": response})).unwrap();
    }
    for (name, text) in [("train.csv", train), ("test.tsv", test), ("traces.jsonl", traces)] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// Macro-F1 from its definition, problem by problem.
fn macro_f1(truth: &[u64], given: &[Option<u64>]) -> f64 {
    let f1 = |class: u64| {
        let count = |of: &dyn Fn(u64, Option<u64>) -> bool| {
            truth.iter().zip(given).filter(|(truth, given)| of(**truth, **given)).count() as f64
        };
        let hits = count(&|truth, given| truth == class && given == Some(class));
        let (precision, recall) = (
            hits / count(&|_, given| given == Some(class)).max(1.0),
            hits / count(&|truth, _| truth == class).max(1.0),
        );
        if hits == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
    };
    (0..3).map(f1).sum::<f64>() / 3.0
}

/// The last line of a file for which `wanted` holds.
fn last(path: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    let lines = std::fs::read_to_string(path).unwrap();
    let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.rev().find(|value| wanted(value)).unwrap()
}

#[test]
fn runs_on_claims_are_evaluated_by_class_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    write_rows(dir.path());
    let files = [("task.train_file", "train.csv"), ("task.test_file", "test.tsv"), ("sft.data.path", "traces.jsonl")];
    let files: Vec<String> =
        files.iter().map(|(key, name)| format!("{key}={}", text(&dir.path().join(name)))).collect();
    let train = |name: &str, sets: &[&str]| -> PathBuf {
        let out = dir.path().join(name);
        let shown = text(&out);
        let sets = files.iter().map(String::as_str).chain(sets.iter().copied()).flat_map(|set| ["--set", set]);
        run(0, &[&["tests/politifact/recipe.toml", "--out", &shown], &sets.collect::<Vec<_>>()[..]].concat());
        out
    };
    let first = train("first", &[]);
    // Another run from the same warm start, as one begins with a start folder of another task.
    let from = format!("sft.from={}", text(&first.join("start")));
    let second = train("second", &["sft.data=unset", &from, "seed=2", "ppo.steps=2"]);

    // What the records say is what follows from the single problems.
    for decoding in ["sampled", "greedy"] {
        let outcome = last(&first.join("evaluations.jsonl"), |line| line["decoding"] == decoding);
        let truth: Vec<u64> = serde_json::from_value(outcome["class"].clone()).unwrap();
        let given: Vec<Option<u64>> = serde_json::from_value(outcome["answer"].clone()).unwrap();
        // Validation has the last rows of the training file.
        assert_eq!(truth, (160..192).map(|i| class(RATINGS[i % 10])).collect::<Vec<_>>());
        let record = last(&first.join("metrics.jsonl"), |line| line["stage"] == "evaluation");
        let prefix = if decoding == "greedy" { "val/politifact" } else { "val/politifact_sampled" };
        let recorded = |name: &str| record[format!("{prefix}/{name}")].as_f64().unwrap();
        assert!((recorded("macro_f1") - macro_f1(&truth, &given)).abs() < 1e-9);
        let none = given.iter().filter(|given| given.is_none()).count() as f64 / 32.0;
        assert_eq!(recorded("unanswered"), none);
        assert!(["f1_true", "f1_half_true", "f1_false"].iter().all(|name| (0.0..=1.0).contains(&recorded(name))));
        let right = truth.iter().zip(&given).filter(|(truth, given)| Some(**truth) == **given).count() as f64 / 32.0;
        assert!((recorded("accuracy") - right).abs() < 1e-9);
        assert!(none < 1.0, "the warm start teaches to answer");
    }

    // Two steps of one run on the same problems.
    let [one, other] = ["step_000004", "start"].map(|name| text(&first.join(name)));
    let both = json(&run(0, &["eval", &one, "--against", &other, "--decoding", "sampled", "--json"]));
    let right =
        |of: &Value| -> Vec<bool> { of["rows"].as_array().unwrap().iter().map(|row| row["accuracy"] == 1.0).collect() };
    let (now, before) = (right(&both), right(&both["against"]));
    let count = |a: bool, b: bool| now.iter().zip(&before).filter(|pair| (*pair.0, *pair.1) == (a, b)).count();
    let paired = &both["paired"];
    assert_eq!(
        [&paired["both"], &paired["only_first"], &paired["only_second"], &paired["neither"]],
        [
            &json!(count(true, true)),
            &json!(count(true, false)),
            &json!(count(false, true)),
            &json!(count(false, false))
        ]
    );
    let (classes, others) = (&both["classes"], &both["against"]["classes"]);
    let difference = classes["macro_f1"].as_f64().unwrap() - others["macro_f1"].as_f64().unwrap();
    assert!((paired["macro_f1"]["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
    assert!((0.0..=1.0).contains(&paired["p"].as_f64().unwrap()));
    let rows = classes["confusion"].as_array().unwrap();
    let sums: Vec<u64> =
        rows.iter().map(|row| row.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum()).collect();
    let truth: Vec<u64> = (500..532).map(|i| class(RATINGS[i % 10])).collect();
    assert_eq!(sums, [0, 1, 2].map(|class| truth.iter().filter(|truth| **truth == class).count() as u64));
    let baseline = &classes["baselines"][2];
    assert_eq!((&baseline["class"], &baseline["majority_of_train"]), (&json!("false"), &json!(true)));
    assert!((baseline["accuracy"].as_f64().unwrap() - sums[2] as f64 / 32.0).abs() < 1e-12);
    let shown = stdout(&run(0, &["eval", &one, "--against", &other]));
    assert!(
        shown.contains("the commonest of the train split") && shown.contains("McNemar's exact test: p = "),
        "{shown}"
    );

    // Two runs, and a checkpoint on the problems of another recipe.
    let [one, other] = [&first, &second].map(|run| text(run));
    let compared = json(&run(0, &["compare", &one, &other, "--allow", "ppo.steps", "--steps", "0,2", "--json"]));
    assert_eq!(compared["metric"], "val/politifact_sampled/accuracy");
    assert_eq!(compared["exact"].as_array().unwrap().len(), 2);
    let compared =
        json(&run(0, &["compare", &one, &other, "--any", "--metric", "macro_f1", "--decoding", "greedy", "--json"]));
    assert_eq!(compared["runs"][0]["points"].as_array().unwrap().len(), 3);
    let checkpoint = text(&first.join("start"));
    let moved = json(&run(0, &["eval", &checkpoint, "--recipe", "recipes/smoke.toml", "--problems", "4", "--json"]));
    assert_eq!((&moved["problems"], moved.get("classes")), (&json!(4), None));
    let refused = run(2, &["eval", "checkpoints/countdown-base"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("name a recipe with --recipe"));
}
