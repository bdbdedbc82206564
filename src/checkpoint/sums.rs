//! What is written last into a folder: the size and the SHA-256 of each of its files, so that damage is found before it
//! is used.
//!
//! Decided: a text that `sha256sum --check COMPLETE` reads too, with the sizes in its comments. A core hashes about
//! 0.9 GB/s (measured on an EPYC with SHA instructions that had other work too), and each file has its own thread: the
//! largest file of a checkpoint of 40 GB, its optimizer of 26 GB, takes half a minute. When a folder is written, the
//! disk takes its files in meanwhile.

use crate::hash::hash_of_files;
use crate::{WHOLE, read_text};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The file that makes a folder a complete one.
pub(super) const MARK: &str = "COMPLETE";
/// Most files that are hashed at the same time.
const THREADS: usize = 4;

/// A file: its path in the folder, its size and its hash.
#[derive(Debug, PartialEq, Eq)]
pub struct Sum {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

/// The files of a folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Sums(pub Vec<Sum>);

impl Sums {
    /// Those of a folder as it is, but for its mark.
    pub fn of(dir: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        collect(dir, &mut paths).with_context(|| format!("cannot read {}", dir.display()))?;
        paths.retain(|path| *path != dir.join(MARK));
        paths.sort();
        let sum = |(path, hash): (&PathBuf, io::Result<String>)| -> Result<Sum> {
            let read = || format!("cannot read {}", path.display());
            let name = path.strip_prefix(dir)?.to_str().filter(|name| !name.contains('\n'));
            let name = name.with_context(|| format!("{} is not a name for a file here", path.display()))?;
            let bytes = fs::metadata(path).with_context(read)?.len();
            Ok(Sum { path: name.to_string(), bytes, sha256: hash.with_context(read)? })
        };
        let hashes = hashes(&paths);
        Ok(Self(paths.iter().zip(hashes).map(sum).collect::<Result<_>>()?))
    }

    /// Those that a folder's mark holds; `None`: an older version wrote an empty one.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn stored(dir: &Path) -> Result<Option<Self>> {
        let text = read_text(&dir.join(MARK), WHOLE)?;
        if text.is_empty() { Ok(None) } else { Self::parse(&text).map(Some) }
    }

    /// The text of a mark.
    pub fn text(&self) -> String {
        let mut text = format!("# {} files; `sha256sum --check {MARK}` compares them\n", self.0.len());
        for Sum { path, bytes, sha256 } in &self.0 {
            let _ = write!(text, "# {bytes} bytes\n{sha256}  {path}\n");
        }
        text
    }

    /// Those in the text of a mark.
    ///
    /// # Errors
    /// It is something else, or cut off.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let head =
            lines.next().and_then(|line| line.strip_prefix("# ")?.split_once(" files;")?.0.parse::<usize>().ok());
        let mut sums = Vec::new();
        while let Some(line) = lines.next() {
            let bytes = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" bytes")?.parse().ok());
            let sum = lines.next().and_then(|line| line.split_once("  "));
            let (Some(bytes), Some((sha256, path))) = (bytes, sum) else { bail!("it is not a list of checksums") };
            let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(is_inside && sha256.len() == 64, "it is not a list of checksums");
            sums.push(Sum { path: path.into(), bytes, sha256: sha256.into() });
        }
        ensure!(head == Some(sums.len()) && text.ends_with('\n'), "it is cut off");
        Ok(Self(sums))
    }

    /// Whether all files are in the folder itself.
    pub fn are_flat(&self) -> bool {
        self.0.iter().all(|sum| !sum.path.contains('/'))
    }
}

/// The files below a folder.
pub(super) fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// The hashes of files, several at a time, in their order.
pub(super) fn hashes(paths: &[PathBuf]) -> Vec<io::Result<String>> {
    let size = |at: &usize| fs::metadata(&paths[*at]).map_or(0, |file| file.len());
    // The largest first, since it takes longest.
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_by_cached_key(|at| std::cmp::Reverse(size(at)));
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || order.get(next.fetch_add(1, Ordering::Relaxed)).copied();
        std::iter::from_fn(take).map(|at| (at, hash_of_files([&paths[at]]))).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(paths.len());
    let mut all: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: thread::ScopedJoinHandle<_>| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        running.into_iter().flat_map(join).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, hash)| hash).collect()
}

#[cfg(test)]
mod tests {
    use super::super::write_folder;
    use super::*;
    use std::process::Command;

    #[test]
    fn a_mark_is_read_back_and_by_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        write_folder(&folder, |dir| {
            fs::create_dir(dir.join("model"))?;
            fs::write(dir.join("model/config.json"), "{}")?;
            fs::write(dir.join("empty"), "")?;
            Ok(fs::write(dir.join("state.json"), "{\"step\": 1}")?)
        })
        .unwrap();
        let sums = Sums::of(&folder).unwrap();
        assert_eq!(Sums::stored(&folder).unwrap().unwrap(), sums);
        let paths: Vec<&str> = sums.0.iter().map(|sum| sum.path.as_str()).collect();
        assert_eq!(paths, ["empty", "model/config.json", "state.json"]);
        let check = Command::new("sha256sum").args(["--check", "--strict", MARK]).current_dir(&folder).output();
        assert!(check.unwrap().status.success());
        let outside = sums.text().replace("  state.json", "  ../state.json");
        assert!(Sums::parse(&outside).is_err());
        // Whatever line is lost, the list is not shorter in silence.
        for lost in 0..7 {
            let lines = sums
                .text()
                .lines()
                .enumerate()
                .filter(|(at, _)| *at != lost)
                .map(|(_, l)| format!("{l}\n"))
                .collect::<String>();
            assert!(Sums::parse(&lines).is_err(), "{lines}");
        }
    }
}
