//! One process per run folder: an advisory lock on `RUN/lock`, which the system releases when its holder ends, however
//! it ends. The content of the file (process and host) is for the message to a second process.

use crate::bad;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// Held for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code)] File);

impl Lock {
    /// Takes the lock of a run folder, or says why it cannot. `Ok(None)`: this file system does not support locks.
    ///
    /// # Errors
    /// Bad input: another process holds it; it is named.
    pub fn take(run: &Path) -> Result<Option<Self>> {
        let path = run.join("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = named(&mut file);
                return Err(bad!(
                    "{} is in use by {holder}: wait until it ends, or choose another folder with --out DIR",
                    run.display()
                ));
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        file.set_len(0)?;
        writeln!(file, "process {} on {host}", std::process::id())?;
        Ok(Some(Self(file)))
    }

    /// Who holds the lock of a run folder, if anyone does.
    pub fn holder(run: &Path) -> Option<String> {
        let mut file = File::open(run.join("lock")).ok()?;
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| named(&mut file))
    }
}

/// What the holder of a lock wrote into its file.
fn named(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    if holder.trim().is_empty() { "another process".into() } else { holder.trim().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_ends() {
        let run = tempfile::tempdir().unwrap();
        let first = Lock::take(run.path()).unwrap();
        let error = Lock::take(run.path()).unwrap_err();
        assert!(error.is::<crate::BadInput>());
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let named = format!("is in use by process {} on {host}:", std::process::id());
        assert!(error.to_string().contains(&named), "{error}");
        assert_eq!(Lock::holder(run.path()).unwrap(), format!("process {} on {host}", std::process::id()));
        drop(first);
        assert_eq!(Lock::holder(run.path()), None);
        assert!(Lock::take(run.path()).unwrap().is_some());
    }
}
