//! Folders that appear whole: filled under a temporary name, synced, marked COMPLETE, renamed.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MARK: &str = "COMPLETE";
const PARTIAL: &str = ".partial-";

/// Fills a new folder by `fill` and puts it at `target`, or leaves nothing behind.
///
/// # Errors
/// Those of `fill` and of the file system; `target` is then as it was.
pub fn write_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match target.parent().context("a folder needs a name")? {
        here if here.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // The temporary folder removes itself on every way out but the last line.
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent)?;
    fill(partial.path())?;
    fs::write(partial.path().join(MARK), "")?;
    sync(partial.path())?;
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    fs::rename(partial.path(), target).with_context(|| format!("cannot write {}", target.display()))?;
    // Its folder has moved away: there is nothing to remove.
    let _ = partial.keep();
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// Writes a file that is either the old one or the new one, whatever happens meanwhile.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        // As readable as any other file of ours: temporary ones are their owner's alone.
        let mode = std::fs::Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new().prefix(PARTIAL).permissions(mode).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// `write_folder` for other programs, which do not know the mark.
pub fn write_unmarked(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    write_folder(target, fill)?;
    Ok(fs::remove_file(target.join(MARK))?)
}

/// Copies the files of a model's folder into a new one, whole or not at all.
pub fn export(source: &Path, target: &Path) -> Result<()> {
    write_unmarked(target, |dir| {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), dir.join(entry.file_name()))?;
            }
        }
        Ok(())
    })
}

/// Brings every file and folder below `dir` to the disk.
fn sync(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { File::open(&path)?.sync_all()? }
    }
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// Removes what a killed process left half written.
pub fn sweep(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether `write_folder` has put a folder there.
pub fn is_complete(folder: &Path) -> bool {
    folder.join(MARK).exists()
}

/// The folder of a step's checkpoint.
pub fn step_dir(run: &Path, step: usize) -> PathBuf {
    run.join(format!("step_{step:06}"))
}

/// The complete checkpoints of a run, oldest first.
pub fn list(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    if !run.exists() {
        return Ok(vec![]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(run).with_context(|| format!("cannot read {}", run.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(Ok(step)) = name.strip_prefix("step_").map(str::parse)
            && is_complete(&path)
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest complete checkpoint of a run.
pub fn latest(run: &Path) -> Result<Option<(usize, PathBuf)>> {
    Ok(list(run)?.pop())
}

/// Removes all checkpoints but the newest `keep` and that of step `best`.
pub fn prune(run: &Path, keep: usize, best: Option<usize>) -> Result<()> {
    let mut all = list(run)?;
    all.truncate(all.len().saturating_sub(keep));
    for (step, path) in all {
        if Some(step) != best {
            // Without its mark it is no checkpoint any more, whatever interrupts the removal.
            fs::remove_file(path.join(MARK))?;
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(run: &Path) -> Vec<usize> {
        list(run).unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_the_old_folder_stands() {
        let run = tempfile::tempdir().unwrap();
        let target = step_dir(run.path(), 1);
        write_folder(&target, |dir| Ok(fs::write(dir.join("a"), "old")?)).unwrap();
        let failed = write_folder(&target, |dir| {
            fs::write(dir.join("a"), "new")?;
            anyhow::bail!("disk full")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "old");
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
    }

    #[test]
    fn incomplete_folders_are_no_checkpoints_and_pruning_keeps_the_best() {
        let run = tempfile::tempdir().unwrap();
        for step in [10, 20, 30, 40] {
            write_folder(&step_dir(run.path(), step), |_| Ok(())).unwrap();
        }
        fs::create_dir(step_dir(run.path(), 50)).unwrap();
        fs::create_dir(run.path().join(".partial-x")).unwrap();
        fs::write(run.path().join(".partial-y"), "half a file").unwrap();
        sweep(run.path()).unwrap();
        assert!(!run.path().join(".partial-x").exists() && !run.path().join(".partial-y").exists());
        assert_eq!(latest(run.path()).unwrap().unwrap().0, 40);
        prune(run.path(), 2, Some(10)).unwrap();
        assert_eq!(steps(run.path()), [10, 30, 40]);
    }
}
