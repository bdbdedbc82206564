//! Signals that ask a run to stop: those of people, schedulers and closing terminals.

use crate::train::stop::Stop;
use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag::{register, register_conditional_shutdown};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The flag that the signals set.
pub fn watch() -> Result<Stop> {
    let stop = Stop::default();
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
        if is_ignored(signal) {
            continue;
        }
        if signal != SIGHUP {
            // A second signal of a kind ends the process at once. A closing terminal may send two of its own.
            let again = Arc::new(AtomicBool::new(false));
            register_conditional_shutdown(signal, 1, Arc::clone(&again))?;
            register(signal, again)?;
        }
        register(signal, Arc::clone(&stop.0))?;
    }
    // A file that reaches its largest size (`ulimit -f`) is an error of its writer, not the end of the program.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(stop)
}

/// Whether whoever started the program wants it to ignore a signal, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
