//! Arms and seeds from training to tables: what evaluations leave behind, and what `compare` makes of it.

use super::support::{self, SMOKE, run, stdout};
use serde_json::{Value, json};
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

/// Writes rows of a warm start: 16 problems from `first` on, all solved in these words.
fn write_rows(file: &Path, first: usize, words: &str) {
    let row = |i: usize| {
        let response = format!("<think>{words}</think><answer>{i}+2</answer>");
        format!("{}\n", json!({ "prompt": format!("Numbers: {i} 2"), "response": response }))
    };
    fs::write(file, (first..first + 16).map(row).collect::<String>()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a run was made of is compared by its hashes, whatever its recipe says.
#[test]
fn warm_starts_of_other_rows_are_refused() {
    const SMALL: [&str; 7] = [
        "model.random_weights=false",
        "ppo.steps=1",
        "evaluation.problems=4",
        "sft.train=16",
        "sft.batch=8",
        "sft.validation=0",
        "sft.min_answered=0",
    ];
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let trained = |name: &str, keys: &[&str]| {
        train(&place(name), &[&SMALL[..], keys].concat());
        place(name)
    };
    let on = |name: &str, file: &Path, seed: &str| {
        let data = format!("sft.data={{ kind = \"file\", path = {file:?} }}");
        trained(name, &[data.as_str(), seed])
    };
    let hash = |run: &Path, of: &str| -> String {
        let record = fs::read_to_string(run.join("start/warm_start.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        record[of].as_str().unwrap().into()
    };
    let compared = |code: i32, runs: &[&PathBuf], more: &[&str]| {
        let folders: Vec<&str> = runs.iter().map(|run| text(run)).collect();
        run(code, &[&["compare"], &folders[..], more].concat())
    };
    let refused = |of: &str, key: &str, [one, other]: [&PathBuf; 2]| {
        let said = String::from_utf8(compared(2, &[one, other], &[]).stderr).unwrap();
        let [a, b] = [one, other].map(|run| format!("{} in {}", hash(run, of), text(run).rsplit('/').next().unwrap()));
        assert!(said.contains(&format!("arm and seed:\n  {key}: {a}; {b}\na hash is")), "{said}");
    };

    let [mono, dia, shared] = ["mono.jsonl", "dia.jsonl", "shared"].map(place);
    write_rows(&mono, 1, "so");
    write_rows(&dia, 1, "we");
    let [one, two] = [on("mono-1", &mono, "seed=1"), on("mono-2", &mono, "seed=2")];
    let other = on("dia-1", &dia, "seed=1");
    let found = support::json(&compared(0, &[&one, &two, &other], &["--json"]));
    assert_eq!(found["arms"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!(found["warm_starts"]["same_problems"], true);
    assert_eq!(found["warm_starts"]["problems"][0]["sha256"], hash(&one, "problems_sha256").as_str());

    // The file of an arm is replaced between its seeds.
    write_rows(&mono, 1, "oh");
    let late = on("mono-3", &mono, "seed=3");
    refused("traces_sha256", "sft.data.traces_sha256", [&one, &late]);
    let found = support::json(&compared(0, &[&one, &two, &late], &["--json", "--allow", "sft.data"]));
    assert_eq!(found["arms"].as_array().unwrap().len(), 2, "{found}");
    // The arms solve other problems.
    write_rows(&dia, 2, "we");
    let odd = on("dia-2", &dia, "seed=2");
    refused("problems_sha256", "sft.data.problems_sha256", [&two, &odd]);
    let page = place("page.md");
    compared(0, &[&two, &odd], &["--any", "--markdown", text(&page)]);
    let said = fs::read_to_string(&page).unwrap();
    assert!(said.contains("- the warm starts do not hold the same problems with the same answers; "), "{said}");

    // A finished warm start is replaced between seeds that name it.
    let from = format!("sft={{ from = {shared:?} }}");
    copy(&one.join("start"), &shared);
    let first = trained("from-1", &["sft=unset", &from, "seed=1"]);
    fs::remove_dir_all(&shared).unwrap();
    copy(&other.join("start"), &shared);
    let second = trained("from-2", &["sft=unset", &from, "seed=2"]);
    refused("weights_sha256", "sft.from.weights_sha256", [&first, &second]);
}

/// What recipes differ in is shown whole, and takes no more than their files.
#[test]
fn recipes_are_held_against_each_other_without_what_they_name() {
    let against = |recipe: &str, other: &str, more: &[&str]| {
        stdout(&run(0, &[&["plan", recipe, "--against", other], more].concat()))
    };
    let arms = ["recipes/conversation_sft.toml", "recipes/monologue_sft.toml"];
    let nowhere = ["--set", "model.path=/nonexistent"];
    for more in [&[][..], &nowhere] {
        let shown = against(arms[0], arms[1], more);
        assert!(shown.contains("sft.data.style") && shown.contains("\"monologue\""), "{shown}");
        assert_eq!(shown.contains("\"/nonexistent\""), !more.is_empty(), "{shown}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.toml");
    let path = |middle: &str| format!("/tmp/{}{middle}{}", "rows_".repeat(40), "_of_a_warm_start".repeat(20));
    let [one, other] = ["a", "b"].map(path);
    let base = fs::canonicalize(SMOKE).unwrap();
    fs::write(&file, format!("extends = {base:?}\n[sft.data]\nkind = \"file\"\npath = {other:?}\n")).unwrap();
    let shown = against(SMOKE, text(&file), &["--set", &format!("sft.data={{ kind = \"file\", path = {one:?} }}")]);
    assert!([one, other].iter().all(|path| shown.contains(&format!("{path:?}"))), "{shown}");
}
