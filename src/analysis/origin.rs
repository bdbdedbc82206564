//! What a run came from: the keys of its recipe, and the hashes of what these led to. Its folder has them: rows and
//! weights of the warm start in `start/warm_start.json` (or, until that is there, `traces.json`), the model and the
//! files that the recipe names in `history.jsonl`, the problems of its evaluations in `evaluations.jsonl`.
//!
//! Decided: a hash is held against those of runs whose keys promise the same content. Where a key that decides it
//! differs already, its own difference says nothing new; and what a folder does not record is unknown, and differs from
//! nothing.

use super::runs::Run;
use crate::checkpoint::{RECORD, RunFolder, Sums};
use crate::recipe::Recipe;
use crate::recipe::identity::{is_in, leaves};
use crate::{WHOLE, json, read_text, terminal};
use anyhow::Error;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The section of the warm start.
pub const SFT: &str = "sft";
/// The key of a finished warm start.
pub const FROM: &str = "sft.from";
/// The section of the model.
const MODEL: &str = "model";
/// The hash of the model's weights.
const WEIGHTS: &str = "model.path.weights_sha256";
/// The key of rows that are read; a solver writes other ones with another seed.
const ROWS: &str = "sft.data.path";

/// A run's keys and hashes.
pub struct Origin {
    /// The keys of its recipe, defaults included, with their values as TOML. Those of a finished warm start are the
    /// ones that it was trained with, as far as it says so.
    pub keys: BTreeMap<String, String>,
    pub hashes: Vec<Hash>,
    pub has_warm_start: bool,
    /// Of the problems and answers of the warm start's rows, if that is recorded.
    pub problems: Option<String>,
}

/// The SHA-256 of something that a run was made of.
pub struct Hash {
    /// What it is of, below the key that it belongs to, such as `task.train_file.sha256`.
    pub key: String,
    /// Several, one after another, if it changed while the run went on.
    pub value: String,
    /// What decides it: the keys, and the seed if that does. Two runs in which this is equal should have one content.
    pub promise: (String, Option<u64>),
}

/// What the record of a start says of it.
#[derive(Default, Deserialize)]
struct Record {
    /// The keys that it was trained with.
    sft: Option<Value>,
    /// Of its rows and their order.
    seed: Option<u64>,
    problems_sha256: Option<String>,
    traces_sha256: Option<String>,
    weights_sha256: Option<String>,
}

/// What the history of a run says of a process that worked on it; see `run::history`.
#[derive(Deserialize)]
struct Sitting {
    /// Of the files that the recipe names, by key.
    files_sha256: BTreeMap<String, String>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    config_sha256: String,
    tokenizer_sha256: String,
    weights_sha256: Option<String>,
}

impl Origin {
    /// That of a run, as its folder shows it; none without a recipe.
    pub fn of(run: &Run) -> Option<Self> {
        let recipe = run.recipe.as_ref().ok()?;
        let folder = RunFolder::new(&run.dir);
        let record = Record::read(&folder);
        let mut origin = Self {
            keys: keys(recipe, &record),
            hashes: vec![],
            has_warm_start: recipe.sft.is_some(),
            problems: record.problems_sha256.clone(),
        };
        if origin.has_warm_start {
            let seed = record.seed.unwrap_or_else(|| recipe.warm_start_seed());
            origin.warm_start(record, seed);
        }
        for (key, hashes) in read_by(&folder) {
            // A finished warm start has weights of its own.
            if key == WEIGHTS && origin.keys.contains_key(FROM) {
                continue;
            }
            let deciding = if is_in(&key, &[MODEL]) { MODEL } else { key.trim_end_matches(".sha256") };
            origin.add(&key, Some(hashes.join(" then ")), &[deciding], None);
        }
        let evaluated: Vec<&str> = run.evaluated().into_iter().collect();
        let evaluated = (!evaluated.is_empty()).then(|| evaluated.join(" and "));
        origin.add("task.validation.problems_sha256", evaluated, &["task", "evaluation.problems"], None);
        Some(origin)
    }

    /// Adds the hashes of the warm start, whose rows were made with `seed`.
    fn warm_start(&mut self, record: Record, seed: u64) {
        let rows = [MODEL, "prompt", "task", "sft.data", "sft.train", FROM];
        let drawn = (!self.keys.contains_key(ROWS)).then_some(seed);
        self.add("sft.data.traces_sha256", record.traces_sha256, &rows, drawn);
        self.add("sft.data.problems_sha256", record.problems_sha256, &[MODEL, "task", "sft.train"], None);
        // Weights that a run trains itself depend on its seed and its machine.
        if self.keys.contains_key(FROM) {
            self.add("sft.from.weights_sha256", record.weights_sha256, &[FROM], None);
        }
    }

    /// Adds a hash, if it is known, that the keys and sections `deciding` decide, and the seed if there is one.
    fn add(&mut self, key: &str, value: Option<String>, deciding: &[&str], seed: Option<u64>) {
        let decided = self.keys.iter().filter(|(key, _)| is_in(key, deciding));
        let promise = (decided.map(|(key, value)| format!("{key} = {value}\n")).collect(), seed);
        self.hashes.extend(value.map(|value| Hash { key: key.into(), value, promise }));
    }
}

/// The keys of a recipe; in place of those of its warm start, of which none matters beside `from`, the keys that the
/// record has of a finished one.
fn keys(recipe: &Recipe, record: &Record) -> BTreeMap<String, String> {
    let shown = |recipe: &Recipe| leaves(recipe).into_iter().map(|(key, value)| (key, value.to_string()));
    let mut keys: BTreeMap<String, String> = shown(recipe).collect();
    if keys.contains_key(FROM) {
        let of_section = |key: &str| is_in(key, &[SFT]) && key != FROM;
        keys.retain(|key, _| !of_section(key));
        let sft = record.sft.as_ref().and_then(|sft| serde_json::from_value(sft.clone()).ok());
        keys.extend(shown(&Recipe { sft, ..recipe.clone() }).filter(|(key, _)| of_section(key)));
    }
    keys
}

impl Record {
    /// That of a run's start, or what is known of its rows before the start is there. One that cannot be read is named
    /// in a warning.
    fn read(folder: &RunFolder) -> Self {
        let places = [folder.start().join(RECORD), folder.traces()];
        let mut found = places.iter().filter(|place| place.exists()).filter_map(|place| {
            let warn = |error: &Error| terminal::warn(&format!("warning: what the start was made of: {error:#}"));
            json::read(place).inspect_err(warn).ok()
        });
        let record: Self = found.next().unwrap_or_default();
        let weights_sha256 = record.weights_sha256.or_else(|| marked_weights(&folder.start()));
        Self { weights_sha256, ..record }
    }
}

/// The hashes of the weights in a start without a record, which begins with a model of somebody else's.
fn marked_weights(start: &Path) -> Option<String> {
    let Sums(files) = Sums::stored(start).ok()??;
    let weights = files.into_iter().filter(|file| file.path.ends_with(".safetensors"));
    let hashes: Vec<String> = weights.map(|file| file.sha256).collect();
    (!hashes.is_empty()).then(|| hashes.join(" + "))
}

/// The hashes of what the processes that worked on a run have read, each below its key, in their order. The rows of a
/// warm start are not among them: of what a file has, those that were used count.
fn read_by(folder: &RunFolder) -> BTreeMap<String, Vec<String>> {
    let text = read_text(&folder.history(), WHOLE).unwrap_or_default();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Sitting { files_sha256, model } in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        let files = files_sha256.into_iter().filter(|(key, _)| !is_in(key, &[SFT]));
        let files = files.map(|(key, hash)| (format!("{key}.sha256"), Some(hash)));
        let model = [
            ("model.path.config_sha256".to_string(), Some(model.config_sha256)),
            ("model.path.tokenizer_sha256".to_string(), Some(model.tokenizer_sha256)),
            (WEIGHTS.to_string(), model.weights_sha256),
        ];
        for (key, hash) in files.chain(model) {
            let known = found.entry(key).or_default();
            known.extend(hash.filter(|hash| !known.contains(hash)));
        }
    }
    found.retain(|_, hashes| !hashes.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{Folder, SMOKE, allow, compare, names, refusal};
    use crate::analysis::{Allowed, markdown, text};
    use crate::checkpoint::write_folder;
    use crate::hash::hash;
    use serde_json::json;
    use std::fs;
    use std::path::PathBuf;

    const SECOND: (&str, &str) = ("seed = 1", "seed = 2");

    /// Writes the record of a run's start: hashes of problems, traces and weights.
    fn start(run: &Path, [problems, traces, weights]: [&str; 3]) {
        let recipe = Run::read(run).unwrap().recipe.unwrap();
        let record = json!({
            "sft": recipe.sft, "seed": recipe.warm_start_seed(), "problems_sha256": problems, "traces_sha256": traces,
            "weights_sha256": weights,
        });
        fs::create_dir_all(run.join("start")).unwrap();
        fs::write(run.join("start").join(RECORD), record.to_string()).unwrap();
    }

    /// Writes the history of a run: for each process the hash of a file, by its key, and of the model's weights.
    fn history(run: &Path, processes: &[(&str, &str, Option<&str>)]) {
        let line = |(key, file, weights): &(&str, &str, Option<&str>)| {
            let model = json!({ "config_sha256": "c", "tokenizer_sha256": "t", "weights_sha256": weights });
            json!({ "files_sha256": { *key: file }, "model": model }).to_string() + "\n"
        };
        fs::write(run.join("history.jsonl"), processes.iter().map(line).collect::<String>()).unwrap();
    }

    /// The refusal of the runs, which begins with one line about a hash.
    fn refused(runs: &[PathBuf], line: &str) {
        let said = refusal(compare(runs, &Allowed::default()));
        let expected = format!("more than arm and seed:\n  {line}\na hash is that of a content");
        assert!(said.contains(&expected), "{said}");
    }

    #[test]
    fn arms_hold_the_same_problems() {
        let folder = Folder::new();
        let runs = folder.arms(&[]);
        // The solver writes other rows with another seed, of the same problems.
        for (run, traces) in runs.iter().zip(["a", "b", "c", "d"]) {
            start(run, ["p", traces, traces]);
        }
        let found = compare(&runs, &Allowed::default()).unwrap();
        assert_eq!((names(&found).len(), found.warm_starts.same_problems), (2, Some(true)));
        let said = "the warm starts of smoke (monologue), smoke (dialogue) hold the same problems with the same \
                    answers (problems_sha256 p)";
        assert!(text(&found).contains(&format!("note: {said}\n")), "{}", text(&found));
        assert!(markdown(&found, None).contains(&format!("\n- {said}\n")));

        start(&runs[3], ["q", "d", "d"]);
        refused(&runs, "sft.data.problems_sha256: p in mono-1, mono-2, dia-1; q in dia-2");
        refused(&[runs[0].clone(), runs[3].clone()], "sft.data.problems_sha256: p in mono-1; q in dia-2");
        for key in ["sft", "sft.data", "sft.data.problems_sha256"] {
            let found = compare(&runs, &allow(&[key])).unwrap();
            assert_eq!((names(&found).len(), found.warm_starts.same_problems), (3, Some(false)), "{key}");
            let said = text(&found);
            assert!(said.contains("the warm starts do not hold the same problems with the same answers; "), "{said}");
            let note = "the arms differ in sft.data.problems_sha256: p in smoke (monologue), smoke (dialogue); q in ";
            assert!(found.notes.iter().any(|said| said.starts_with(note)), "{:?}", found.notes);
        }
        let json = serde_json::to_value(compare(&runs, &allow(&["sft.data"])).unwrap()).unwrap();
        assert_eq!(json["warm_starts"]["problems"][1], json!({ "sha256": "q", "arms": ["smoke (dialogue) #2"] }));

        // What is not recorded differs from nothing, and is named.
        fs::remove_dir_all(runs[3].join("start")).unwrap();
        let found = compare(&runs, &Allowed::default()).unwrap();
        assert_eq!((names(&found).len(), found.warm_starts.same_problems), (2, None));
        let said = text(&found);
        assert!(said.contains("nothing shows which problems the warm starts of dia-2 hold"), "{said}");
        fs::write(runs[3].join("traces.json"), r#"{"rows": 1, "problems_sha256": "q"}"#).unwrap();
        refused(&runs, "sft.data.problems_sha256: p in mono-1, mono-2, dia-1; q in dia-2");
    }

    #[test]
    fn seeds_have_the_same_rows_where_they_should() {
        for keys in [
            // Of a file the first rows are read, whatever the seed.
            vec![("kind = \"solver\"", "kind = \"file\"\npath = \"rows.jsonl\"")],
            vec![("[sft]", "[sft]\nseed = 5")],
        ] {
            let folder = Folder::new();
            let runs = [folder.run("one", 1, &keys), folder.run("two", 2, &[&[SECOND], &keys[..]].concat())];
            start(&runs[0], ["p", "a", "v"]);
            // Weights that are trained on another machine are others.
            start(&runs[1], ["p", "a", "w"]);
            assert_eq!(names(&compare(&runs, &Allowed::default()).unwrap()), ["smoke"]);
            start(&runs[1], ["p", "b", "w"]);
            refused(&runs, "sft.data.traces_sha256: a in one; b in two");
            assert_eq!(names(&compare(&runs, &allow(&["sft.data"])).unwrap()), ["smoke", "smoke #2"]);
        }
    }

    #[test]
    fn a_finished_warm_start_is_what_it_was_and_how_it_was_trained() {
        let at = |word: &str| SMOKE.find(word).unwrap();
        let from = (&SMOKE[at("[sft]")..at("[ppo]")], "[sft]\nfrom = \"W\"\n\n");
        let folder = Folder::new();
        let runs = [folder.run("one", 1, &[from]), folder.run("two", 2, &[SECOND, from]), folder.run("own", 2, &[])];
        let record = |run: &Path, lr: f64, weights: &str| {
            let mut sft = Run::read(&runs[2]).unwrap().recipe.unwrap().sft.unwrap();
            sft.lr = lr;
            start(run, ["p", "a", weights]);
            let path = run.join("start").join(RECORD);
            let mut record: Value = json::read(&path).unwrap();
            record["sft"] = serde_json::to_value(sft).unwrap();
            fs::write(&path, record.to_string()).unwrap();
        };
        record(&runs[0], 1e-3, "v");
        record(&runs[1], 1e-3, "v");
        assert_eq!(names(&compare(&runs[..2], &Allowed::default()).unwrap()), ["smoke"]);
        // The keys that count are those of the start that is named, not those beside its name.
        assert_eq!(names(&compare(&runs, &Allowed::default()).unwrap()), ["smoke (W)", "smoke (warm start)"]);
        record(&runs[1], 1e-3, "w");
        refused(&runs[..2], "sft.from.weights_sha256: v in one; w in two");
        record(&runs[1], 0.5, "v");
        let said = refusal(compare(&runs, &Allowed::default()));
        assert!(said.contains("\n  sft.lr: 0.001 in one, own; 0.5 in two\n"), "{said}");
        // A model of somebody else's has no record, but the mark of the start has the sums of its files.
        for (run, weights) in runs.iter().zip(["v", "w"]) {
            write_folder(&run.join("start"), |dir| Ok(fs::write(dir.join("model.safetensors"), weights)?)).unwrap();
        }
        let [v, w] = ["v", "w"].map(|weights| hash(weights.as_bytes()));
        refused(&runs[..2], &format!("sft.from.weights_sha256: {v} in one; {w} in two"));
    }

    #[test]
    fn a_file_or_a_model_that_was_replaced_is_noticed() {
        let folder = Folder::new();
        let runs = [folder.run("one", 1, &[]), folder.run("two", 2, &[SECOND])];
        history(&runs[0], &[("task.train_file", "a", Some("v")), ("task.train_file", "a", None)]);
        for (two, line) in [
            (&[("task.train_file", "b", Some("v"))][..], "task.train_file.sha256: a in one; b in two"),
            (
                &[("task.train_file", "a", Some("v")), ("task.train_file", "b", None)],
                "task.train_file.sha256: a in one; a then b in two",
            ),
            (&[("task.train_file", "a", Some("w"))], "model.path.weights_sha256: v in one; w in two"),
        ] {
            history(&runs[1], two);
            refused(&runs, line);
            let key = line.split('.').next().unwrap();
            assert_eq!(names(&compare(&runs, &allow(&[key])).unwrap()), ["smoke", "smoke #2"]);
        }
        // What cannot change a number, what the record of the start says better, and what is not known.
        for two in [
            &[("hooks.persona.template", "x", Some("v"))][..],
            &[("sft.data.path", "x", Some("v"))],
            &[("task.train_file", "a", None)],
            &[],
        ] {
            history(&runs[1], two);
            assert_eq!(names(&compare(&runs, &Allowed::default()).unwrap()), ["smoke"], "{two:?}");
        }
    }
}
