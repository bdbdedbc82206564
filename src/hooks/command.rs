//! A program of the user's, contained: it and whatever it starts are a process group of their own, which ends as one.
//!
//! Decided: what the program leaves running when it ends is ended too, since a child that keeps the standard output
//! open would keep its answer from being complete. What it says on standard error is shown without control characters,
//! which a terminal would obey.

use crate::{Stopped, terminal};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a program has to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long its pipes may stay open after its group has ended.
const PIPES: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Longest piece of a line of standard error that is shown at once, in bytes.
const PIECE: u64 = 4096;

/// What came of a program.
pub struct Ended {
    pub status: ExitStatus,
    /// Its standard output, cut after as many bytes as were asked for and one more.
    pub output: String,
    /// The last line of its standard error that is not blank.
    pub last: Option<String>,
}

/// Runs a program for at most `limit`, and reads at most `most` bytes of its standard output.
///
/// # Errors
/// It cannot be started, takes too long, writes what is not text, or its output is kept open; `Stopped` on a signal.
pub fn run(command: &mut Command, limit: Duration, most: u64, stop: &AtomicBool) -> Result<Ended> {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("it cannot be started")?;
    // Both are read while it runs, so that much to say cannot block it.
    let output = child.stdout.take().map(|pipe| {
        reader(move || {
            let mut text = String::new();
            pipe.take(most + 1).read_to_string(&mut text).map(|_| text)
        })
    });
    let errors = child.stderr.take().map(|pipe| reader(move || show(BufReader::new(pipe))));
    let ended = wait(&mut child, limit, stop);
    signal(&child, Signal::KILL);
    let status = ended?;
    let output = output.context("it has no standard output")?.recv_timeout(PIPES);
    let last = errors.and_then(|errors| errors.recv_timeout(PIPES).ok()).flatten();
    match output {
        Ok(output) => Ok(Ended { status, output: output.context("its standard output is not text")?, last }),
        Err(RecvTimeoutError::Timeout) => bail!("it has ended, but something keeps its standard output open"),
        Err(RecvTimeoutError::Disconnected) => bail!("its standard output cannot be read"),
    }
}

/// What `read` returns, from a thread that nobody waits for.
fn reader<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(read()));
    receiver
}

/// Shows lines as they come; returns the last one.
fn show(mut pipe: impl BufRead) -> Option<String> {
    let mut last = None;
    loop {
        let mut bytes = vec![];
        let read = pipe.by_ref().take(PIECE).read_until(b'\n', &mut bytes);
        if !read.is_ok_and(|count| count > 0) {
            return last;
        }
        let line = terminal::printable(&String::from_utf8_lossy(&bytes)).trim_end().to_string();
        if !line.is_empty() {
            terminal::warn(&line);
            last = Some(line);
        }
    }
}

/// Waits for a program's end; if it takes too long, or a signal came, its whole group is ended.
fn wait(child: &mut Child, limit: Duration, stop: &AtomicBool) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let stopped = stop.load(Ordering::Relaxed);
        if stopped || begun.elapsed() > limit {
            end(child)?;
            if stopped {
                return Err(Stopped("the command was ended too").into());
            }
            bail!("it was stopped after {} s", limit.as_secs_f64());
        }
        std::thread::sleep(POLL);
    }
}

/// Asks a group to end, and then ends it.
fn end(child: &mut Child) -> Result<()> {
    signal(child, Signal::TERM);
    let begun = Instant::now();
    while child.try_wait()?.is_none() && begun.elapsed() < GRACE {
        std::thread::sleep(POLL);
    }
    signal(child, Signal::KILL);
    child.wait()?;
    Ok(())
}

/// Sends a signal to a program and whatever it has started. That there is nobody left is no error.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: u64, stop: &AtomicBool) -> Result<Ended> {
        run(Command::new("sh").args(["-c", script]), Duration::from_secs(limit), 100, stop)
    }

    /// Whether a process that was named in a file is there for some seconds: killing takes a moment.
    fn lives(file: &std::path::Path) -> bool {
        let pid = std::fs::read_to_string(file).unwrap();
        (0..100).all(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z ")
        })
    }

    #[test]
    fn a_program_and_its_children_end_together() {
        let never = AtomicBool::new(false);
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let begun = Instant::now();
        // A child that ignores being asked, and holds the standard output.
        let child = format!("(trap '' TERM; echo $(sh -c 'echo $PPID') > {}; sleep 60; sleep 60) &", pid.display());
        let message = shell(&format!("{child} sleep 60"), 1, &never).err().unwrap().to_string();
        assert_eq!(message, "it was stopped after 1 s");
        assert!(!lives(&pid) && begun.elapsed() < Duration::from_secs(20));
        // One that outlives the program.
        let ended = shell(&format!("{child} sleep 0.3; echo yes"), 60, &never).unwrap();
        assert!(ended.output == "yes\n" && ended.status.success() && !lives(&pid));
        assert!(begun.elapsed() < Duration::from_secs(20));
        let stopped = shell(&format!("{child} sleep 60"), 60, &AtomicBool::new(true)).err().unwrap();
        assert!(stopped.is::<Stopped>());
    }

    #[test]
    fn what_a_program_says_is_kept_without_what_a_terminal_obeys() {
        let never = AtomicBool::new(false);
        let ended = shell("printf 'a\\n\\033[2Jb\\007\\n\\n' >&2; exit 3", 60, &never).unwrap();
        assert_eq!((ended.status.code(), ended.last.as_deref()), (Some(3), Some("[2Jb")));
        let long = shell("yes | head -c 5000", 60, &never).unwrap();
        assert_eq!(long.output.len(), 101);
    }
}
