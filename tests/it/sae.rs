//! `ppo-train sae`: training, counting and showing features of the quickstart's model, and what is refused.

use super::support::{SMOKE, golden, json, run, stdout};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const MODEL: &str = "checkpoints/countdown-base";

fn error(code: i32, arguments: &[&str]) -> String {
    String::from_utf8(run(code, arguments).stderr).unwrap()
}

/// Traces with sums, or with products.
fn texts(file: &Path, sign: &str, count: usize) {
    let row = |i: usize| {
        let (a, b) = (3 + i % 7, 2 + i % 5);
        let text =
            format!("<think>\n{a}{sign}{b}={i} no\n{b}{sign}{a}={i} no\n</think>\n<answer>{a}{sign}{b}</answer>");
        json!({ "prompt": format!("Numbers: {a} {b}\nTarget: {i}\n"), "text": text }).to_string()
    };
    fs::write(file, (0..count).map(|i| row(i) + "\n").collect::<String>()).unwrap();
}

#[test]
fn an_autoencoder_is_trained_and_says_what_traces_activate() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (sums, products, out) = (path("sums.jsonl"), path("products.jsonl"), path("saes/one"));
    texts(Path::new(&sums), "+", 30);
    texts(Path::new(&products), "*", 20);
    let size = ["--features", "64", "--k", "8", "--tokens", "6400", "--batch", "128", "--lr", "5e-3"];
    let base = ["sae", "train", MODEL, &sums, &products, "--prompt-column", "prompt", "--layer", "1", "--out", &out];
    let fit = json(&run(0, &[&base[..], &size, &["--json"]].concat()));
    assert_eq!((&fit["texts"], &fit["trained_tokens"]), (&json!(50), &json!(6400)));
    let explained = fit["held_out"]["explained_variance"].as_f64().unwrap();
    assert!(explained > 0.5 && explained < 1.0, "{fit}");
    assert!(fit["held_out"]["l0"].as_f64().unwrap() <= 8.0, "{fit}");
    assert!(error(2, &[&base[..], &size].concat()).contains("is there already"));

    // As figures, and as rows for `analyze`.
    let (rows, figures, lists) = (path("rows.jsonl"), path("figures.jsonl"), path("lists.json"));
    fs::write(&lists, r#"{"low": [0, 1, 2, 3], "all of them": [0, 63, 5, 7, 9, 11, 30, 31, 32, 33, 34, 35, 36]}"#)
        .unwrap();
    let both = ["sae", "features", &out, MODEL, &sums, &products, "--prompt-column", "prompt"];
    let table = stdout(&run(0, &[&both[..], &["--lists", &lists]].concat()));
    assert!(table.contains("all of them") && table.contains("coverage"), "{table}");
    let found = json(&run(0, &[&both[..], &["--out", &rows, "--figures", &figures, "--json"]].concat()));
    assert_eq!(
        (&found["layer"], &found["features"], &found["files"][1]["traces"]),
        (&json!(1), &json!(64), &json!(20))
    );
    let lines = |file: &str| -> Vec<Value> {
        fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let own = lines(&rows);
    let coverage = |row: &Value| row["coverage"]["all"].as_f64().unwrap();
    let mean = own[..30].iter().map(coverage).sum::<f64>() / 30.0;
    let shown = &found["files"][0]["lists"][0]["figures"][0];
    assert_eq!(shown["name"], "coverage");
    assert!((shown["value"].as_f64().unwrap() - mean).abs() < 1e-9 && mean >= 8.0, "{shown} {mean}");
    let tokens: f64 = own.iter().map(|row| row["tokens"].as_f64().unwrap()).sum();
    let per_token: f64 =
        own.iter().map(|row| row["active_per_token"]["all"].as_f64().unwrap() * row["tokens"].as_f64().unwrap()).sum();
    let frequencies: f64 = lines(&figures).iter().map(|row| row["frequency"].as_f64().unwrap()).sum();
    // The same pairs of tokens and features, counted by trace and by feature.
    assert!((per_token / tokens - frequencies).abs() < 1e-6, "{per_token} {tokens} {frequencies}");
    let study = ["analyze", &rows, "--model", "coverage.all ~ file + log(tokens)", "--json"];
    assert_eq!(json(&run(0, &study))["models"][0]["rows"], 50);

    // The largest activation is that of the first context.
    let most =
        lines(&figures).into_iter().max_by(|a, b| a["max"].as_f64().unwrap().total_cmp(&b["max"].as_f64().unwrap()));
    let most = most.unwrap();
    let feature = most["feature"].to_string();
    let show = ["sae", "contexts", &out, MODEL, &sums, &products, "--prompt-column", "prompt", "--feature", &feature];
    let contexts = json(&run(0, &[&show[..], &["--most", "3", "--around", "2", "--json"]].concat()));
    let contexts = contexts.as_array().unwrap();
    assert!(!contexts.is_empty() && contexts.len() <= 3);
    let close = (contexts[0]["activation"].as_f64().unwrap() - most["max"].as_f64().unwrap()).abs();
    assert!(close < 1e-5 && contexts[0]["tokens"].as_array().unwrap().len() <= 5);

    // Steered along, beside two that are active as often and as strongly.
    let along = ["steer", MODEL, "--recipe", SMOKE, "--sae", &out, "--feature", &feature, "--problems", "4", "--json"];
    let more = ["--figures", &figures, "--controls", "2", "--unit", "activation", "--strengths", "1"];
    let report = json(&run(0, &[&along[..], &more].concat()));
    let most = most["max"].as_f64().unwrap();
    let (named, factor) = (report["direction"].as_str().unwrap(), report["scale"]["factor"].as_f64().unwrap());
    assert!(named.starts_with(&format!("feature {feature} of ")) && (factor - most).abs() < 1e-5 * most, "{report}");
    assert_eq!(
        (&report["layer"], &report["controls"]["of"]),
        (&json!(1), &json!("other features that are active about as often and as strongly"))
    );
    let too_many = error(2, &[&along[..], &["--figures", &figures, "--controls", "64"]].concat());
    assert!(too_many.contains("other features can be matched"), "{too_many}");
    let page = path("page.html");
    assert!(stdout(&run(0, &[&show[..], &["--html", &page]].concat())).contains("page.html: "));
    assert!(fs::read_to_string(&page).unwrap().contains(&format!("Feature {feature}")));
}

#[test]
fn what_does_not_fit_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.jsonl").display().to_string();
    texts(Path::new(&file), "+", 3);
    let out = dir.path().join("new").display().to_string();
    let train = |more: &[&str]| error(2, &[&["sae", "train", MODEL, &file, "--out", &out], more].concat());
    assert!(train(&["--layer", "99"]).contains("layer 99: the model has"));
    assert!(train(&["--layer", "0", "--k", "9", "--features", "8"]).contains("--k 9 is more than the 8 of --features"));
    assert!(train(&["--layer", "0", "--column", "txet"]).contains("line 1: expected a text in `txet`"));
    assert!(train(&["--layer", "0", "--lr", "2"]).contains("expected a number above 0, at most 1"));
    assert!(!Path::new(&out).exists());
    let tiny = golden("sae/topk").display().to_string();
    let other = error(2, &["sae", "features", &tiny, MODEL, &file]);
    assert!(
        other.contains("reads a residual stream of 6 numbers, but that of checkpoints/countdown-base has"),
        "{other}"
    );
    let unnamed = golden("sae/scope").display().to_string();
    assert!(error(2, &["sae", "features", &unnamed, MODEL, &file]).contains("does not say which layer it reads"));
    assert!(error(2, &["sae", "contexts", "nowhere", MODEL, &file]).contains("nowhere is not there"));
    let steer = |more: &[&str]| error(2, &[&["steer", MODEL, "--recipe", SMOKE], more].concat());
    assert!(steer(&["--sae", &tiny, "--feature", "1"]).contains("reads a residual stream of 6 numbers"));
    assert!(steer(&["--sae", &tiny]).contains("--feature <N>"));
}
