//! Files that are the old one or the new one, whatever happens.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How the names of files and folders begin that are not finished.
pub const PARTIAL: &str = ".partial-";

/// The program that this process runs, to start it once more: the very file that was started, whatever is at its path
/// by now; where the system does not have that, its path. That of a package is what starts it (scripts/launcher.c).
///
/// # Errors
/// The system does not say.
pub fn program() -> std::io::Result<PathBuf> {
    if let Some(launcher) = launcher() {
        return Ok(launcher);
    }
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_path_buf()) } else { std::env::current_exe() }
}

/// The path of the program, to start it later or on another machine.
///
/// # Errors
/// The system does not say.
pub fn program_path() -> std::io::Result<PathBuf> {
    launcher().map_or_else(std::env::current_exe, Ok)
}

/// The file of the program's own code.
///
/// # Errors
/// The system does not say.
pub fn program_file() -> std::io::Result<PathBuf> {
    match launcher() {
        Some(launcher) => Ok(launcher.with_file_name("lib").join("ppo-train")),
        None => program(),
    }
}

/// What a package is started by; the system knows its loader as the running program.
fn launcher() -> Option<PathBuf> {
    std::env::var_os("PPO_TRAIN_PROGRAM").map(PathBuf::from)
}

/// Adds a line to a file, on the disk when it returns. What is there without a line feed at its end, which a killed
/// process or a full disk has left, ends before it.
///
/// # Errors
/// Those of the file system, with the path.
pub fn append_line(path: &Path, line: &str) -> Result<()> {
    let append = || -> std::io::Result<()> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let torn = if last == [b'\n'] { "" } else { "\n" };
        file.write_all(format!("{torn}{line}\n").as_bytes())?;
        file.sync_all()
    };
    append().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file atomically: whatever happens, it is either the old one or the new one.
/// What is no file, such as a pipe, is written to as it is.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content.as_ref(), true)
}

/// `write_file` for what nobody needs after a power loss: it does not wait for the disk.
///
/// # Errors
/// Those of the file system, with the path.
pub fn replace_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content.as_ref(), false)
}

fn write(path: &Path, content: &[u8], synced: bool) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if path.exists() && !path.is_file() {
            return fs::write(path, content);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As readable as our other files: by default only the owner can read a temporary file.
        let mode = std::fs::Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new().prefix(PARTIAL).permissions(mode).tempfile_in(folder)?;
        file.write_all(content)?;
        if synced {
            file.as_file().sync_all()?;
        }
        file.persist(path)?;
        if synced { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
