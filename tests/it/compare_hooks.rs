//! Arms compared by what hooks found, against plain loops over the single traces and answers.

use crate::support::{SMOKE, json, run, stdout};
use ppo_train::checkpoint::{RunFolder, write_folder};
use ppo_train::hooks::Outcome;
use ppo_train::hooks::persona::Judged;
use ppo_train::hooks::schedule::Job;
use ppo_train::judge::{Judgement, Perspective, figures};
use ppo_train::stats::{Bootstrap, Figure, quantile};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const STEPS: [u64; 2] = [0, 40];
/// Problems of each evaluation.
const PROBLEMS: usize = 14;
const RESAMPLES: usize = 300;

/// Runs of two arms with two seeds each, `mono-1` and so on; filled by the tests.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let recipe = fs::read_to_string(SMOKE).unwrap();
        for (arm, style) in ["monologue", "dialogue"].into_iter().enumerate() {
            for seed in 0..2 {
                let dir = bench.folder(arm, seed).path().to_path_buf();
                fs::create_dir(&dir).unwrap();
                let own = recipe.replace("seed = 1", &format!("seed = {}", seed + 1));
                let own = own.replace("kind = \"solver\"", &format!("kind = \"solver\"\nstyle = \"{style}\""));
                fs::write(dir.join("recipe.toml"), own).unwrap();
                let line = json!({ "stage": "ppo", "step": 1, "time": 0.0, "reward/accuracy": 0.5 });
                fs::write(dir.join("metrics.jsonl"), format!("{line}\n")).unwrap();
            }
        }
        bench
    }

    fn folder(&self, arm: usize, seed: usize) -> RunFolder {
        RunFolder::new(&self.0.path().join(format!("{}-{}", ["mono", "dia"][arm], seed + 1)))
    }

    /// What a hook left at a step: figures, and rows in a file.
    fn result(
        &self,
        (arm, seed, step): (usize, usize, u64),
        hook: &str,
        figures: Vec<Figure>,
        rows: (&str, Vec<Value>),
    ) {
        let (run, step) = (self.folder(arm, seed), step as usize);
        let outcome = Outcome {
            hook: hook.into(),
            step,
            identity: json!({ "prompt": "p", "seed": seed }),
            summary: String::new(),
            missing: None,
            notes: vec![],
            figures,
        };
        let lines: Vec<String> = rows.1.iter().map(Value::to_string).collect();
        let fill = |folder: &Path| {
            fs::write(folder.join(rows.0), lines.join("\n") + "\n")?;
            outcome.write(folder)
        };
        write_folder(&Job { step, hook: hook.into() }.folder(&run), fill).unwrap();
    }

    fn compare(&self, code: i32, metric: &str, more: &[&str]) -> std::process::Output {
        let folders: Vec<String> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(a, s)| self.folder(a, s).path().display().to_string()).to_vec();
        let resamples = RESAMPLES.to_string();
        let mut arguments = vec!["compare", "--metric", metric, "--resamples", &resamples];
        arguments.extend(folders.iter().map(String::as_str));
        arguments.extend(more);
        run(code, &arguments)
    }
}

/// A number below `below` that differs from address to address.
fn number(address: [usize; 4], below: usize) -> usize {
    const PRIME: usize = (1 << 31) - 1;
    address.iter().fold(7, |sum, part| (sum * 31 + part + 1) % PRIME * 16_807 % PRIME) / 64 % below
}

/// A judged trace: conflicts, voices, tokens; every seventh or so has no judgement.
fn trace(arm: usize, seed: usize, step: u64, problem: usize) -> Judged {
    let at = |what| [arm * 2 + seed, step as usize, problem, what];
    let voices = 1 + number(at(1), 2) + arm * number(at(2), 2);
    let judgement = Judgement {
        conversational: Some([0, 0, (number(at(3), 3) + arm * number(at(4), 2)) as u32, 0]),
        perspectives: Some(vec![Perspective::default(); voices]),
        ..Judgement::default()
    };
    let judged = number(at(5), 7) > 0;
    Judged {
        index: problem,
        problem: format!("problem {problem}"),
        text: "<think>we try</think>".into(),
        tokens: Some(10 + number(at(6), 40)),
        judgement: judged.then_some(judgement),
        missing: (!judged).then(|| "no reply".into()),
        ..Judged::default()
    }
}

/// A part of a quotient: numerator and denominator.
type Part = Option<(f64, f64)>;

fn conflicts(trace: &Judged) -> Option<f64> {
    Some(f64::from(trace.judgement.as_ref()?.conversational?[2]))
}

/// The quotient over problems that count so often.
fn quotient(parts: &[Part], times: &[f64]) -> f64 {
    let (mut above, mut below) = (0.0, 0.0);
    for (part, times) in parts.iter().zip(times) {
        for _ in 0..*times as usize {
            let (numerator, denominator) = part.unwrap_or_default();
            above += numerator;
            below += denominator;
        }
    }
    above / below
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
}

/// The ends of a bootstrap over two seeds and all problems of a value of (seed, times that problems count).
fn ends(value: impl Fn(usize, &[f64]) -> f64) -> [f64; 2] {
    let mut values = vec![];
    for draw in Bootstrap::new(RESAMPLES, PROBLEMS).draws([2, 0], PROBLEMS) {
        let mut total = 0.0;
        for seed in 0..2 {
            for _ in 0..draw.seeds[0][seed] as usize {
                total += value(seed, &draw.problems) / 2.0;
            }
        }
        values.push(total);
    }
    values.sort_by(f64::total_cmp);
    [quantile(&values, 0.025), quantile(&values, 0.975)]
}

fn close_ends(found: &Value, expected: [f64; 2]) {
    close(&found[0], expected[0]);
    close(&found[1], expected[1]);
}

/// The two-sided exact binomial p-value of McNemar's test.
fn mcnemar(first: u64, second: u64) -> f64 {
    let choose = |n: u64, k: u64| (0..k).fold(1.0, |all, i| all * (n - i) as f64 / (i + 1) as f64);
    let n = first + second;
    let tail: f64 = (0..=first.min(second)).map(|k| choose(n, k) * 0.5f64.powi(n as i32)).sum();
    (2.0 * tail).min(1.0)
}

#[test]
fn arms_are_compared_by_judged_traces() {
    let bench = Bench::new();
    for (arm, seed) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for step in STEPS {
            let traces: Vec<Judged> = (0..PROBLEMS).map(|problem| trace(arm, seed, step, problem)).collect();
            let views: Vec<_> = traces.iter().map(Judged::view).collect();
            let rows = traces.iter().map(|trace| serde_json::to_value(trace).unwrap()).collect();
            bench.result((arm, seed, step), "persona", figures(&views, 50), ("traces.jsonl", rows));
        }
    }
    for (name, of) in [
        (
            "conversational/conflict/prevalence",
            (|t| Some((f64::from(u8::from(conflicts(t)? > 0.0)), 1.0))) as fn(&Judged) -> Part,
        ),
        ("conversational/conflict/per_1000_tokens", |t| Some((1000.0 * conflicts(t)?, t.tokens? as f64))),
        ("perspectives/mean", |t| Some((t.judgement.as_ref()?.perspectives.as_ref()?.len() as f64, 1.0))),
    ] {
        let metric = format!("hooks/persona/{name}");
        let found = json(&bench.compare(0, &metric, &["--json", "--steps", "0,40"]));
        assert_eq!((&found["metric"], &found["notes"].as_array().unwrap().len()), (&metric.as_str().into(), &1));
        assert_eq!(found["shares"], name.ends_with("prevalence"));
        let parts = |arm, seed, step| -> Vec<Part> {
            (0..PROBLEMS).map(|problem| of(&trace(arm, seed, step, problem))).collect()
        };
        let missing = parts(0, 0, 0).iter().filter(|part| part.is_none()).count();
        assert!(missing > 0, "the test is about traces that are missing too");
        for (arm, curve) in found["arms"].as_array().unwrap().iter().enumerate() {
            for (point, step) in curve["points"].as_array().unwrap().iter().zip(STEPS) {
                let value = |seed: usize, times: &[f64]| quotient(&parts(arm, seed, step), times);
                let once = [1.0; PROBLEMS];
                close(&point["mean"], (value(0, &once) + value(1, &once)) / 2.0);
                close_ends(&point["band"], ends(value));
                assert_eq!((&point["step"], &point["over"]), (&step.into(), &"seeds and problems".into()));
            }
        }
        // At the steps, and between the areas, which of two steps are their means.
        for (row, steps) in found["differences"].as_array().unwrap().iter().zip([&STEPS[..1], &STEPS[1..], &STEPS]) {
            let value = |seed: usize, times: &[f64]| {
                let at = |step: &u64| quotient(&parts(1, seed, *step), times) - quotient(&parts(0, seed, *step), times);
                steps.iter().map(at).sum::<f64>() / steps.len() as f64
            };
            let once = [1.0; PROBLEMS];
            close(&row["difference"], (value(0, &once) + value(1, &once)) / 2.0);
            close_ends(&row["interval"], ends(value));
            assert_eq!((&row["paired"], &row["problems"]), (&true.into(), &PROBLEMS.into()));
        }
        // McNemar's test is one of shares, over the problems that neither run lacks.
        let exact = found["exact"].as_array().unwrap();
        assert_eq!(exact.len(), if name.ends_with("prevalence") { 4 } else { 0 });
        for (row, (step, seed)) in exact.iter().zip([(0, 0), (0, 1), (40, 0), (40, 1)]) {
            let mut counts = [0u64; 4];
            for (a, b) in parts(0, seed, step).iter().zip(parts(1, seed, step)) {
                if let (Some((a, _)), Some((b, _))) = (a, b) {
                    counts[2 * usize::from(*a == 0.0) + usize::from(b == 0.0)] += 1;
                }
            }
            let names = ["both", "only_first", "only_second", "neither"];
            assert_eq!(names.map(|name| row[name].as_u64().unwrap()), counts, "{row}");
            close(&row["p"], mcnemar(counts[1], counts[2]));
        }
        assert!(found["matched"].as_array().unwrap().is_empty() && found["layout"].as_array().unwrap().is_empty());
    }
    // `/mean` may be left out, and a slip is answered by the nearest name.
    let found = json(&bench.compare(0, "hooks/persona/perspectives", &["--json"]));
    assert_eq!(found["metric"], "hooks/persona/perspectives/mean");
    for (metric, near) in [
        ("hooks/persona/perspectivs", "hooks/persona/perspectives/mean"),
        ("hooks/persona/conversational/conflct/prevalence", "hooks/persona/conversational/conflict/prevalence"),
        ("hooks/person/collectivity", "hooks/persona/collectivity"),
    ] {
        let said = String::from_utf8(bench.compare(2, metric, &[]).stderr).unwrap();
        assert!(said.ends_with(&format!("mono-1 has no metric {metric}; did you mean {near}?\n")), "{said}");
    }
    let said = String::from_utf8(bench.compare(2, "hooks/persona/perspectives", &["--decoding", "greedy"]).stderr);
    assert!(said.unwrap().contains("--decoding does not fit the metric"));

    // Traces that do not make the figure are not taken for those behind it.
    let file = bench.folder(1, 0).hooks(40).join("persona/traces.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.lines().take(5).collect::<Vec<_>>().join("\n")).unwrap();
    let output = bench.compare(0, "hooks/persona/perspectives", &["--json"]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.contains("warning: dia-1: the single results in ") && said.contains("was recorded; only"), "{said}");
    assert_eq!(json(&output)["arms"][1]["points"][1]["over"], "seeds");
    fs::write(&file, whole).unwrap();

    // Of a step that one run does not have, the tables say nothing; a damaged file leaves the means.
    fs::remove_dir_all(bench.folder(1, 1).hooks(40)).unwrap();
    let file = bench.folder(0, 0).hooks(0).join("persona/traces.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replacen('{', "", 1)).unwrap();
    let output = bench.compare(0, "hooks/persona/perspectives", &["--json"]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.contains("warning: mono-1: ") && said.contains("only the means of that step are compared"), "{said}");
    let found = json(&output);
    assert_eq!(found["steps"], json!([0]));
    assert_eq!(found["arms"][0]["points"][0]["over"], "seeds");
    let notes = found["notes"].to_string();
    assert!(notes.contains("ended early: dia-2 at step 0") && notes.contains("what the hook persona left"), "{notes}");
}

#[test]
fn arms_are_compared_by_their_answers_to_another_task() {
    let bench = Bench::new();
    let right = |arm: usize, seed: usize, step: u64, problem: usize| {
        number([arm * 2 + seed, step as usize, problem, 8], 4) < 1 + arm + (step / 40) as usize
    };
    for (arm, seed) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for step in STEPS {
            let row = |problem: usize| {
                json!({
                    "index": problem, "problem": format!("claim {problem}"), "text": "<answer>true</answer>",
                    "tokens": 20 + number([arm, seed, problem, 9], 3),
                    "accuracy": f64::from(u8::from(right(arm, seed, step, problem))), "format": 1.0, "reward": 0.1,
                    "with_answer": true, "verdict": "", "truth": "true", "given": "true",
                })
            };
            let share =
                (0..PROBLEMS).filter(|problem| right(arm, seed, step, *problem)).count() as f64 / PROBLEMS as f64;
            let plain = |name: &str, value| Figure::plain(name, value);
            let all = vec![plain("accuracy", share), plain("format", 1.0), plain("macro_f1", share / 2.0)];
            bench.result((arm, seed, step), "transfer", all, ("answers.jsonl", (0..PROBLEMS).map(row).collect()));
        }
    }
    let found = json(&bench.compare(0, "hooks/transfer/accuracy", &["--json"]));
    assert_eq!((&found["shares"], &found["steps"]), (&true.into(), &json!([40])));
    for (row, seed) in found["exact"].as_array().unwrap().iter().zip([0, 1]) {
        let mut counts = [0u64; 4];
        for problem in 0..PROBLEMS {
            let [a, b] = [0, 1].map(|arm| right(arm, seed, 40, problem));
            counts[2 * usize::from(!a) + usize::from(!b)] += 1;
        }
        assert_eq!(["both", "only_first", "only_second", "neither"].map(|name| row[name].as_u64().unwrap()), counts);
        close(&row["p"], mcnemar(counts[1], counts[2]));
    }
    assert_eq!(found["exact"].as_array().unwrap().len(), 2);
    let difference = |seed: usize, times: &[f64]| {
        let of = |problem: usize| {
            let [a, b] = [0, 1].map(|arm| f64::from(u8::from(right(arm, seed, 40, problem))));
            times[problem] * (b - a)
        };
        (0..PROBLEMS).map(of).sum::<f64>() / PROBLEMS as f64
    };
    let once = [1.0; PROBLEMS];
    let row = &found["differences"][0];
    close(&row["difference"], (difference(0, &once) + difference(1, &once)) / 2.0);
    close_ends(&row["interval"], ends(difference));
    // Answers are compared at matched length and by layout, as those of the run's own task are.
    assert_eq!((found["matched"].as_array().unwrap().len(), found["layout"].as_array().unwrap().len()), (1, 2));
    let shown = stdout(&bench.compare(0, "hooks/transfer/accuracy", &[]));
    assert!(shown.contains("points") && shown.contains("The same problems, run against run"), "{shown}");
    // Macro-F1 is not a mean over answers.
    let found = json(&bench.compare(0, "hooks/transfer/macro_f1", &["--json"]));
    assert_eq!((&found["arms"][0]["points"][0]["over"], &found["exact"]), (&"seeds".into(), &json!([])));
    assert_eq!(found["notes"].as_array().unwrap().len(), 1, "{}", found["notes"]);
    let said = String::from_utf8(bench.compare(2, "hooks/transfer/acuracy", &[]).stderr).unwrap();
    assert!(said.contains("has no metric hooks/transfer/acuracy; did you mean hooks/transfer/accuracy?"), "{said}");

    // A result that depends on something else is refused by name; another seed is not something else.
    let job = Job { step: 40, hook: "transfer".into() };
    let depends_on = |prompt: &str| {
        let run = bench.folder(1, 1);
        let outcome = Outcome::read(&run, &job).unwrap();
        let answers = fs::read(job.folder(&run).join("answers.jsonl")).unwrap();
        write_folder(&job.folder(&run), |folder| {
            fs::write(folder.join("answers.jsonl"), &answers)?;
            Outcome { identity: json!({ "prompt": prompt, "seed": 1 }), ..outcome.clone() }.write(folder)
        })
        .unwrap();
    };
    depends_on("q");
    let said = String::from_utf8(bench.compare(2, "hooks/transfer/accuracy", &[]).stderr).unwrap();
    assert!(said.contains("different things:\n  not the same prompt in dia-2 as first in mono-1\n"), "{said}");
    for allowed in [&["--allow", "hooks"][..], &["--any"], &["--allow", "prompt.template"]] {
        let found = json(&bench.compare(0, "hooks/transfer/accuracy", &[&["--json"], allowed].concat()));
        let note = "results of the hook transfer depend on different things: \
                    not the same prompt in dia-2 as first in mono-1";
        assert_eq!(found["notes"].as_array().unwrap().last().unwrap(), note);
    }
    depends_on("p");

    // Answers to other problems are not paired.
    let file = bench.folder(1, 0).hooks(40).join("transfer/answers.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("claim 3", "claim 33")).unwrap();
    let found = json(&bench.compare(0, "hooks/transfer/accuracy", &["--json"]));
    assert!(found["notes"].to_string().contains("the runs were not evaluated on the same problems"));
    assert_eq!((found["exact"].as_array().unwrap().len(), &found["differences"][0]["problems"]), (1, &1.into()));
}

/// A command's figures are in the log alone if its folder is gone; of one run, the recorded interval is the band.
#[test]
fn figures_of_a_command_are_compared_by_their_values() {
    let bench = Bench::new();
    for (arm, seed) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let file = bench.folder(arm, seed).metrics();
        let value = 2.0 * arm as f64 + seed as f64;
        let line = json!({
            "stage": "hook", "step": 40, "time": 0.0, "hooks/score/perplexity": value,
            "hooks/score/perplexity/low": value - 0.5, "hooks/score/perplexity/high": value + 0.25,
        });
        fs::write(&file, fs::read_to_string(&file).unwrap() + &line.to_string() + "\n").unwrap();
    }
    let found = json(&bench.compare(0, "hooks/score/perplexity", &["--json"]));
    let point = &found["arms"][1]["points"][0];
    assert_eq!((&point["mean"], &point["band"], &point["over"]), (&json!(2.5), &json!([2.0, 3.0]), &"seeds".into()));
    assert_eq!((&found["shares"], &found["differences"][0]["difference"]), (&false.into(), &json!(2.0)));
    let one = bench.folder(0, 1).path().display().to_string();
    let found = json(&run(0, &["compare", "--json", "--metric", "hooks/score/perplexity", &one]));
    let point = &found["arms"][0]["points"][0];
    assert_eq!((&point["band"], &point["over"]), (&json!([0.5, 1.25]), &"as the hook drew".into()));
}
