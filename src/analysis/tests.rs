//! Comparisons of run folders that these tests write themselves.

use super::*;
use crate::BadInput;
use crate::metrics::{Logs, Metrics, Outcomes, Record, Stage};
use std::fs;
use std::path::{Path, PathBuf};

pub const SMOKE: &str = include_str!("../../recipes/smoke.toml");
const STEPS: [u64; 3] = [0, 40, 70];

/// Accuracies of 8 problems at a step: as many are right as the arm's and the seed's figures add up to.
fn accuracies(right: u64) -> Vec<f64> {
    (0..8).map(|problem| f64::from(u8::from(problem < right))).collect()
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A run folder with evaluations at `STEPS`: `right` of 8 problems at the first step, one more at each later one.
    pub fn run(&self, name: &str, right: u64, edits: &[(&str, &str)]) -> PathBuf {
        let dir = self.0.path().join(name);
        fs::create_dir(&dir).unwrap();
        let recipe = edits.iter().fold(SMOKE.to_string(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        fs::write(dir.join("recipe.toml"), recipe).unwrap();
        let logs = Logs { tensorboard: false, jsonl: true };
        let mut metrics = Metrics::open(&dir, logs, None, |warning| panic!("{warning}")).unwrap();
        for (step, right) in STEPS.into_iter().zip(right..) {
            metrics.write(&record(step, accuracies(right)));
        }
        metrics.flush();
        dir
    }

    /// Two arms of two seeds, of which the second gets two more of eight right; `edits`: of the last run's recipe.
    pub fn arms(&self, edits: &[(&str, &str)]) -> Vec<PathBuf> {
        let dialogue = ("kind = \"solver\"", "kind = \"solver\"\nstyle = \"dialogue\"");
        let second = ("seed = 1", "seed = 2");
        vec![
            self.run("mono-1", 1, &[]),
            self.run("mono-2", 2, &[second]),
            self.run("dia-1", 3, &[dialogue]),
            self.run("dia-2", 4, &[&[dialogue, second], edits].concat()),
        ]
    }
}

fn record(step: u64, accuracy: Vec<f64>) -> Record {
    let mut record = Record::new(Stage::Evaluation, step);
    let mean = accuracy.iter().sum::<f64>() / accuracy.len() as f64;
    for (figure, value) in [("accuracy", mean), ("format", 0.5), ("reward", 0.9 * mean + 0.05)] {
        record.set(format!("val/countdown/{figure}"), value);
    }
    record.outcome(Outcomes {
        task: "countdown".into(),
        decoding: "greedy".into(),
        problems: "a hash".into(),
        format: (0..accuracy.len()).map(|i| f64::from(u8::from(i % 2 == 0))).collect(),
        reward: accuracy.iter().enumerate().map(|(i, a)| 0.9 * a + if i % 2 == 0 { 0.1 } else { 0.0 }).collect(),
        response_length: vec![20; accuracy.len()],
        terminated: vec![true; accuracy.len()],
        class: vec![],
        answer: vec![],
        accuracy,
    });
    record
}

pub fn compare(dirs: &[PathBuf], allowed: &Allowed) -> anyhow::Result<Comparison> {
    compare_by(dirs, vec![], allowed, None)
}

fn compare_by(
    dirs: &[PathBuf],
    forced: Vec<Arm>,
    allowed: &Allowed,
    metric: Option<&str>,
) -> anyhow::Result<Comparison> {
    let runs = Run::read_all(dirs)?;
    let arms = Arms::of(&runs, forced, allowed)?;
    let metric = Metric::choose(&runs[0], metric, None)?;
    Comparison::of(&runs, arms, &metric, &Settings { steps: None, thresholds: None, resamples: 200 })
}

pub fn refusal(result: anyhow::Result<Comparison>) -> String {
    let error = result.err().expect("it was not refused");
    assert!(error.is::<BadInput>(), "{error:#}");
    error.to_string()
}

pub fn names(comparison: &Comparison) -> Vec<&str> {
    comparison.arms.iter().map(|arm| arm.arm.as_str()).collect()
}

pub fn allow(keys: &[&str]) -> Allowed {
    Allowed { keys: keys.iter().map(|key| key.to_string()).collect(), any: false }
}

#[test]
fn runs_of_one_recipe_are_an_arm_and_arms_are_paired_by_seed() {
    let folder = Folder::new();
    let found = compare(&folder.arms(&[]), &Allowed::default()).unwrap();
    assert_eq!(names(&found), ["smoke (monologue)", "smoke (dialogue)"]);
    assert_eq!(found.steps, [40, 70]);
    let means: Vec<Vec<f64>> = found.arms.iter().map(|arm| arm.points.iter().map(|p| p.mean).collect()).collect();
    assert_eq!(means, [[1.5 / 8.0, 2.5 / 8.0, 3.5 / 8.0], [3.5 / 8.0, 4.5 / 8.0, 5.5 / 8.0]]);
    assert!(found.arms[0].points.iter().all(|point| point.over == Some("seeds and problems")));

    // At every step, and so over the whole curve, dialogues get two more of eight right, with either seed.
    let steps: Vec<Option<u64>> = found.differences.iter().map(|d| d.step).collect();
    assert_eq!(steps, [Some(40), Some(70), None]);
    for difference in &found.differences {
        assert!((difference.difference - 0.25).abs() < 1e-12 && difference.paired && difference.problems == 8);
        assert_eq!((difference.seeds, difference.sign_flip), ([2, 2], Some(0.5)));
        let [low, high] = difference.interval.unwrap();
        assert!((0.0..0.25).contains(&low) && (0.25..=1.0).contains(&high), "{low} {high}");
    }
    let exact: Vec<_> = found.exact.iter().map(|e| (e.both, e.only_first, e.only_second, e.neither, e.p)).collect();
    assert_eq!(exact, [(2, 0, 2, 4, 0.5), (3, 0, 2, 3, 0.5), (3, 0, 2, 3, 0.5), (4, 0, 2, 2, 0.5)]);

    // Trapezoids: 40 steps from 1.5 to 2.5 of 8, 30 steps from there to 3.5.
    assert!((found.areas[0].area - (40.0 * 2.0 + 30.0 * 3.0) / 70.0 / 8.0).abs() < 1e-12);
    let reached: Vec<_> = found.thresholds.iter().filter(|r| r.run.is_none()).map(|r| (r.threshold, r.step)).collect();
    assert_eq!(reached, [(0.25, Some(40)), (0.25, Some(0)), (0.5, None), (0.5, Some(40))]);
    // All responses have one length: one bin, and nothing changes.
    assert!(found.matched.iter().all(|m| m.bins == 1 && (m.difference - 0.25).abs() < 1e-12 && m.covered == 1.0));
    let first = &found.layout[0];
    assert_eq!((first.accuracy, first.format), (2.5 / 8.0, 0.5));
    assert_eq!(first.fourfold.unwrap(), [1.5 / 8.0, 1.0 / 8.0, 2.5 / 8.0, 3.0 / 8.0]);
}

#[test]
fn any_other_key_is_refused_by_name() {
    for (edit, line) in [
        (("mini_batch = 8", "mini_batch = 4"), "ppo.mini_batch: 8 in mono-1, mono-2, dia-1; 4 in dia-2"),
        (("steps = 4", "steps = 4\nkl_coef = 0.01"), "ppo.kl_coef: 0.001 in mono-1, mono-2, dia-1; 0.01 in dia-2"),
        (("float32", "bfloat16"), "machine.precision: \"float32\" in mono-1, mono-2, dia-1; \"bfloat16\" in dia-2"),
        (("validation = 16", "validation = 32"), "task.validation: 16 in mono-1, mono-2, dia-1; 32 in dia-2"),
        (("every = 2", "every = 1"), "evaluation.every: 2 in mono-1, mono-2, dia-1; 1 in dia-2"),
        (("prompts_per_step = 8", "prompts_per_step = 4"), "rollout.prompts_per_step: 8 in"),
        (("template = \"compact\"", "template = \"base\""), "prompt.template: \"compact\" in"),
        (("random_weights = true", "random_weights = false"), "model.random_weights: true in"),
        // How a warm start is trained is no part of its arm.
        (("lr = 1e-3", "lr = 1e-2"), "sft.lr: 0.001 in mono-1, mono-2, dia-1; 0.01 in dia-2"),
        (("epochs = 1", "epochs = 2"), "sft.epochs: 1 in mono-1, mono-2, dia-1; 2 in dia-2"),
        (("batch = 16", "batch = 8"), "sft.batch: 16 in mono-1, mono-2, dia-1; 8 in dia-2"),
        (("[sft]\ntrain = 64", "[sft]\ntrain = 32"), "sft.train: 64 in mono-1, mono-2, dia-1; 32 in dia-2"),
        (("context = 256", "context = 64"), "sft.context: 256 in mono-1, mono-2, dia-1; 64 in dia-2"),
    ] {
        let folder = Folder::new();
        let dirs = folder.arms(&[edit]);
        let said = refusal(compare(&dirs, &Allowed::default()));
        assert!(said.contains(&format!("\n  {line}")) && said.lines().count() == 3, "{said}");
        let key = line.split(':').next().unwrap();
        let section = key.split('.').next().unwrap();
        for allowed in [allow(&[key]), allow(&[section]), Allowed { any: true, ..Allowed::default() }] {
            let found = compare(&dirs, &allowed).unwrap();
            assert_eq!(found.arms.len(), 3, "{key}: {:?}", names(&found));
            assert!(found.notes.iter().any(|note| note.starts_with(&format!("the arms differ in {key}"))));
        }
        let said = refusal(compare(&dirs, &allow(&[&key[..key.len() - 1]])));
        assert!(said.ends_with(&format!("did you mean {key}?")), "{said}");
    }
}

#[test]
fn keys_of_the_machine_are_mentioned_or_nothing() {
    for (edit, said) in [
        (("threads = 1 ", "threads = 2 "), "runs differ, by rounding only, in machine.threads: 1 in"),
        (("micro_batch_tokens = 600", "micro_batch_tokens = 900"), "in ppo.micro_batch_tokens: 600 in"),
        (("micro_batch_tokens = 1024", "micro_batch_tokens = 900"), "in sft.micro_batch_tokens: 1024 in"),
        (("micro_batch_tokens = 600", "packing = true\nmicro_batch_tokens = 600"), "in ppo.packing: false in"),
        (("micro_batch_tokens = 1024", "packing = true\nmicro_batch_tokens = 1024"), "in sft.packing: false in"),
        (("context = 256", "context = 256\nmin_answered = 0.5"), ""),
        (("[checkpoints]\nevery = 2", "[checkpoints]\nevery = 1"), ""),
        (("[machine]", "[memory]\ngradient_checkpointing = true\n[machine]"), ""),
    ] {
        let folder = Folder::new();
        let found = compare(&folder.arms(&[edit]), &Allowed::default()).unwrap();
        assert_eq!(names(&found), ["smoke (monologue)", "smoke (dialogue)"], "{edit:?}");
        let notes = found.notes.join("\n");
        assert_eq!(notes.contains("rounding"), !said.is_empty(), "{notes}");
        assert!(notes.contains(said), "{notes}");
    }
}

#[test]
fn arms_can_be_named() {
    let folder = Folder::new();
    let dirs = folder.arms(&[]);
    let arm = |name: &str, runs: &[usize]| Arm { name: name.into(), runs: runs.to_vec() };
    let free = Allowed::default();
    let found = compare_by(&dirs, vec![arm("b", &[2, 3]), arm("a", &[0])], &free, Some("reward")).unwrap();
    assert_eq!(names(&found), ["b", "a", "smoke"]);
    assert!(found.exact.is_empty(), "a reward is neither 0 nor 1");
    assert!(found.notes.iter().any(|note| note.contains("differences between b and a leave out dia-2")));
    let said = refusal(compare_by(&dirs, vec![arm("all", &[0, 1, 2, 3])], &free, None));
    assert!(said.contains("within the arm all: sft.data.style: \"monologue\" in mono-1, mono-2;"), "{said}");
    let found = compare_by(&dirs, vec![arm("all", &[0, 1, 2, 3])], &allow(&["sft"]), None).unwrap();
    assert_eq!(names(&found), ["all"]);
    assert!(found.notes.iter().any(|note| note.contains("mono-1, dia-1 are runs of the arm all with the same seed 1")));
}

#[test]
fn arms_without_a_warm_start_are_arms() {
    let folder = Folder::new();
    let at = |word: &str| SMOKE.find(word).unwrap();
    let sft = &SMOKE[at("[sft]")..at("[ppo]")];
    let dirs = [folder.run("base-1", 0, &[(sft, ""), ("\"smoke\"", "\"base-1\"")]), folder.run("smoke-1", 1, &[])];
    let found = compare(&dirs, &Allowed::default()).unwrap();
    assert_eq!(names(&found), ["base-1", "smoke"]);
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    let same = [folder.run("without", 0, &[(sft, "")]), dirs[1].clone()];
    assert_eq!(names(&compare(&same, &Allowed::default()).unwrap()), ["smoke (no warm start)", "smoke (warm start)"]);
    // Beside it, those that have one still have to be trained alike.
    let other = folder.run("other", 2, &[("lr = 1e-3", "lr = 1e-2")]);
    let said = refusal(compare(&[&dirs[..], &[other]].concat(), &Allowed::default()));
    assert!(said.contains("seed:\n  sft.lr: absent in base-1; 0.001 in smoke-1; 0.01 in other\ncompare"), "{said}");
}

#[test]
fn what_a_layout_earns_and_the_seed_of_a_warm_start_are_mentioned() {
    let folder = Folder::new();
    let found = compare(&folder.arms(&[]), &Allowed::default()).unwrap();
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    let folder = Folder::new();
    let dirs = [folder.run("a", 1, &[]), folder.run("b", 1, &[("[sft]", "[reward]\ndialogue_format = true\n[sft]")])];
    let found = compare(&dirs, &Allowed::default()).unwrap();
    let [off, on] = ["false", "true"].map(|value| format!("{value} in smoke (dialogue_format {value})"));
    assert_eq!(found.notes[0], format!("the arms differ in reward.dialogue_format: {off}; {on}"));
    let dirs = [dirs[0].clone(), folder.run("c", 1, &[("[sft]", "[sft]\nseed = 5"), ("seed = 1", "seed = 2")])];
    let found = compare(&dirs, &Allowed::default()).unwrap();
    assert_eq!(names(&found), ["smoke"]);
    assert!(found.notes[0].starts_with("warm starts differ in sft.seed: absent in a; 5 in c; "), "{:?}", found.notes);
}

#[test]
fn what_an_older_folder_lacks_is_said_and_left_out() {
    let folder = Folder::new();
    let dirs = folder.arms(&[]);
    fs::remove_file(dirs[3].join("evaluations.jsonl")).unwrap();
    let found = compare(&dirs, &Allowed::default()).unwrap();
    assert!(found.notes.iter().any(|note| note.starts_with("without single problems in evaluations.jsonl: dia-2;")));
    // The pair that has problems is compared by them; everything else by means.
    assert_eq!(found.exact.len(), 2);
    assert!(found.matched.is_empty());
    let over: Vec<_> = found.arms.iter().map(|arm| arm.points[0].over).collect();
    assert_eq!(over, [Some("seeds and problems"), Some("seeds")]);
    assert!((found.differences[0].difference - 0.25).abs() < 1e-12 && found.differences[0].problems == 1);

    fs::remove_file(dirs[3].join("recipe.toml")).unwrap();
    assert!(refusal(compare(&dirs, &Allowed::default())).contains("dia-2 has no recipe that can be read"));
    let found = compare(&dirs, &Allowed { any: true, ..Allowed::default() }).unwrap();
    assert_eq!(names(&found)[2], "dia-2");
}

#[test]
fn other_problems_are_not_paired() {
    let folder = Folder::new();
    let dirs = folder.arms(&[]);
    let path = dirs[2].join("evaluations.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("a hash", "another")).unwrap();
    let line = "\n  task.validation.problems_sha256: a hash in mono-1, mono-2, dia-2; another in dia-1\n";
    let said = refusal(compare(&dirs, &Allowed::default()));
    assert!(said.contains(line), "{said}");
    let arm = |name: &str, runs: &[usize]| Arm { name: name.into(), runs: runs.to_vec() };
    let forced = vec![arm("mono", &[0, 1]), arm("dia", &[2, 3])];
    let found = compare_by(&dirs, forced, &allow(&["task.validation"]), None).unwrap();
    let inner = "the runs of the arm dia differ in task.validation.problems_sha256: another in dia-1; a hash in dia-2";
    assert!(found.notes.iter().any(|note| note == inner), "{:?}", found.notes);
    assert!(found.notes.iter().any(|note| note.starts_with("the runs were not evaluated on the same problems")));
    assert!(found.exact.iter().all(|exact| exact.first_run == "mono-2"));
    assert!(found.differences.iter().all(|difference| difference.problems == 1));
}

#[test]
fn a_run_that_ended_early_shortens_the_tables() {
    let folder = Folder::new();
    let dirs = folder.arms(&[]);
    for file in ["metrics.jsonl", "evaluations.jsonl"] {
        let text = fs::read_to_string(dirs[1].join(file)).unwrap();
        let lines: Vec<&str> = text.lines().take(2).collect();
        fs::write(dirs[1].join(file), lines.join("\n") + "\n").unwrap();
    }
    let found = compare(&dirs, &Allowed::default()).unwrap();
    assert_eq!((found.steps.as_slice(), found.areas[0].to), (&[40][..], 40));
    assert_eq!(found.arms.iter().map(|arm| arm.points.len()).collect::<Vec<_>>(), [2, 3]);
    assert!(found.notes.iter().any(|note| note.contains("ended early: mono-2 at step 40")), "{:?}", found.notes);
}

#[test]
fn every_format_has_the_same_figures() {
    let folder = Folder::new();
    let mut found = compare(&folder.arms(&[]), &Allowed::default()).unwrap();
    let file = folder.0.path().join("reference.json");
    let reference = r#"{"metric": "mean reward", "steps": [40, 70], "curves": {"published": [0.3, 0.4]}}"#;
    fs::write(&file, reference).unwrap();
    found.reference = Some(Reference::read(&file).unwrap());
    let shown = text(&found);
    for part in ["smoke (dialogue)  smoke (monologue)   +25.0", "reference: published, reward", "31.2 %"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let page = markdown(&found, Some("curves.svg"));
    assert!(page.contains("![val/countdown/accuracy](curves.svg)") && page.contains("| smoke (dialogue) |"), "{page}");
    let table = csv(&found);
    assert!(table.contains("\nmean,40,smoke (monologue),,,val/countdown/accuracy,0.3125,"), "{table}");
    assert!(table.contains("\nreference,40,published,,,reward,0.3,,,"), "{table}");
    let columns: Vec<usize> = table.lines().map(|line| line.matches(',').count()).collect();
    assert!(columns.iter().all(|count| *count == 9), "{table}");
    let svg = picture(&found).unwrap();
    assert!(svg.contains("<polygon") && svg.contains("reference: published, reward"), "{svg}");
    assert_eq!(&png(&svg).unwrap()[1..4], b"PNG");
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["differences"][0]["difference"], 0.25);
    assert_eq!(json["runs"][3]["points"][2], serde_json::json!([70, 0.75]));
}

#[test]
fn a_metric_is_chosen_by_name_or_by_what_it_measures() {
    let folder = Folder::new();
    let run = Run::read(&folder.run("run", 1, &[])).unwrap();
    let choose = |name, decoding| Metric::choose(&run, name, decoding).map(|metric| metric.name);
    use crate::recipe::Decoding::{Greedy, Sampled};
    assert_eq!(choose(None, None).unwrap(), "val/countdown/accuracy");
    assert_eq!(choose(Some("reward"), Some(Greedy)).unwrap(), "val/countdown/reward");
    assert_eq!(choose(Some("val/countdown/format"), None).unwrap(), "val/countdown/format");
    for (name, decoding, said) in [
        (None, Some(Sampled), "no sampled evaluation of accuracy"),
        (Some("acuracy"), None, "no evaluation of acuracy; did you mean accuracy?"),
        (Some("val/countdown/acuracy"), None, "did you mean val/countdown/accuracy?"),
        (Some("val/countdown/accuracy"), Some(Sampled), "name one of the two"),
    ] {
        let error = choose(name, decoding).unwrap_err().to_string();
        assert!(error.ends_with(said), "{error}");
    }
    assert!(Run::read(Path::new("src")).err().unwrap().to_string().contains("metrics.jsonl"));
}
