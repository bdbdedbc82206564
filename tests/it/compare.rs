//! Arms and seeds from training to tables: what evaluations leave behind, and what `compare` makes of it.

use super::support::{self, SMOKE, run, stdout};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn train(out: &Path, keys: &[&str]) {
    let sets = keys.iter().flat_map(|key| if *key == "--resume" { vec![*key] } else { vec!["--set", key] });
    run(0, &[SMOKE, "--out", text(out)].into_iter().chain(sets).collect::<Vec<_>>());
}

/// The lines of a run's file, without their times.
fn lines(run: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join(file)).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("time");
        line
    };
    text.lines().map(line).collect()
}

fn mean(values: &Value) -> f64 {
    let values: Vec<f64> = values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn evaluations_are_recorded_problem_by_problem_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let keys = ["model.random_weights=false", "task.validation=24", "ppo.steps=3", "evaluation.every=1"];
    train(&whole, &keys);
    train(&parts, &[&keys[..], &["ppo.steps=2"]].concat());
    // What a killed process left after its last checkpoint is written again.
    let path = parts.join("evaluations.jsonl");
    let longer = fs::read_to_string(&path).unwrap() + "{\"stage\":\"evaluation\",\"step\":3}\n{\"stage\":\"ev";
    fs::write(&path, longer).unwrap();
    train(&parts, &[&keys[..], &["--resume"]].concat());

    let evaluations = lines(&whole, "evaluations.jsonl");
    assert_eq!(lines(&parts, "evaluations.jsonl"), evaluations);
    let kinds: Vec<String> = evaluations.iter().map(|e| format!("{} {}", e["step"], e["decoding"])).collect();
    let expected = (0..=3).flat_map(|step| ["sampled", "greedy"].map(|decoding| format!("{step} {decoding:?}")));
    assert_eq!(kinds, expected.collect::<Vec<_>>());
    // Their means are the metrics.
    let metrics = lines(&whole, "metrics.jsonl");
    for evaluation in &evaluations {
        assert_eq!(evaluation["problems"], evaluations[0]["problems"]);
        let same = |row: &&Value| row["stage"] == "evaluation" && row["step"] == evaluation["step"];
        let row = metrics.iter().find(same).unwrap();
        let prefix = if evaluation["decoding"] == "greedy" { "countdown" } else { "countdown_sampled" };
        for figure in ["accuracy", "format", "reward", "response_length"] {
            assert_eq!(evaluation[figure].as_array().unwrap().len(), 24);
            let known = row[format!("val/{prefix}/{figure}")].as_f64().unwrap();
            assert!((mean(&evaluation[figure]) - known).abs() < 1e-6, "{figure}");
        }
    }
    // Another seed has the same problems; another set of problems, another hash.
    let [seed, other] = ["seed", "other"].map(|name| dir.path().join(name));
    train(&seed, &[&keys[..], &["ppo.steps=1", "seed=2"]].concat());
    train(&other, &[&keys[..], &["ppo.steps=1", "task.validation=25"]].concat());
    let hash = |run: &Path| lines(run, "evaluations.jsonl")[0]["problems"].clone();
    assert_eq!(hash(&seed), evaluations[0]["problems"]);
    assert_ne!(hash(&other), evaluations[0]["problems"]);
}

#[test]
fn arms_are_compared_and_other_experiments_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let mut runs: Vec<PathBuf> = Vec::new();
    for (arm, style) in [("mono", "sft.data.style='monologue'"), ("dia", "sft.data.style='dialogue'")] {
        for seed in ["seed=1", "seed=2"] {
            let out = place(&format!("{arm}-{}", &seed[5..]));
            train(&out, &["model.random_weights=false", "ppo.steps=2", "evaluation.every=1", style, seed]);
            runs.push(out);
        }
    }
    let reference = place("reference.json");
    fs::write(&reference, r#"{"metric": "reward", "steps": [0, 2], "curves": {"plain": [0.1, 0.2]}}"#).unwrap();
    let [svg, png, page, table] = ["curves.svg", "curves.png", "page.md", "table.csv"].map(place);
    let folders: Vec<&str> = runs.iter().map(|run| text(run)).collect();
    let files = ["--svg", text(&svg), "--png", text(&png), "--markdown", text(&page), "--csv", text(&table)];
    let more = ["--steps", "0,2", "--decoding", "greedy", "--reference", text(&reference)];
    let shown = stdout(&run(0, &[&["compare"], &folders[..], &files, &more].concat()));
    for part in ["smoke (dialogue)  smoke (monologue)", "2 paired", "16", "ours of accuracy: not the same quantity"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(fs::read_to_string(&svg).unwrap().contains("reference: plain, reward"));
    assert_eq!(&fs::read(&png).unwrap()[1..4], b"PNG");
    assert!(fs::read_to_string(&page).unwrap().contains("![val/countdown/accuracy](curves.svg)"));
    assert!(fs::read_to_string(&table).unwrap().contains("\nmcnemar,2,smoke (dialogue),smoke (monologue),"));

    // The figures are those of the files.
    let found = support::json(&run(0, &[&["compare", "--json", "--metric", "format"], &folders[..]].concat()));
    let format = |run: &Path| mean(&lines(run, "evaluations.jsonl").last().unwrap()["format"]);
    let expected = (format(&runs[2]) + format(&runs[3]) - format(&runs[0]) - format(&runs[1])) / 2.0;
    assert_eq!(found["metric"], "val/countdown_sampled/format");
    let found = support::json(&run(
        0,
        &[&["compare", "--json", "--metric", "format", "--decoding", "greedy"], &folders[..]].concat(),
    ));
    let last = found["differences"].as_array().unwrap().iter().rfind(|d| d["step"] == 2).unwrap().clone();
    assert!((last["difference"].as_f64().unwrap() - expected).abs() < 1e-12, "{last}");

    // One more key that differs is noticed.
    let recipe = runs[3].join("recipe.toml");
    let changed = fs::read_to_string(&recipe).unwrap().replace("gamma = 1.0", "gamma = 0.99");
    fs::write(&recipe, changed).unwrap();
    let refused = String::from_utf8(run(2, &[&["compare"], &folders[..]].concat()).stderr).unwrap();
    assert!(refused.contains("\n  ppo.gamma: 1.0 in mono-1, mono-2, dia-1; 0.99 in dia-2\n"), "{refused}");
    run(0, &[&["compare", "--allow", "ppo.gamma"], &folders[..]].concat());
    for (args, part) in [
        (&["--steps", "7"][..], "not every run has the step 7; they share 0, 1, 2"),
        (&["--metric", "acuracy"], "did you mean accuracy?"),
        (&["--arm", "x"], "expected NAME=DIR"),
        (&["--svg", "/nonexistent/x.svg"], "cannot write /nonexistent/x.svg"),
        (&["--reference", "Cargo.toml"], "expected JSON with `steps` and `curves`"),
    ] {
        let said = String::from_utf8(run(2, &[&["compare", folders[0]], args].concat()).stderr).unwrap();
        assert!(said.starts_with("error: ") && said.contains(part), "{args:?}: {said}");
    }
}
