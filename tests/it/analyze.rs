//! `ppo-train analyze` over what a run leaves behind, and over files of every kind.

use super::support::{SMOKE, json, run, stdout};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn error(code: i32, arguments: &[&str]) -> String {
    String::from_utf8(run(code, arguments).stderr).unwrap()
}

/// The coefficients of a model by their names.
fn estimate(model: &Value, term: &str) -> f64 {
    let terms = model["terms"].as_array().unwrap();
    let line = terms.iter().find(|line| line["term"] == term).unwrap_or_else(|| panic!("no {term} in {model}"));
    line["estimate"].as_f64().unwrap()
}

#[test]
fn what_a_run_leaves_behind_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let recipe = dir.path().join("recipe.toml");
    let base = fs::canonicalize(SMOKE).unwrap();
    let hooks = "[hooks.persona]\ntraces = 16\nevery = 2\n[ppo]\nsteps = 2\n[evaluation]\nproblems = 16\n";
    fs::write(&recipe, format!("extends = {:?}\n{hooks}", base.display().to_string())).unwrap();
    run(0, &[recipe.to_str().unwrap(), "--out", out.to_str().unwrap()]);

    // One row for each problem of each evaluation.
    let evaluations = out.join("evaluations.jsonl");
    let lines: Vec<Value> =
        fs::read_to_string(&evaluations).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let greedy = lines.iter().filter(|line| line["decoding"] == "greedy");
    let lengths: Vec<f64> = greedy
        .flat_map(|line| line["response_length"].as_array().unwrap())
        .map(|length| length.as_f64().unwrap())
        .collect();
    let path = evaluations.to_str().unwrap();
    let model = ["analyze", path, "--where", "decoding=greedy", "--json", "--model"];
    let study = json(&run(0, &[&model[..], &["response_length ~ 1"]].concat()));
    assert_eq!((study["rows"].as_u64(), study["filtered"].as_u64()), (Some(lengths.len() as u64), Some(32)));
    let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
    assert!((estimate(&study["models"][0], "constant") - mean).abs() < 1e-9);
    let page = stdout(&run(0, &["analyze", path, "--model", "response_length ~ step + decoding | index"]));
    assert!(page.contains("- fixed effect index: 16 levels\n") && page.contains("| decoding[sampled] |"), "{page}");

    // Judged traces of two steps, with the judge's lists by name.
    let traces = [0, 2].map(|step| out.join(format!("hooks/step_{step:06}/persona/traces.jsonl")));
    let [before, after] = traces.each_ref().map(|path| path.to_str().unwrap());
    let named = [format!("before={before}"), format!("after={after}")];
    let model = "tokens ~ C(table, base=\"before\") + len(judgement.perspectives) + judgement.cognitive.verification";
    let tables = ["analyze", &named[0], &named[1], "--cluster", "index", "--json", "--model", model];
    let study = json(&run(0, &tables));
    let found = &study["models"][0];
    assert_eq!((found["rows"].as_u64(), &found["errors"]["kind"]), (Some(32), &"CR1".into()));
    assert_eq!(found["errors"]["clusters"][0]["clusters"], 16);
    let said = error(2, &["analyze", before, "--model", "tokens ~ judgement.cognitive"]);
    assert!(said.contains("name an element, such as `judgement.cognitive.verification`"), "{said}");
}

#[test]
fn columns_of_parquet_and_csv_are_the_same_columns() {
    let dir = tempfile::tempdir().unwrap();
    let (parquet, csv) = (dir.path().join("t.parquet"), dir.path().join("t.csv"));
    let rows: Vec<(f64, &str)> = (0..12).map(|i| (f64::from(i * i % 5), if i % 3 == 0 { "a" } else { "b" })).collect();
    write_parquet(&parquet, &rows);
    let text: String = rows.iter().map(|(y, kind)| format!("{y},{kind}\n")).collect();
    fs::write(&csv, format!("y,kind\n{text}")).unwrap();
    let models = [&parquet, &csv].map(|path| {
        let arguments = ["analyze", path.to_str().unwrap(), "--model", "y ~ kind", "--json"];
        json(&run(0, &arguments))["models"][0].clone()
    });
    assert_eq!(models[0], models[1]);
    let mean = |wanted: &str| {
        let own: Vec<f64> = rows.iter().filter(|(_, kind)| *kind == wanted).map(|(y, _)| *y).collect();
        own.iter().sum::<f64>() / own.len() as f64
    };
    assert!((estimate(&models[0], "kind[b]") - (mean("b") - mean("a"))).abs() < 1e-12);
    let said = error(2, &["analyze", parquet.to_str().unwrap(), "--model", "y ~ log(knd)"]);
    assert!(said.contains("--model y ~ log(knd)\n") && said.contains("did you mean `kind`?"), "{said}");
}

fn write_parquet(path: &Path, rows: &[(f64, &str)]) {
    let schema = "message m { required double y; required binary kind (UTF8); required double unused; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let (numbers, kinds): (Vec<f64>, Vec<ByteArray>) =
        rows.iter().map(|(y, kind)| (*y, ByteArray::from(*kind))).unzip();
    for at in 0..3 {
        let mut column = group.next_column().unwrap().unwrap();
        match at {
            1 => column.typed::<ByteArrayType>().write_batch(&kinds, None, None),
            _ => column.typed::<DoubleType>().write_batch(&numbers, None, None),
        }
        .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn what_cannot_be_analyzed_is_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.jsonl");
    fs::write(&path, (0..9).map(|i| format!("{{\"y\": {}, \"x\": {i}}}\n", i * i % 4)).collect::<String>()).unwrap();
    let path = path.to_str().unwrap();
    for (arguments, message) in [
        (vec!["--model", "y ~ lg(x)"], "there is no function `lg`; did you mean `log`?"),
        (vec!["--model", "y ~ x", "--cluster", "x", "--errors", "hc1"], "cannot be used with"),
        (vec!["--model", "y ~ x", "--test", "x"], "--correct"),
        (vec!["--model", "y ~ x", "--where", "x"], "expected COLUMN=VALUE"),
        (vec!["--model", "y ~ x", "--where", "x=3"], "1 row for 1 parameter: too few"),
        (vec!["--mediate", "x -> y"], "`->` and the outcome was expected"),
        (vec![], "--model <FORMULA>"),
    ] {
        let said = error(2, &[&["analyze", path], &arguments[..]].concat());
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    let said = error(2, &["analyze", "=t.jsonl", "--model", "y ~ x"]);
    assert!(said.contains("expected FILE or NAME=FILE"), "{said}");
}
