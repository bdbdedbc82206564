//! Regressions of a generated table against statsmodels, linearmodels and semopy, and what is said of bad input.

use super::*;
use crate::stats::fit::{Count, Estimate, benjamini_hochberg, holm};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

const TABLE: &str = include_str!("../../tests/golden/regression.jsonl");
const GOLDEN: &str = include_str!("../../tests/golden/regression.json");

const EVALUATIONS: &str = include_str!("../../tests/golden/evaluations.jsonl");

/// The table of a golden case.
fn table_of(case: &Value) -> (TempDir, Request) {
    request("table.jsonl", if case["table"] == "evaluations.jsonl" { EVALUATIONS } else { TABLE })
}

/// A request over a file of this name and content; the folder goes with what is returned.
fn request(name: &str, content: &str) -> (TempDir, Request) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let request = Request {
        sources: vec![Source { name: "all".into(), path }],
        filters: vec![],
        models: vec![],
        families: vec![],
        mediations: vec![],
        clusters: vec![],
        robust: true,
        count: Count::All,
        resamples: 100,
        correction: None,
        tests: vec![],
    };
    (dir, request)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
}

fn study(request: &Request) -> Study {
    Study::of(request, &[]).unwrap_or_else(|error| panic!("{error:#}"))
}

fn refused(request: &Request) -> String {
    format!("{:#}", Study::of(request, &[]).unwrap_err())
}

/// Estimate, error, statistic, p, and the ends of the interval.
fn numbers(estimate: &Estimate) -> Vec<f64> {
    let [low, high] = estimate.interval.unwrap();
    vec![estimate.estimate, estimate.error.unwrap(), estimate.statistic.unwrap(), estimate.p.unwrap(), low, high]
}

fn assert_close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= 1e-7 * expected.abs().max(1.0), "{what}: {got}, expected {expected}");
}

#[test]
fn models_are_those_of_statsmodels_and_linearmodels() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let mut compared = 0;
    for case in golden["models"].as_array().unwrap() {
        let (_dir, mut request) = table_of(case);
        request.models = vec![case["model"].as_str().unwrap().into()];
        request.families = vec![if case["family"] == "poisson" { Family::Poisson } else { Family::Linear }];
        request.clusters = texts(&case["clusters"]);
        request.robust = case["errors"] == "hc1";
        request.count = if case["count"] == "all" { Count::All } else { Count::Nested };
        let about = format!("{}, {} {:?}", case["model"], case["errors"], request.clusters);
        let study = study(&request);
        let model = &study.models[0];
        assert_eq!(model.rows as u64, case["rows"].as_u64().unwrap(), "{about}");
        let expected = case["terms"].as_object().unwrap();
        let names: Vec<&str> = model.terms.iter().map(|line| line.term.as_str()).collect();
        assert_eq!(names.len(), expected.len(), "{about}: {names:?}");
        for line in &model.terms {
            let expected = expected.get(&line.term).unwrap_or_else(|| panic!("{about}: {} is not expected", line.term));
            for (at, (got, expected)) in numbers(&line.estimate).iter().zip(expected.as_array().unwrap()).enumerate() {
                // linearmodels counts degrees of freedom in another way, so that only errors are there.
                assert_close(*got, expected.as_f64().unwrap(), &format!("{about}, {} {at}", line.term));
                compared += 1;
            }
        }
        let quality = serde_json::to_value(&model.quality).unwrap();
        for (name, expected) in case["quality"].as_object().unwrap() {
            assert_close(quality[name].as_f64().unwrap(), expected.as_f64().unwrap(), &format!("{about}, {name}"));
        }
    }
    assert!(compared > 400, "{compared}");
}

#[test]
fn mediations_are_those_of_statsmodels_in_both_orders() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let mut compared = 0;
    for case in golden["mediations"].as_array().unwrap() {
        let (_dir, mut request) = table_of(case);
        let text = |key: &str| case[key].as_str().unwrap();
        let behind = |sign: &str, what: &str| if what.is_empty() { String::new() } else { format!(" {sign} {what}") };
        let (mediators, effects) = (texts(&case["mediators"]).join(" + "), texts(&case["effects"]).join(" + "));
        let more = behind("~", text("controls")) + &behind("|", &effects);
        request.mediations = vec![format!("{} -> {mediators} -> {}{more}", text("cause"), text("outcome"))];
        request.clusters = texts(&case["clusters"]);
        request.robust = case["errors"] == "hc1";
        let study = study(&request);
        let mediation = &study.mediations[0];
        assert_eq!(mediation.rows as u64, case["rows"].as_u64().unwrap());
        for (ordered, expected) in mediation.orders.iter().zip(case["orders"].as_array().unwrap()) {
            assert_eq!(ordered.effects.len(), expected.as_object().unwrap().len(), "{}", ordered.order);
            for effect in &ordered.effects {
                let name = match (effect.effect, &effect.through) {
                    ("a", _) => format!("a {} {}", effect.from, effect.to),
                    (kind, Some(through)) => format!("{kind} {} {through}", effect.from),
                    (kind, None) => format!("{kind} {}", effect.from),
                };
                let about = format!("{}, {name}", mediation.path);
                let expected = expected.get(&name).unwrap_or_else(|| panic!("{about} is not expected"));
                for (got, expected) in numbers(&effect.estimate).iter().zip(expected.as_array().unwrap()) {
                    assert_close(*got, expected.as_f64().unwrap(), &about);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 150, "{compared}");
}

#[test]
fn corrections_are_those_of_statsmodels() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    for case in golden["corrections"].as_array().unwrap() {
        let p = numbers(&case["p"]);
        for (got, expected) in [(holm(&p), &case["holm"]), (benjamini_hochberg(&p), &case["bh"])] {
            got.iter().zip(numbers(expected)).for_each(|(got, expected)| assert_close(*got, expected, "p"));
        }
    }
}

/// Two models: the correction is over the terms of both.
#[test]
fn p_values_are_corrected_over_all_models() {
    let (_dir, mut request) = request("table.jsonl", TABLE);
    request.models = vec!["correct ~ arm + log(tokens)".into(), "behaviours.questions ~ arm".into()];
    request.families = vec![Family::Linear, Family::Poisson];
    request.correction = Some(Correction::Holm);
    let all = study(&request);
    assert_eq!(all.correction.as_ref().unwrap().tests, 5);
    request.tests = vec!["arm".into()];
    let arms = study(&request);
    let lines: Vec<_> = arms.models.iter().flat_map(|model| &model.terms).filter(|l| l.corrected.is_some()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.term.as_str()).collect();
    assert_eq!(names, ["arm[conversation]", "arm[monologue]", "arm[conversation]", "arm[monologue]"]);
    let p: Vec<f64> = lines.iter().map(|line| line.estimate.p.unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line.corrected.unwrap()).collect::<Vec<_>>(), holm(&p));
    assert!(markdown(&arms).contains("| p (Holm) |") && markdown(&arms).contains("Holm's p values over 4 tests"));
    request.tests = vec!["arn".into()];
    assert!(refused(&request).contains("--test arn: no model has this term; did you mean `arm`?"));
}

#[test]
fn collinear_columns_are_left_out_and_named() {
    let rows = (0..12).map(|i| json!({"y": i * i % 7, "a": i, "b": 2 * i + 1, "g": i / 4, "c": i / 4 % 2}).to_string());
    let (_dir, mut request) = request("table.jsonl", &rows.collect::<Vec<_>>().join("\n"));
    request.models = vec!["y ~ a + b".into(), "y ~ c + a | g".into()];
    let study = study(&request);
    assert_eq!(
        (study.models[0].dropped.clone(), study.models[1].dropped.clone()),
        (vec!["b".into()], vec!["c".into()])
    );
    assert!(markdown(&study).contains("- left out, as combinations of other columns: b\n"));
    request.mediations = vec!["a -> b -> y".into()];
    assert!(refused(&request).contains("b is a combination of the other variables"));
    (request.mediations, request.models) = (vec![], vec!["b ~ a".into()]);
    let model = self::study(&request).models.remove(0);
    assert!(
        model.terms.iter().all(|line| line.estimate.p.is_none()) && model.notes.iter().any(|n| n.contains("exactly"))
    );
}

#[test]
fn missing_values_are_counted() {
    let (_dir, mut request) = request("table.jsonl", TABLE);
    request.models = vec!["share ~ log(tokens)".into()];
    let model = study(&request).models.remove(0);
    let lacks = |name: &str| TABLE.matches(&format!("\"{name}\": null")).count();
    let missing: Vec<_> = model.missing.iter().map(|m| (m.column.as_str(), m.rows)).collect();
    assert_eq!(missing, [("share", lacks("share")), ("tokens", lacks("tokens"))]);
    assert!(model.rows < 180 && model.of == 180);
}

#[test]
fn what_cannot_be_fitted_says_why() {
    for (model, message) in [
        ("corect ~ tokens", "there is no column `corect`; did you mean `correct`?"),
        ("correct ~ quetions", "there is no column `quetions`; did you mean `behaviours.questions`?"),
        ("correct ~ behaviours", "`behaviours` is an object: name one of its fields, such as `behaviours.questions`"),
        ("correct ~ log(correct)", "log() of 0 in "),
        ("correct ~ C(arm, base=\"monolog\")", "no row has the level `monolog` of `arm`; did you mean `monologue`?"),
        ("correct ~ log(arm)", "`arm` is not a number everywhere ("),
        ("arm ~ tokens", "`arm` is not a number everywhere ("),
        ("correct ~ problem:seed:arm:task + C(tokens) | problem", "parameters: too few"),
        ("correct ~ len(task)", "len() takes a list"),
        ("correct ~ tokens | index", "it is the place in lists, and no column that is named is one"),
        ("correct ~ arm + correct", "correct is the outcome and a term"),
    ] {
        let (_dir, mut request) = request("table.jsonl", TABLE);
        request.models = vec![model.into()];
        let error = refused(&request);
        assert!(error.contains(message), "{model}: {error}");
    }
    let (_dir, mut request) = request("table.jsonl", TABLE);
    request.models = vec!["correct ~ tokens".into()];
    request.clusters = vec!["tsk".into()];
    assert!(refused(&request).contains("--cluster tsk"));
    request.clusters = vec!["table".into()];
    assert!(refused(&request).contains("all rows are in one cluster of table"));
    request.clusters = vec!["task".into(), "seed".into(), "arm".into()];
    assert!(refused(&request).contains("in at most two ways"));
    (request.clusters, request.families) = (vec![], vec![Family::Poisson; 2]);
    assert!(refused(&request).contains("2 times --family, but 1 models"));
}

#[test]
fn counts_without_a_maximum_are_refused() {
    let row = |i: usize| json!({"y": i % 2 * (i % 5), "even": i.is_multiple_of(2), "x": i % 3}).to_string();
    let (_dir, mut request) = request("table.jsonl", &(0..40).map(row).collect::<Vec<_>>().join("\n"));
    request.families = vec![Family::Poisson];
    request.models = vec!["y ~ even + x".into()];
    let error = refused(&request);
    assert!(error.contains("the likelihood has no maximum"), "{error}");
    // As a fixed effect the level of zeros is left out.
    request.models = vec!["y ~ x | even".into()];
    let model = study(&request).models.remove(0);
    assert_eq!(model.rows, 20);
    assert!(model.notes.iter().any(|note| note.contains("20 rows are in levels in which all counts are 0")));
    request.models = vec!["y ~ offset(x)".into()];
    request.filters = vec![Filter { column: "even".into(), values: vec!["true".into()] }];
    assert!(refused(&request).contains("the outcome is 0 in all rows"));
}

/// Lists are laid out, files have names, and text files have numbers.
#[test]
fn tables_of_all_kinds_are_read() {
    let lines = "{\"step\": 0, \"mode\": \"greedy\", \"accuracy\": [1, 0, null], \"length\": [5, 6, 7]}\n\
                 {\"step\": 4, \"mode\": \"greedy\", \"accuracy\": [1, 1, 0], \"length\": [7, 9, 4]}\n\
                 {\"step\": 4, \"mode\": \"sampled\", \"accuracy\": [0, 1, 1], \"length\": [3, 4, 8]}\n";
    let (dir, mut request) = request("evaluations.jsonl", lines);
    request.models = vec!["accuracy ~ C(step) | index".into(), "accuracy ~ length".into()];
    request.filters = vec![Filter { column: "mode".into(), values: vec!["greedy".into()] }];
    let laid_out = study(&request);
    assert_eq!((laid_out.rows, laid_out.filtered, laid_out.models[0].rows), (6, 3, 5));
    // Within problems: (1, 1), (0, 1), and a problem that was seen once.
    assert_close(laid_out.models[0].terms[0].estimate.estimate, 0.5, "step");
    assert_eq!(laid_out.models[0].effects[0].single, 1);

    let path = dir.path().join("other.csv");
    std::fs::write(&path, "step,mode,accuracy,length,index\n0,greedy,0,5,0\n4,greedy,true,NA,1\n4,greedy,1,3,2\n")
        .unwrap();
    request.sources.push(Source { name: "other".into(), path: path.clone() });
    request.models = vec!["accuracy ~ table + length".into()];
    let both = study(&request);
    assert_eq!((both.rows, both.models[0].rows), (9, 7));
    assert_eq!(both.models[0].terms[1].term, "table[other]");
    request.filters = vec![Filter { column: "mod".into(), values: vec!["greedy".into()] }];
    assert!(refused(&request).contains("--where mod: there is no column `mod`; did you mean `mode`?"));

    for (name, content, model, message) in [
        ("t.csv", "a,b\n1,2\n3,x\n", "a ~ b", "`b` has numbers and texts ("),
        ("t.csv", "a,b\n1,2\n", "a ~ c", "there is no column `c`"),
        ("t.csv", "", "a ~ b", "t.csv is empty"),
        ("t.txt", "a\n", "a ~ b", "tables are read from .jsonl, .json, .csv, .tsv and .parquet files"),
        ("t.jsonl", "{\"a\": [1, 2], \"b\": [1]}", "a ~ b", "the list `b` has 1 elements, but `a` has 2"),
        ("t.jsonl", "{\"a\": 1, \"b\": [{\"c\": 1}]}", "a ~ b", "`b` is a list of objects: len(b) counts them"),
        ("t.jsonl", "{\"a\": null, \"b\": 1}", "a ~ b", "= help: 1 lack `a`"),
        ("t.tsv", "a\tb\n1\tx\n2\ty\n", "a ~ b", "2 rows for 2 parameters: too few"),
    ] {
        let (_dir, mut request) = self::request(name, content);
        request.models = vec![model.into()];
        let error = refused(&request);
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn names_lead_into_objects_and_lists() {
    let row = |i: usize| {
        json!({"y": i % 3, "j": {"k": [i, 2 * i * i], "p": vec![json!({"q": i * i * i}); i % 4]}, "j.k": i % 2})
            .to_string()
    };
    let (_dir, mut request) = request("table.jsonl", &(0..20).map(row).collect::<Vec<_>>().join("\n"));
    request.models =
        ["j.k", "j.k.1", "j.k.second", "sum(j.k)", "len(j.p)", "j.p.0.q"].map(|c| format!("{c} ~ 1")).into();
    // The column `j.k` hides the list, but its elements are found.
    request.models.retain(|model| !model.starts_with("sum"));
    let study = Study::of(&request, &[("j.k", &["first", "second"])]).unwrap();
    let means: Vec<f64> = study.models.iter().map(|model| model.terms[0].estimate.estimate).collect();
    let squares = (0..20).map(|i| 2.0 * f64::from(i * i)).sum::<f64>() / 20.0;
    let cubes = (0..20).filter(|i| i % 4 > 0).map(|i| f64::from(i * i * i)).sum::<f64>() / 15.0;
    for (got, expected) in means.iter().zip([0.5, squares, squares, 1.5, cubes]) {
        assert_close(*got, expected, "mean");
    }
    request.models = vec!["y ~ sum(j.list)".into()];
    assert!(refused(&request).contains("there is no column `j.list`"));
}

/// Shuffled labels: p values are uniform, with clusters that share an error too.
#[test]
fn p_values_of_shuffled_labels_are_flat() {
    use crate::rng::{Purpose, stream};
    use rand::RngExt;
    const TABLES: usize = 300;
    let mut below = [0; 4];
    for table in 0..TABLES {
        let mut rng = stream(7, Purpose::Shuffle, table as u64, 0);
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut rows = String::new();
        for cluster in 0..40 {
            let (shared, label) = (normal(), normal());
            for problem in 0..4 {
                let y = shared + normal() + f64::from(problem);
                rows += &format!(
                    "{{\"y\": {y}, \"c\": {cluster}, \"x\": {label}, \"z\": {}, \"p\": {problem}}}\n",
                    normal()
                );
            }
        }
        let (_dir, mut request) = request("table.jsonl", &rows);
        request.models = vec!["y ~ x | p".into()];
        request.clusters = vec!["c".into()];
        let p = |request: &Request| study(request).models[0].terms[0].estimate.p.unwrap();
        let clustered = p(&request);
        request.clusters = vec![];
        let plain = p(&request);
        request.models = vec!["y ~ z | c + p".into()];
        let within = p(&request);
        let counted = [clustered < 0.05, clustered < 0.5, within < 0.05, plain < 0.05];
        below.iter_mut().zip(counted).for_each(|(below, counted)| *below += usize::from(counted));
    }
    // Three standard errors of a binomial around 5 % and 50 %; without clusters the test is wrong, and it shows.
    let [five, half, within, plain] = below;
    assert!((4..=27).contains(&five) && (124..=176).contains(&half) && (4..=27).contains(&within), "{below:?}");
    assert!(plain > 40, "{below:?}");
}

#[test]
fn a_bootstrap_of_clusters_agrees_with_the_delta_method() {
    let (_dir, mut request) = request("table.jsonl", TABLE);
    request.mediations =
        vec!["behaviours.questions -> behaviours.verification -> correct ~ log(tokens) | problem".into()];
    request.resamples = 1000;
    for clusters in [vec!["problem".to_string()], vec![], vec!["seed".into()]] {
        request.clusters = clusters.clone();
        let study = study(&request);
        let mediation = &study.mediations[0];
        assert_eq!(mediation.bootstrap.solved, 1000);
        for effect in mediation.orders.iter().flat_map(|ordered| &ordered.effects) {
            let [low, high] = effect.bootstrap.unwrap();
            let [left, right] = effect.estimate.interval.unwrap();
            let ratio = (high - low) / (right - left);
            // Five seeds are few, and neither way is exact.
            let bounds = if clusters == ["seed"] { 0.2..4.0 } else { 0.7..1.4 };
            assert!(
                bounds.contains(&ratio) && low < effect.estimate.estimate && effect.estimate.estimate < high,
                "{ratio}"
            );
        }
    }
    let page = markdown(&study(&request));
    assert!(
        page.contains("### behaviours.verification -> behaviours.questions -> correct\n")
            && page.contains("Both orders")
    );
}
