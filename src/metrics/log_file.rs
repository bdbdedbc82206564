//! An append-only file whose errors never end the run: a chunk that cannot be written (full disk, lost mount) waits in
//! memory and is tried again with the next one.
//!
//! Chunks are written at a remembered offset, so a half-written chunk is overwritten by its next try, and readers never
//! find an incomplete one in the middle of the file.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most bytes that may wait for a disk; any more are lost, and counted.
const LONGEST_QUEUE: usize = 16 << 20;

pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the file that are whole chunks.
    len: u64,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Failed tries so far.
    failures: u64,
    /// Chunks lost so far.
    lost: u64,
    /// Called on the first failure.
    warn: fn(&str),
}

impl LogFile {
    /// A log whose first `len` bytes exist already. The file (and its folder) is created at the first write.
    pub fn new(path: PathBuf, len: u64, warn: fn(&str)) -> Self {
        Self { path, file: None, len, waiting: VecDeque::new(), waiting_bytes: 0, failures: 0, lost: 0, warn }
    }

    /// Queues a chunk to be written with the next one.
    pub fn queue(&mut self, chunk: Vec<u8>) {
        if self.waiting_bytes + chunk.len() > LONGEST_QUEUE {
            self.lost += 1;
        } else {
            self.waiting_bytes += chunk.len();
            self.waiting.push_back(chunk);
        }
    }

    /// Writes a chunk, after all that are waiting.
    pub fn append(&mut self, chunk: Vec<u8>) {
        self.queue(chunk);
        let error = self.write_waiting().err();
        self.note(error);
    }

    /// Tries once more to write what is waiting, and returns when it is on disk. Creates no empty file.
    pub fn flush(&mut self) {
        if self.file.is_some() || self.failures > 0 {
            let error = self.write_waiting().and_then(File::sync_data).err();
            self.note(error);
        }
        if self.lost > 0 {
            let (path, lost) = (self.path.display(), std::mem::take(&mut self.lost));
            (self.warn)(&format!("warning: {path} is missing {lost} records that could not be written"));
        }
    }

    fn write_waiting(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        while let Some(chunk) = self.waiting.front() {
            // On an error the handle is dropped: the next try reopens the file, which a remounted disk needs.
            file.write_all_at(chunk, self.len)?;
            self.len += chunk.len() as u64;
            self.waiting_bytes -= chunk.len();
            self.waiting.pop_front();
        }
        Ok(self.file.insert(file))
    }

    fn open(&mut self) -> io::Result<File> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        // The name shall outlive a power loss too.
        File::open(folder)?.sync_all()?;
        // If somebody removed or shortened the file, a hole of zeros would spoil the rest.
        self.len = self.len.min(file.metadata()?.len());
        Ok(file)
    }

    fn note(&mut self, error: Option<io::Error>) {
        if let Some(error) = error {
            self.failures += 1;
            if self.failures == 1 {
                let path = self.path.display();
                (self.warn)(&format!(
                    "warning: cannot write {path}: {error}; the run continues, and the log is tried again at each step"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_is_written_when_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("folder");
        fs::write(&blocked, "a file where the folder should be").unwrap();
        let path = blocked.join("log");
        let mut log = LogFile::new(path.clone(), 0, |_| ());
        log.append(b"one ".to_vec());
        log.append(b"two ".to_vec());
        assert_eq!(log.failures, 2);
        fs::remove_file(&blocked).unwrap();
        log.append(b"three".to_vec());
        log.flush();
        assert_eq!(fs::read_to_string(path).unwrap(), "one two three");
        assert_eq!((log.failures, log.lost), (2, 0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_costs_memory_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = LogFile::new(path, 0, |_| ());
        for _ in 0..40 {
            log.append(vec![0; 1 << 20]);
        }
        assert_eq!((log.failures, log.lost, log.waiting.len()), (40, 24, 16));
        log.flush();
        assert_eq!((log.failures, log.lost), (41, 0));
    }

    #[test]
    fn a_file_that_somebody_shortened_gets_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "abc").unwrap();
        let mut log = LogFile::new(path.clone(), 10, |_| ());
        log.append(b"def".to_vec());
        assert_eq!(fs::read_to_string(path).unwrap(), "abcdef");
    }
}
