//! Signals that ask a run to stop: those of people, schedulers and closing terminals.
//!
//! Decided: they are received by a thread, which says what happens. A second signal of the same kind ends the program
//! at once, whatever it is doing; one of another kind does not, since schedulers send a warning first and TERM later.
//! Neither does one that comes so soon that nobody meant it: `timeout` and srun may deliver the same signal twice.

use crate::terminal;
use crate::train::stop::Stop;
use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag::register;
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};
use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// A signal that comes again within this time counts once.
const SAME: Duration = Duration::from_millis(200);
/// How long the last words may take, if nobody reads them.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The flag that the signals set.
///
/// # Errors
/// They cannot be received.
pub fn watch() -> Result<Stop> {
    let stop = Stop::default();
    let heard = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(heard)?;
    let flag = Arc::clone(&stop.0);
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut seen = HashMap::new();
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("a signal");
            let first = *seen.entry(signal).or_insert_with(Instant::now);
            if !flag.swap(true, Ordering::Relaxed) {
                say(format!("{name}: the program saves its work and stops; a second {name} ends it at once"));
            } else if first.elapsed() > SAME && signal != SIGHUP {
                // A closing terminal may send two of its own.
                say(format!("a second {name}: the program ends at once, and saves nothing"));
                exit(1);
            }
        }
    })?;
    // A file that reaches its largest size (`ulimit -f`) is an error of its writer, not the end of the program.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(stop)
}

/// Prints a line to standard error, but does not wait for a reader that does not read.
fn say(line: String) {
    let (said, done) = channel();
    let _ = thread::Builder::new().spawn(move || {
        terminal::warn(&line);
        let _ = said.send(());
    });
    let _ = done.recv_timeout(LAST_WORDS);
}

/// Whether whoever started the program wants it to ignore a signal, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
