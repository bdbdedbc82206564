//! The binary: parse, call, map errors to exit codes.
//!
//! 0 done, 1 failed, 2 bad input, 75 stopped by a signal after writing a checkpoint.

mod cli;

use ppo_train::{BAD_INPUT, BadInput, Stopped};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    ppo_train::torch::keep_freed_memory();
    ppo_train::torch::share_cpu();
    let Err(error) = cli::run(std::env::args_os()) else { return ExitCode::SUCCESS };
    // `ppo-train plan RECIPE | head`: the reader has seen enough.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(io::stderr(), "error: {error:#}");
    match error {
        e if e.is::<BadInput>() => ExitCode::from(BAD_INPUT),
        e if e.is::<Stopped>() => ExitCode::from(75),
        _ => ExitCode::FAILURE,
    }
}
