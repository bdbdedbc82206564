//! Event files and JSONL of an interrupted and resumed run, read back by TensorBoard's own Python readers.

use ppo_train::analysis;
use ppo_train::metrics::{Logs, Metrics, Record, Stage};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The repository, which holds `scripts/` and TensorBoard's environment.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read_events(folder: &Path) -> Value {
    let install = Command::new("scripts/tensorboard").arg("--install").current_dir(ROOT).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let mut reader = Command::new(Path::new(ROOT).join(".tensorboard/bin/python"));
    let output = reader.arg("tests/it/read_events.py").arg(folder).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A step whose figures show which attempt it belongs to.
fn step(stage: Stage, step: u64, attempt: f64) -> Record {
    let mut record = Record::new(stage, step);
    let name = match stage {
        Stage::Sft => "sft/loss",
        Stage::Ppo => "critic/score/mean",
        Stage::Evaluation => "val/countdown/accuracy",
        Stage::Hook => "hooks/score/step",
    };
    record.set(name, step as f64 + attempt);
    record
}

#[test]
fn tensorboard_reads_what_was_written_and_no_step_twice() {
    let dir = tempfile::tempdir().unwrap();
    let open = |resume| {
        Metrics::open(dir.path(), Logs { tensorboard: true, jsonl: true }, resume, |warning| panic!("{warning}"))
            .unwrap()
    };

    let mut metrics = open(None);
    (1..=5).for_each(|s| metrics.write(&step(Stage::Sft, s, 0.0)));
    metrics.write(&step(Stage::Evaluation, 0, 0.0));
    (1..=4).for_each(|s| metrics.write(&step(Stage::Ppo, s, 0.0)));
    metrics.write(&step(Stage::Evaluation, 4, 0.0));
    // No flush, as in a killed run. It is interrupted twice, so that there are three files.
    let mut metrics = open(Some((Stage::Ppo, 2)));
    metrics.write(&step(Stage::Ppo, 3, 0.25));
    drop(metrics);
    // It was stopped in the evaluation of the step that it goes on after.
    let mut metrics = open(Some((Stage::Ppo, 2)));
    metrics.write(&step(Stage::Evaluation, 2, 0.5));
    metrics.write(&step(Stage::Ppo, 3, 0.5));
    let mut last = step(Stage::Ppo, 4, 0.5);
    last.set("actor/grad_norm", f64::NAN);
    last.set("actor/lr", f64::INFINITY);
    last.histogram("reward/score", vec![0.0, 0.1, 1.0, 1.0]);
    last.text("samples/0", "<think>\n*5*12=60*\n</think>");
    metrics.write(&last);
    metrics.write(&step(Stage::Evaluation, 4, 0.5));
    metrics.flush();

    let found = read_events(&dir.path().join("events"));
    let sft = json!([[1, "1.0"], [2, "2.0"], [3, "3.0"], [4, "4.0"], [5, "5.0"]]);
    assert_eq!(found["sft"]["scalars"], json!({"sft/loss": sft}));
    let ppo = json!({
        "val/countdown/accuracy": [[0, "0.0"], [2, "2.5"], [4, "4.5"]],
        "critic/score/mean": [[1, "1.0"], [2, "2.0"], [3, "3.5"], [4, "4.5"]],
        "actor/grad_norm": [[4, "nan"]],
        "actor/lr": [[4, "inf"]],
    });
    assert_eq!(found["ppo"]["scalars"], ppo);
    assert_eq!(found["ppo"]["times"].as_array().unwrap().last().unwrap().as_f64().unwrap() as u64, last.time as u64);
    let text = "    <think>\n    *5*12=60*\n    </think>";
    assert_eq!(found["ppo"]["texts"], json!({"samples/0": [[4, text]]}));
    // Its other reader finds the same.
    let other = &found["ppo"]["tensorboard"];
    assert_eq!(other["scalars"], found["ppo"]["scalars"]);
    assert_eq!(other["texts"].as_object().unwrap().values().next().unwrap()[0][0], 4);
    assert_eq!(other["histograms"], json!({"reward/score": [4]}));
    assert_eq!(found["sft"]["tensorboard"]["scalars"], found["sft"]["scalars"]);
    let histogram = &found["ppo"]["histograms"]["reward/score"][0];
    for (index, expected) in [4.0, 0.0, 1.0, 4.0, 2.1, 2.01].into_iter().enumerate() {
        assert!((histogram[index].as_f64().unwrap() - expected).abs() < 1e-12, "{histogram}");
    }
    let counts: Vec<f64> = histogram[7].as_array().unwrap().iter().map(|count| count.as_f64().unwrap()).collect();
    assert_eq!((counts[0], counts[3], counts[29], counts.iter().sum::<f64>()), (1.0, 1.0, 2.0, 4.0));

    let records = analysis::read_jsonl(&dir.path().join("metrics.jsonl"), |warning| panic!("{warning}")).unwrap();
    let scores = analysis::points(&records, Stage::Ppo, "critic/score/mean");
    assert_eq!(scores, [(1.0, 1.0), (2.0, 2.0), (3.0, 3.5), (4.0, 4.5)]);
    assert_eq!(records.len(), 5 + 3 + 4);
    assert!(records.iter().any(|record| record.get("actor/grad_norm").is_some_and(f64::is_nan)));
}
