//! `history.jsonl` in a run's folder: a line for each process that has worked on the run, with what is needed to repeat
//! its part: the program, the machine, the command, and the hashes of what it read. The folder of a run shows by itself
//! how it came about.
//!
//! Decided: the program is known by the SHA-256 of its file, since a version or a commit does not tell one build from
//! another; that results are equal to the bit is promised of the same build alone. Secrets are not here: of the
//! environment only the variables that choose kernels are kept, and keys come from nowhere else.

use super::warm_start::weights_sha256;
use crate::checkpoint::{Checkpoint, RunFolder};
use crate::files::{append_line, program_file};
use crate::hash::{hash, hash_of_files};
use crate::metrics::Stage;
use crate::plan::Plan;
use crate::terminal;
use crate::torch::Machine;
use crate::{WHOLE, read_text};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the processes of one command worked with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sitting {
    /// When it began, in seconds since 1970.
    pub time: f64,
    /// The step that it continued after; none if it began the run.
    pub after: Option<After>,
    /// As it was called, and where.
    pub command: Vec<String>,
    pub working_folder: String,
    pub program: Program,
    pub machine: Machine,
    /// Ranks that shared the work.
    #[serde(default = "one")]
    pub processes: usize,
    /// Of the recipe with its overrides, as in `recipe.toml`.
    pub recipe_sha256: String,
    /// Of the files that the recipe names, by key.
    pub files_sha256: BTreeMap<String, String>,
    pub model: ModelHashes,
}

/// Of a run that does not say how many.
fn one() -> usize {
    1
}

/// A step of a stage: `sft`, or `ppo`, or `evaluation` if the step was evaluated too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub stage: String,
    pub step: u64,
}

/// A build of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub version: String,
    /// The commit that it was built from, with `-changed` if files had been changed since; `unknown` if it was not
    /// built as a release in a clone of the repository.
    pub commit: String,
    pub sha256: String,
}

/// What the run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelHashes {
    pub config_sha256: String,
    pub tokenizer_sha256: String,
    /// Of all its files of weights in the order of their names; none if the process did not read them.
    pub weights_sha256: Option<String>,
}

impl Program {
    /// This one.
    pub fn this() -> Self {
        let own = program_file().and_then(|file| hash_of_files([file]));
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("PPO_TRAIN_COMMIT").into(),
            sha256: own.unwrap_or_else(|_| "unknown".into()),
        }
    }

    fn shown(&self) -> String {
        format!("{} {}", self.version, self.commit.get(..12).unwrap_or(&self.commit))
    }
}

impl Sitting {
    /// This process's, which continues a run after a step or begins it, once everything that it reads is hashed: half
    /// a gigabyte with a model of 135 million weights.
    fn of(
        plan: &Plan,
        folder: &RunFolder,
        after: Option<(Stage, u64)>,
        processes: usize,
    ) -> impl FnOnce() -> Result<Self> + Send + use<> {
        let (recipe, text, tokenizer) = (plan.recipe.clone(), plan.text.clone(), plan.tokenizer_dir.clone());
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let reads_weights = !recipe.model.random_weights && folder.complete(0).is_none();
        // The number of threads is that of this thread.
        let machine = Machine::here(&recipe.machine.device);
        move || {
            let mut files = BTreeMap::new();
            collect("", &serde_json::to_value(&recipe)?, &mut files);
            let model = &recipe.model.path;
            Ok(Self {
                time,
                after: after.map(|(stage, step)| After { stage: stage.name().into(), step }),
                command: std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect(),
                working_folder: std::env::current_dir()
                    .map_or_else(|_| "unknown".into(), |dir| dir.display().to_string()),
                program: Program::this(),
                machine,
                processes,
                recipe_sha256: hash(text.as_bytes()),
                files_sha256: files,
                model: ModelHashes {
                    config_sha256: hash_of_files([model.join("config.json")])?,
                    tokenizer_sha256: hash_of_files([tokenizer.join("tokenizer.json")])?,
                    weights_sha256: if reads_weights { Some(weights_sha256(model)?) } else { None },
                },
            })
        }
    }

    /// How this one differs from an earlier one of the same run in what results depend on.
    pub fn differences(&self, earlier: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.program.sha256 != earlier.program.sha256 {
            let (now, before) = (self.program.shown(), earlier.program.shown());
            found.push(format!("another build of ppo-train ({now}, was {before})"));
        }
        found.extend(earlier.machine.differences(&self.machine));
        if self.processes != earlier.processes {
            found.push(format!("processes {} (was {})", self.processes, earlier.processes));
        }
        for (key, sha256) in &self.files_sha256 {
            if earlier.files_sha256.get(key).is_some_and(|before| before != sha256) {
                found.push(format!("another content of {key}"));
            }
        }
        for (name, now, before) in [
            ("configuration", &self.model.config_sha256, &earlier.model.config_sha256),
            ("tokenizer", &self.model.tokenizer_sha256, &earlier.model.tokenizer_sha256),
        ] {
            if now != before {
                found.push(format!("another {name} of the model"));
            }
        }
        found
    }
}

/// The hashes of the files that a recipe names, each under its key.
fn collect(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(keys) => {
            for (name, value) in keys {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(&inner, value, found);
            }
        }
        Value::String(text) if Path::new(text).is_file() => {
            if let Ok(sha256) = hash_of_files([text]) {
                found.insert(key.to_string(), sha256);
            }
        }
        _ => {}
    }
}

/// The line of a process, which is being written; when this is dropped, it is.
pub struct Recording(Option<JoinHandle<()>>);

impl Drop for Recording {
    fn drop(&mut self) {
        // What went wrong has been said.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// Adds this process to the history of a run that it begins or continues `after` a step, in a thread of its own, or at
/// once if there can be none. If what it works with is not what the process before it worked with, the difference is
/// said in one line.
pub fn record(plan: &Plan, folder: &RunFolder, after: Option<(Stage, u64)>, processes: usize) -> Recording {
    let earlier = read(folder).pop().filter(|_| after.is_some());
    in_a_thread(thread::Builder::new().name("history".into()), || {
        let (sitting, file) = (Sitting::of(plan, folder, after, processes), folder.history());
        let earlier = earlier.clone();
        move || add(sitting, earlier, &file)
    })
}

/// Does what `work` makes in a thread, or here if the system has no more threads.
fn in_a_thread<W: FnOnce() + Send + 'static>(thread: thread::Builder, work: impl Fn() -> W) -> Recording {
    let begun = thread.spawn(work());
    if begun.is_err() {
        work()();
    }
    Recording(begun.ok())
}

fn add(sitting: impl FnOnce() -> Result<Sitting>, earlier: Option<Sitting>, file: &Path) {
    let added = sitting().and_then(|sitting| {
        let differences = earlier.map_or(vec![], |earlier| sitting.differences(&earlier));
        if !differences.is_empty() {
            let list = differences.join(", ");
            terminal::warn(&format!(
                "note: the run goes on with {list}: from here on its results are not bit-equal to those of a run that \
                 was not interrupted"
            ));
        }
        append_line(file, &serde_json::to_string(&sitting)?)
    });
    // The history of a run is no reason to end it.
    if let Err(error) = added {
        terminal::warn(&format!("warning: the run's history is not complete: {error:#}"));
    }
}

/// The history of a run; lines that are not ours are passed over.
pub fn read(folder: &RunFolder) -> Vec<Sitting> {
    sittings(&read_text(&folder.history(), WHOLE).unwrap_or_default())
}

/// The lines of a history that are ours.
pub fn sittings(text: &str) -> Vec<Sitting> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Who worked on a step of PPO: the last process that continued after an earlier one.
pub fn of_step(folder: &RunFolder, step: u64) -> Option<Sitting> {
    let before = |sitting: &Sitting| sitting.after.as_ref().is_none_or(|at| at.stage == "sft" || at.step < step);
    read(folder).into_iter().rfind(before)
}

/// The recipe in force at a step, as far as the folder knows: that of the first checkpoint from there on, or else the
/// run's own.
pub fn recipe_of_step(folder: &RunFolder, step: usize) -> Result<std::path::PathBuf> {
    let saved = folder.checkpoints()?.into_iter().find(|checkpoint| checkpoint.step >= step);
    Ok(saved.as_ref().map_or_else(|| folder.recipe(), Checkpoint::recipe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn without_a_thread_the_line_is_written_at_once() {
        let done = Arc::new(AtomicUsize::new(0));
        let work = || {
            let done = done.clone();
            move || {
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        drop(in_a_thread(thread::Builder::new(), work));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        // No system has that much memory for a stack.
        let refused = in_a_thread(thread::Builder::new().stack_size(1 << 60), work);
        assert!(refused.0.is_none() && done.load(Ordering::Relaxed) == 2);
    }
}
