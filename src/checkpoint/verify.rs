//! Whether a folder still has the files that were written.

use super::folder::is_complete;
use super::run_folder::{Checkpoint, RECORD, RunFolder};
use super::sums::{MARK, Sum, Sums, collect, hashes};
use crate::{bad, json, terminal, torch};
use anyhow::{Context, Result};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Files of a damaged folder that are named.
const NAMED: usize = 3;

/// What has become of a folder since it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Whole,
    /// An older version wrote it, without checksums: no more is known than that weights have their length.
    Unchecked,
    /// The files that are not what they were, and how.
    Damaged(String),
}

/// Compares the files of a complete folder with its mark. `parts`: only these of its files and folders; none: all.
///
/// # Errors
/// A file that may not be read, which is not damage.
pub fn verify(folder: &Path, parts: &[&str]) -> Result<Verdict> {
    let wanted = |path: &Path| parts.is_empty() || parts.iter().any(|part| path.starts_with(part));
    let sums = match Sums::stored(folder) {
        Ok(Some(Sums(sums))) => sums,
        Ok(None) => return lengths(folder, wanted),
        Err(error) => {
            return of_reading(&folder.join(MARK), error).map(|what| Verdict::Damaged(format!("{MARK}: {what}")));
        }
    };
    let sums: Vec<Sum> = sums.into_iter().filter(|sum| wanted(Path::new(&sum.path))).collect();
    let paths: Vec<PathBuf> = sums.iter().map(|sum| folder.join(&sum.path)).collect();
    let mut wrong = Vec::new();
    for (sum, path) in sums.iter().zip(&paths) {
        match fs::metadata(path) {
            Ok(file) if file.len() == sum.bytes && file.is_file() => {}
            Ok(file) if file.is_file() => {
                wrong.push(format!("{} has {} bytes, {} were written", sum.path, file.len(), sum.bytes));
            }
            Ok(_) => wrong.push(format!("{} is not a file", sum.path)),
            Err(error) => wrong.push(format!("{}: {}", sum.path, of_reading(path, error.into())?)),
        }
    }
    // What has another size need not be read.
    if wrong.is_empty() {
        for ((sum, path), hash) in sums.iter().zip(&paths).zip(hashes(&paths)) {
            match hash {
                Ok(hash) if hash == sum.sha256 => {}
                Ok(_) => wrong.push(format!("{} has other bytes than were written", sum.path)),
                Err(error) => wrong.push(format!("{}: {}", sum.path, of_reading(path, error.into())?)),
            }
        }
    }
    Ok(verdict(&wrong))
}

fn verdict(wrong: &[String]) -> Verdict {
    let more = wrong.len().saturating_sub(NAMED);
    let named = wrong[..wrong.len() - more].join("; ");
    match (wrong, more) {
        ([], _) => Verdict::Whole,
        (_, 0) => Verdict::Damaged(named),
        _ => Verdict::Damaged(format!("{named}; and {more} more")),
    }
}

/// What is known of a folder without checksums: whether its weights end where their heads say.
fn lengths(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Verdict> {
    let mut paths = Vec::new();
    collect(folder, &mut paths).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut wrong = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")) {
        let name = path.strip_prefix(folder)?;
        let read = || -> Result<()> { Ok(SafeTensors::deserialize(&torch::map(path)?).map(drop)?) };
        if let (true, Err(error)) = (wanted(name), read()) {
            wrong.push(format!("{}: {}", name.display(), of_reading(path, error)?));
        }
    }
    Ok(if wrong.is_empty() { Verdict::Unchecked } else { verdict(&wrong) })
}

/// An error in reading a file as words about its damage.
///
/// # Errors
/// Itself, if this user may not read the file.
fn of_reading(path: &Path, error: anyhow::Error) -> Result<String> {
    let kind = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
    match kind {
        Some(ErrorKind::PermissionDenied) => Err(error.context(format!("cannot read {}", path.display()))),
        Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok("it is missing".into()),
        _ => Ok(format!("{error:#}")),
    }
}

/// Refuses a checkpoint or a run's start, or a folder within one, that is not complete, or whose files are not those
/// that were written. `parts`: only these of its files and folders are read; none: all. Any other folder of a model is
/// not judged.
///
/// # Errors
/// Bad input: the mark that is missing; the file that is damaged, and how. A file that may not be read.
pub fn ensure_whole(folder: &Path, parts: &[&str]) -> Result<()> {
    let shown = folder.display();
    let verdict = match folder.canonicalize() {
        _ if is_complete(folder) => verify(folder, parts)?,
        Ok(real) => match (real.parent(), real.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) if is_complete(parent) => verify(parent, &[name])?,
            (parent, name) => {
                let parent = parent.filter(|parent| matches!(name, Some("model" | "critic")) && is_saved(parent));
                return match parent.or_else(|| Some(&*real).filter(|real| is_saved(real))) {
                    None => Ok(()),
                    Some(unmarked) => Err(bad!(
                        "{} is not complete: it has no {MARK}, which is written last; take another checkpoint, or copy \
                         it once more",
                        unmarked.display()
                    )),
                };
            }
        },
        // What reads it will say so.
        Err(_) => return Ok(()),
    };
    match verdict {
        Verdict::Whole => Ok(()),
        Verdict::Unchecked => {
            terminal::warn(&format!("note: {shown} was written without checksums: its files cannot be checked"));
            Ok(())
        }
        Verdict::Damaged(what) => Err(bad!("{shown} is damaged: {what}")),
    }
}

/// Whether a folder was made by a run that saves, and not by anybody else: what it holds says so, or its place, which
/// is that of a start or a checkpoint beside a recipe and what only our runs write.
fn is_saved(folder: &Path) -> bool {
    let run = RunFolder::new(folder.parent().unwrap_or(Path::new("")));
    let (is_start, step) = (folder == run.start(), run.step_of(folder));
    let own = is_start || step.is_some_and(|step| folder == run.step(step).path());
    let traces = || is_start && folder.join(RECORD).is_file() || run.history().is_file() || run.heartbeat().is_file();
    is_state(&Checkpoint::at(folder).state()) || own && run.recipe().is_file() && traces()
}

/// Whether a file is the state of a run or of a warm start; others have files of that name, too.
fn is_state(path: &Path) -> bool {
    path.is_file()
        && json::read::<Value>(path).is_ok_and(|state| {
            state["sft_steps"].is_u64() || state["step"].is_u64() && state["kl_coefficient"].is_number()
        })
}

#[cfg(test)]
mod tests {
    use super::super::{link_folder, write_folder};
    use super::*;

    type Harm<'a> = &'a dyn Fn(&Path);

    /// A complete folder with files of all kinds.
    fn folder(dir: &Path) -> PathBuf {
        let target = dir.join("step_000001");
        write_folder(&target, |dir| {
            fs::create_dir(dir.join("model"))?;
            fs::write(dir.join("model/config.json"), "{}")?;
            fs::write(dir.join("model/model.safetensors"), vec![7; 100_000])?;
            fs::write(dir.join("empty"), "")?;
            Ok(fs::write(dir.join("state.json"), "{\"step\": 1}")?)
        })
        .unwrap();
        target
    }

    fn damage(folder: &Path, parts: &[&str]) -> String {
        match verify(folder, parts).unwrap() {
            Verdict::Damaged(what) => what,
            verdict => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn every_kind_of_damage_is_found_and_its_file_named() {
        let flip = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[50_000] ^= 1;
            fs::write(path, bytes).unwrap();
        };
        let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[1..]).unwrap();
        let cases: [(&str, Harm, &str); 7] = [
            ("model/model.safetensors", &flip, "model/model.safetensors has other bytes than were written"),
            ("state.json", &cut, "state.json has 10 bytes, 11 were written"),
            ("state.json", &|path| fs::write(path, "").unwrap(), "state.json has 0 bytes, 11 were written"),
            ("model/config.json", &|path| fs::remove_file(path).unwrap(), "model/config.json: it is missing"),
            ("model", &|path| fs::remove_dir_all(path).unwrap(), "model/model.safetensors: it is missing"),
            ("COMPLETE", &cut, "COMPLETE: it is cut off"),
            ("COMPLETE", &|path| fs::write(path, [0; 80]).unwrap(), "COMPLETE: it is cut off"),
        ];
        for (file, harm, what) in cases {
            let dir = tempfile::tempdir().unwrap();
            let folder = folder(dir.path());
            assert_eq!(verify(&folder, &[]).unwrap(), Verdict::Whole);
            harm(&folder.join(file));
            assert!(damage(&folder, &[]).contains(what), "{file}: {}", damage(&folder, &[]));
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        flip(&folder.join("model/model.safetensors"));
        assert_eq!(verify(&folder, &["state.json", "empty"]).unwrap(), Verdict::Whole);
        assert!(damage(&folder, &["model"]).starts_with("model/model.safetensors "));
    }

    #[test]
    fn a_folder_without_checksums_is_only_measured() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        fs::write(folder.join(MARK), "").unwrap();
        assert!(damage(&folder, &[]).starts_with("model/model.safetensors: "));
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama_tiny/model.safetensors");
        fs::copy(golden, folder.join("model/model.safetensors")).unwrap();
        assert_eq!(verify(&folder, &[]).unwrap(), Verdict::Unchecked);
    }

    #[test]
    fn a_link_to_a_damaged_file_is_known_as_one() {
        let run = tempfile::tempdir().unwrap();
        let [first, second, third] = ["first", "second", "third"].map(|name| run.path().join(name));
        write_folder(&first, |dir| Ok(fs::write(dir.join("weights"), "right")?)).unwrap();
        link_folder(&first, &second).unwrap();
        assert_eq!(fs::read(first.join(MARK)).unwrap(), fs::read(second.join(MARK)).unwrap());
        ensure_whole(&second, &[]).unwrap();
        fs::write(second.join("weights"), "wrong").unwrap();
        link_folder(&second, &third).unwrap();
        for folder in [&first, &second, &third] {
            let error = ensure_whole(folder, &[]).unwrap_err();
            assert!(error.to_string().ends_with("is damaged: weights has other bytes than were written"), "{error}");
        }
        // What was never marked is marked as it is.
        fs::remove_file(third.join(MARK)).unwrap();
        link_folder(&third, &first).unwrap();
        ensure_whole(&first, &[]).unwrap();
    }

    #[test]
    fn what_a_run_saved_is_complete_or_refused() {
        let run = tempfile::tempdir().unwrap();
        let inside = |name: &str| run.path().join(name);
        let names = ["step_000001/model", "step_7", "start", "copy/critic", "copy/other", "exported/model", "model"];
        for name in names.into_iter().chain(["warm/model", "agent/model"]) {
            fs::create_dir_all(inside(name)).unwrap();
        }
        fs::write(inside("copy/state.json"), r#"{"step": 3, "kl_coefficient": 0.1}"#).unwrap();
        fs::write(inside("warm/state.json"), r#"{"sft_steps": 3}"#).unwrap();
        // Somebody else's.
        fs::write(inside("agent/state.json"), r#"{"step": 3, "mood": "good"}"#).unwrap();
        fs::write(inside("state.json"), "[]").unwrap();
        fs::write(inside("recipe.toml"), "").unwrap();
        let refused = |name: &str| ensure_whole(&inside(name), &[]).err().map(|error| error.to_string());
        for name in names.into_iter().filter(|name| *name != "copy/critic").chain(["agent", "agent/model"]) {
            assert_eq!(refused(name), None, "{name}");
        }
        fs::write(inside("start").join(RECORD), "{}").unwrap();
        assert!(refused("start").is_some() && refused("step_000001").is_none());
        fs::remove_file(inside("start").join(RECORD)).unwrap();
        fs::write(inside("heartbeat.json"), "{}").unwrap();
        for (name, unmarked) in [
            ("step_000001", "step_000001"),
            ("step_000001/model", "step_000001"),
            ("step_000001/../start/.", "start"),
            ("copy", "copy"),
            ("copy/critic", "copy"),
            ("warm/model", "warm"),
        ] {
            let error = refused(name).unwrap();
            let expected = format!("{} is not complete: it has no COMPLETE", inside(unmarked).display());
            assert!(error.starts_with(&expected), "{error}");
        }
        // Models of others may have any place and name.
        for name in ["step_7", "copy/other", "exported", "exported/model", "model", "agent", "agent/model", "none"] {
            assert_eq!(refused(name), None, "{name}");
        }
        fs::remove_file(inside("recipe.toml")).unwrap();
        assert_eq!(refused("start"), None);
    }
}
