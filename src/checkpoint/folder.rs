//! Folders that appear complete or not at all: filled under a temporary name, synced, marked COMPLETE, renamed.

use crate::files::PARTIAL;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::Path;

pub(super) const MARK: &str = "COMPLETE";

/// Fills a new folder with `fill` and moves it to `target`, or leaves nothing behind.
///
/// # Errors
/// Those of `fill` and of the file system; `target` is then as it was.
pub fn write_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match target.parent().context("a folder needs a name")? {
        here if here.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // The temporary folder is removed however this function returns, unless it is renamed below.
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent)?;
    fill(partial.path())?;
    fs::write(partial.path().join(MARK), "")?;
    sync(partial.path())?;
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    fs::rename(partial.path(), target).with_context(|| format!("cannot write {}", target.display()))?;
    // The folder has been renamed: there is nothing to remove.
    let _ = partial.keep();
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// Puts the files of a folder into a new one, by hard links where the file system has them.
pub fn link_folder(source: &Path, target: &Path) -> Result<()> {
    write_folder(target, |dir| {
        for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
            let entry = entry?;
            let to = dir.join(entry.file_name());
            if entry.file_type()?.is_file() && entry.file_name() != MARK && fs::hard_link(entry.path(), &to).is_err() {
                fs::copy(entry.path(), to)?;
            }
        }
        Ok(())
    })
}

/// Syncs every file and folder below `dir` to disk.
fn sync(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync(&path)? } else { File::open(&path)?.sync_all()? }
    }
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// Whether `write_folder` has put a folder there.
pub fn is_complete(folder: &Path) -> bool {
    folder.join(MARK).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_but_the_old_folder() {
        let run = tempfile::tempdir().unwrap();
        let target = run.path().join("step_000001");
        write_folder(&target, |dir| Ok(fs::write(dir.join("a"), "old")?)).unwrap();
        let failed = write_folder(&target, |dir| {
            fs::write(dir.join("a"), "new")?;
            anyhow::bail!("disk full")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "old");
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
    }
}
