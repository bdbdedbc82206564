//! PPO for language models: recipe -> plan -> warm start -> rollouts, rewards, updates -> checkpoints and metrics.
//!
//! The loop is in `train::ppo`; it trains a `model` on a `task`.

pub mod algo;
pub mod analysis;
pub mod bench;
pub mod checkpoint;
pub mod cluster;
pub mod dist;
pub mod endpoint;
pub mod env;
pub mod files;
pub mod grammar;
pub mod hash;
pub mod hooks;
pub mod json;
pub mod judge;
pub mod metrics;
pub mod model;
pub mod optim;
pub mod page;
pub mod panics;
pub mod plan;
pub mod recipe;
pub mod regression;
pub mod rng;
pub mod rollout;
pub mod rows;
pub mod run;
pub mod sae;
pub mod stats;
pub mod task;
pub mod teacher;
pub mod terminal;
pub mod text;
pub mod torch;
pub mod traces;
pub mod train;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The exit code of `BadInput`.
pub const BAD_INPUT: u8 = 2;

/// User input that cannot be used, as one message that says what was expected. Exit code 2.
#[derive(Debug)]
pub struct BadInput(pub String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// A `BadInput` with a formatted message, as an `anyhow::Error`.
#[macro_export]
macro_rules! bad {
    ($($message:tt)*) => { ::anyhow::Error::new($crate::BadInput(format!($($message)*))) };
}

/// Marks errors as ones that the user can fix.
pub trait OrBadInput<T> {
    /// The error as `BadInput`, with its causes in one message.
    ///
    /// # Errors
    /// That of `self`.
    fn bad_input(self) -> anyhow::Result<T>;
}

impl<T> OrBadInput<T> for anyhow::Result<T> {
    fn bad_input(self) -> anyhow::Result<T> {
        self.map_err(|error| if error.is::<BadInput>() { error } else { bad!("{error:#}") })
    }
}

/// A signal stopped the program after its work so far was saved; says how to go on. Exit code 75: a scheduler may
/// restart it.
#[derive(Debug)]
pub struct Stopped(pub &'static str);

impl Stopped {
    /// A run was stopped.
    pub const RUN: Stopped = Stopped("continue with --resume");
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "stopped by a signal; {}", self.0)
    }
}

impl std::error::Error for Stopped {}

/// Most bytes of a file that people write by hand, such as a recipe or a template.
pub const WRITTEN: u64 = 1 << 20;
/// Most bytes of a file of a program that is read whole, such as a tokenizer.
pub const WHOLE: u64 = 1 << 28;

/// What a path is instead of a file, such as "a folder"; nothing if there is nothing.
pub fn instead_of_file(path: &Path) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// Opens a file to read it. Pipes and devices are refused: they may have no end, or never begin.
///
/// # Errors
/// Those of the file system; what is there instead of a file.
pub fn open(path: &Path) -> io::Result<File> {
    match instead_of_file(path) {
        Some(other) => Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {other}, not a file"))),
        None => File::open(path),
    }
}

/// The content of a file of at most so many bytes.
///
/// # Errors
/// As `open`; a larger file.
pub fn read_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// The text of a file of at most so many bytes.
///
/// # Errors
/// As `read_bytes`; a byte that is not UTF-8, with its place.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_bytes(path, most)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(ErrorKind::InvalidData, format!("it is not text: byte {at} is not UTF-8"))
    })
}

/// Says what is in the place of a file that was not fetched: Git LFS's pointer, a small text, or a link to nothing.
pub fn not_fetched(path: &Path) -> Option<String> {
    const START: &[u8] = b"version https://git-lfs.github.com/spec/v1";
    let shown = path.display();
    if let (Ok(target), false) = (path.read_link(), path.exists()) {
        return Some(format!("{shown} is a link to {}, which is not there", target.display()));
    }
    let mut start = [0; START.len()];
    let read = open(path).and_then(|mut file| file.read_exact(&mut start));
    (read.is_ok() && start == START)
        .then(|| format!("{shown} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"))
}
