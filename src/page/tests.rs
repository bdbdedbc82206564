//! Pages about run folders that are made here.

use super::page;
use crate::checkpoint::{RunFolder, write_folder};
use crate::hooks::Outcome;
use crate::hooks::schedule::{Job, PERSONA, TRANSFER};
use crate::stats::Figure;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const RECIPE: &str = "[model]\npath = \"\"\n[task]\nkind = \"countdown\"\n[ppo]\n";
/// Turns what follows it, colours a terminal, rings a bell, and is no tag.
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\u{1b}[31m\u{7}";

fn run(dir: &Path, name: &str, recipe: &str, seed: u64) -> PathBuf {
    let folder = dir.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("recipe.toml"), format!("{recipe}seed = {seed}\n{RECIPE}")).unwrap();
    let line = |step: u64| json!({ "stage": "ppo", "step": step, "time": 0.0, "reward/accuracy": 0.1 * step as f64 });
    fs::write(folder.join("metrics.jsonl"), format!("{}\n{}\n", line(1), line(2))).unwrap();
    folder
}

/// A result of a hook at a step, with further files; nothing is known of what it depends on.
fn result(run: &Path, hook: &str, step: usize, figures: &[(&str, f64)], files: &[(&str, String)]) {
    result_by(json!({}), run, (hook, step), figures, files);
}

/// A result that depends on what `identity` says.
fn result_by(
    identity: Value,
    run: &Path,
    (hook, step): (&str, usize),
    figures: &[(&str, f64)],
    files: &[(&str, String)],
) {
    let job = Job { step, hook: hook.into() };
    let figure = |(name, value): &(&str, f64)| Figure {
        interval: Some([value - 0.1, value + 0.1]),
        n: Some(4),
        ..Figure::plain(*name, *value)
    };
    let outcome = Outcome {
        hook: hook.into(),
        step,
        identity,
        summary: String::new(),
        notes: vec![],
        missing: None,
        figures: figures.iter().map(figure).collect(),
    };
    let run = RunFolder::new(run);
    fs::create_dir_all(run.hooks(step)).unwrap();
    let fill = |folder: &Path| {
        files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))?;
        outcome.write(folder)
    };
    write_folder(&job.folder(&run), fill).unwrap();
}

fn trace(accuracy: f64, judged: bool) -> String {
    let mut trace = json!({
        "index": 0, "problem": "numbers 3 8", "text": HOSTILE, "tokens": 3, "reward": accuracy, "accuracy": accuracy,
        "format": 1.0, "verdict": "right",
    });
    if judged {
        let voice = json!({ "bfi": [1, 2, 3, 4, 5, 5, 4, 3, 2, 1], "expertise": HOSTILE });
        let segment = json!({ "start": 0, "end": 8, "perspective": 7 });
        trace["judgement"] = json!({ "perspectives": vec![voice; 8], "segments": [segment] });
    } else {
        trace["missing"] = json!("no reply in 60 s");
    }
    trace.to_string() + "\n"
}

/// A run that three hooks judged at two steps.
fn judged(dir: &Path, name: &str, recipe: &str, seed: u64) -> PathBuf {
    let run = run(dir, name, recipe, seed);
    for step in [0, 40] {
        let traces = trace(0.0, false) + &trace(1.0, true);
        let figures = [("perspectives/mean", 1.5), ("balance/ask_give", 0.5), ("expertise/diversity", 0.2)];
        let more = [("collectivity", 1.0), ("roles/agrees/prevalence", 0.5), ("missing", 1.0)];
        result(&run, PERSONA, step, &[&figures[..], &more].concat(), &[("traces.jsonl", traces)]);
        let answer = |at: usize| json!({ "problem": at, "accuracy": f64::from(u8::from(at * 10 < step)) });
        let answer = |at: usize| json!({ "problem": at.to_string(), "accuracy": answer(at)["accuracy"] }).to_string();
        let answers = (0..4).map(answer).collect::<Vec<_>>().join("\n");
        let classes = json!({
            "classes": ["true", "false"], "confusion": [[2, 1, 0], [0, 1, 4]], "accuracy": 0.375, "macro_f1": 0.4,
            "unanswered": 0.5, "precision": [1.0, 0.5], "recall": [0.667, 0.2], "f1": [0.8, 0.286],
            "accuracy_interval": [0.1, 0.6], "macro_f1_interval": null,
            "baselines": [{ "class": "false", "majority_of_train": true, "accuracy": 0.625, "macro_f1": 0.385 }],
        });
        let files = [("answers.jsonl", answers), ("classes.json", classes.to_string())];
        result(&run, TRANSFER, step, &[("accuracy", 0.375), ("macro_f1", 0.4), ("unanswered", 0.5)], &files);
        result(&run, "score", step, &[("length/max", 1024.0), ("length/mean", 200.5), ("count", 3.0)], &[]);
    }
    run
}

#[test]
fn a_run_alone_is_shown_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let run = judged(dir.path(), "run", "name = \"a\"\n", 1);
    let page = super::page(std::slice::from_ref(&run), 3).unwrap();
    for title in [
        "Accuracy in training",
        "Perspectives in a trace",
        "Balance of roles",
        "Diversity of expertise within a trace",
        "Collectivity",
        "Roles (positive): how many traces have them",
        "Macro-F1 on the other task",
        "score: length",
        "score: count",
    ] {
        assert!(page.contains(&format!("<figcaption>{title}<small>")), "{title}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    // Nothing acts: tags are text, and what turns text or colours terminals is named.
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(!page.contains(['\u{202e}', '\u{1b}', '\u{7}']) && page.contains("⟨U+202E⟩⟨U+001B⟩[31m⟨U+0007⟩"));
    // Not judged, and why; the eighth voice is not like the second.
    assert!(page.contains("not judged: no reply in 60 s") && !page.contains(" 0 perspectives"));
    assert!(page.contains("1 of 2 traces were not judged; the first: no reply in 60 s"));
    assert!(page.contains("<span class=\"voice v2 again1\"><b>8</b>"));
    // Transfer: constants, classes, and the last step against the first; counts are whole.
    assert!(
        page.contains("always `false`, the commonest in training") && page.contains("<td class=\"number hit\">2</td>")
    );
    assert!(page.contains("accuracy at step 40 minus that at step 0 is +100.0 points (+100.0 to +100.0)"));
    assert!(page.contains("<td class=\"number\">3<br><small>2.90 to 3.10</small></td>"));
    // Every column and row of a table has a head, and every table a name.
    assert!(!page.contains("<th>") && page.matches("<table>").count() == page.matches("<caption>").count());
    let none = super::page(&[run], 0).unwrap();
    assert!(!none.contains("id=\"traces\"") && !none.contains("#traces"));
}

/// Figures of the lexical judge at three steps, of another at the last, whose line they are not in.
#[test]
fn results_of_two_judges_are_not_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), "run", "name = \"a\"\n", 1);
    for (step, kind, value) in [(0, "lexical", 0.0), (8, "lexical", 0.1), (16, "endpoint", 1.0), (24, "endpoint", 0.9)]
    {
        let by = json!({ "judge": { "kind": kind }, "embeddings": null, "seed": step });
        let files = [("traces.jsonl", trace(1.0, true))];
        result_by(by, &run, (PERSONA, step), &[("perspectives/mean", value)], &files);
    }
    let page = super::page(std::slice::from_ref(&run), 3).unwrap();
    assert!(page.contains("perspectives: 1 at step 16, 0.900 at step 24</desc>"), "{page}");
    let note = "hook persona at steps 0, 8 has a table of its own and is in no picture: another judge than the newest \
                result, that of step 24 (lexical here, endpoint there)";
    assert!(page.contains(&format!("<p class=\"missing\">run: {note}</p>")), "{page}");
    // Neither are they in profiles and among the traces, but each figure is in a table.
    for (title, is_there) in [("step 0", false), ("step 8", false), ("step 16", true), ("step 24", true)] {
        assert_eq!(page.contains(&format!("<figcaption>{title}<small>")), is_there, "{title}");
        assert_eq!(page.contains(&format!("<h4>run, {title}:")), is_there, "{title}");
        assert!(page.contains(&format!("<th scope=\"col\" class=\"number\">{title}</th>")), "{title}");
    }
    assert!(page.contains("<caption>persona, another judge of run</caption>"));
}

/// As docs/hooks.md says, which is not to say another number.
#[test]
fn four_judged_steps_have_profiles_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), "run", "name = \"a\"\n", 1);
    for step in [0, 8, 16, 24, 32] {
        result(&run, PERSONA, step, &[("perspectives/mean", 1.5)], &[("traces.jsonl", trace(1.0, true))]);
    }
    let page = super::page(&[run], 0).unwrap();
    assert_eq!((super::PROFILES, page.matches("<figure class=\"profile\">").count()), (4, 4));
    let docs = fs::read_to_string("docs/hooks.md").unwrap();
    assert!(docs.contains("at up to four judged steps"), "{docs}");
}

/// Pictures shrink to the width that there is, and long names break.
#[test]
fn nothing_that_matters_is_beside_a_narrow_screen() {
    let dir = tempfile::tempdir().unwrap();
    let page = super::page(&[judged(dir.path(), "run", "name = \"a\"\n", 1)], 1).unwrap();
    assert!(page.contains("svg { width: 100%") && !super::STYLE.contains("min-width: 34rem"));
    assert!(page.matches("<svg ").count() > 4 && page.matches("<svg ").count() == page.matches("viewBox=").count());
    assert_eq!(page.matches("class=\"box wraps\"").count(), 2);
}

/// The model that a run began with is in its folder, whatever the recipe's path is by now.
#[test]
fn the_model_is_among_what_differs_from_the_paper() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), "run", "name = \"a\"\n", 1);
    let known =
        |run: &Path| super::page(&[run.to_path_buf()], 0).unwrap().contains("<th scope=\"row\">model.path</th>");
    assert!(known(&run));
    fs::create_dir(run.join("start")).unwrap();
    let qwen = fs::read_to_string("scripts/shapes/qwen2.5-3b.json").unwrap();
    fs::write(run.join("start/config.json"), &qwen).unwrap();
    assert!(!known(&run));
    fs::write(run.join("start/config.json"), qwen.replace("11008", "4096")).unwrap();
    assert!(known(&run) && super::page(&[run], 0).unwrap().contains("Qwen2.5-3B or Llama-3.2-3B"));
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let run = judged(dir.path(), "run", "name = \"a\"\n", 1);
    let folder = run.join("hooks/step_000040");
    fs::write(folder.join("persona/result.json"), "{").unwrap();
    fs::write(run.join("hooks/step_000000/persona/traces.jsonl"), "{}\n").unwrap();
    fs::write(folder.join("transfer/classes.json"), "[]").unwrap();
    fs::write(folder.join("rate.failed.json"), "{\"attempts\": 2, \"error\": \"no reply\"}").unwrap();
    let page = page(&[run], 3).unwrap();
    assert!(page.contains("hook persona at step 40 is left out") && page.contains("result.json has 1 bytes"));
    assert!(
        page.contains("the traces of step 0 are left out") && page.contains("hook rate at step 40 failed, 2 attempts")
    );
    assert!(page.contains("classes.json") && page.contains("<figcaption>Perspectives in a trace<small>"));
}

#[test]
fn arms_are_lines_of_the_same_pictures_whatever_the_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let mut figures = vec![];
    for seeds in [1, 3] {
        let mut runs = vec![];
        for (arm, recipe) in [("one", "name = \"one\"\n"), ("two", "name = \"two\"\n")] {
            let more = if arm == "two" { "[sft.data]\nkind = \"solver\"\n" } else { "" };
            for seed in 1..=seeds {
                let run = judged(dir.path(), &format!("{arm}-{seed}"), recipe, seed);
                let text = fs::read_to_string(run.join("recipe.toml")).unwrap();
                fs::write(run.join("recipe.toml"), text + more).unwrap();
                runs.push(run);
            }
        }
        let page = page(&runs, 1).unwrap();
        assert_eq!(page.matches("<details class=\"run\">").count(), runs.len());
        // Roles are in the tables of the runs; of two lines of a picture each has its own, for arms are the lines.
        assert!(!page.contains("<figcaption>Roles") && page.contains("<figcaption>score: length: max<small>one: "));
        figures.push(page.matches("box picture").count());
    }
    assert_eq!(figures[0], figures[1]);
    assert!(figures[0] < 15, "{figures:?}");
}
