//! Folders that appear complete or not at all: filled under a temporary name, synced, marked COMPLETE with the
//! checksums of their files, renamed.

use super::files::{copy_file, write_text};
use super::sums::{MARK, Sums};
use crate::files::PARTIAL;
use crate::terminal;
use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::thread;

/// Fills a new folder with `fill`, marks it as complete and moves it to `target`, or leaves nothing behind.
///
/// # Errors
/// Those of `fill` and of the file system; `target` is then as it was.
pub fn write_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    place(target, |dir| {
        fill(dir)?;
        // The files are hashed while the disk takes them in.
        let sums = thread::scope(|scope| {
            let synced = scope.spawn(|| sync(dir));
            let sums = Sums::of(dir);
            synced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(sums)
        })?;
        mark(dir, &sums)
    })
}

fn mark(dir: &Path, sums: &Sums) -> Result<()> {
    write_text(&dir.join(MARK), &sums.text())
}

/// Fills a new folder with `fill`, syncs it and moves it to `target`, or leaves nothing behind. A folder that is there
/// already is replaced.
///
/// # Errors
/// As `write_folder`.
pub fn place(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match target.parent().context("a folder needs a name")? {
        here if here.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // The temporary folder is removed however this function returns, unless it is renamed below.
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent);
    let partial = partial.with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    fill(partial.path())?;
    sync(partial.path())?;
    let swap = || renameat_with(CWD, partial.path(), CWD, target, RenameFlags::EXCHANGE).is_ok();
    if !(target.exists() && swap()) {
        // Not every file system can exchange two folders.
        let moved = fs::remove_dir_all(target).or_else(absent).and_then(|()| fs::rename(partial.path(), target));
        moved.with_context(|| format!("cannot write {}", target.display()))?;
        // There is nothing to remove; otherwise it is the old folder that is removed now.
        let _ = partial.keep();
    }
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// What is not there need not be removed.
fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Puts the files of a folder into a new one, by hard links where the file system has them, with the checksums that the
/// folder had: a link to a damaged file is known as one.
pub fn link_folder(source: &Path, target: &Path) -> Result<()> {
    let known = if is_complete(source) { Sums::stored(source)?.filter(Sums::are_flat) } else { None };
    let link = |dir: &Path| {
        for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
            let entry = entry?;
            let to = dir.join(entry.file_name());
            if entry.file_type()?.is_file() && entry.file_name() != MARK && fs::hard_link(entry.path(), &to).is_err() {
                copy_file(&entry.path(), &to)?;
            }
        }
        Ok(())
    };
    match known {
        None => write_folder(target, link),
        Some(sums) => place(target, |dir| {
            link(dir)?;
            mark(dir, &sums)
        }),
    }
}

/// Goes on without something that could not be saved because of the disk, be it full, gone or broken, and says so;
/// returns whether it was saved.
///
/// # Errors
/// Those that another disk would not help against.
pub fn tolerate(saved: Result<()>, otherwise: &str) -> Result<bool> {
    match saved {
        Ok(()) => Ok(true),
        Err(error) if is_of_disk(&error) => {
            terminal::warn(&format!("warning: {otherwise}: {error:#}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether the disk was at fault, be it full, gone or broken.
fn is_of_disk(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<io::Error>())
}

/// Whether the disk had no room, which may come back. A file that may not grow counts, since a limit on the size of
/// files stands in for a full disk in the tests (`tests/it/disk.rs`): not every user may mount a small disk.
pub fn is_of_room(error: &anyhow::Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    let said = |error: &io::Error| error.raw_os_error().is_some() && full.contains(&error.kind());
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(said)
}

/// Syncs every file and folder below `dir` to disk.
fn sync(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let synced = || File::open(&path)?.sync_all();
        if path.is_dir() {
            sync(&path)?
        } else {
            synced().with_context(|| format!("cannot write {}", path.display()))?
        }
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
        write_folder(&target, |dir| Ok(fs::write(dir.join("b"), "new")?)).unwrap();
        assert!(target.join("b").exists() && !target.join("a").exists());
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
    }
}
