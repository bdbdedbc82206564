//! The binary: parse, call, map errors to exit codes.
//!
//! 0 done, 1 failed, 2 bad input, 75 stopped by a signal after writing a checkpoint, 101 a mistake of ours (a panic).

mod cli;

use cli::Silent;
use ppo_train::torch::{self, Heap};
use ppo_train::{BAD_INPUT, BadInput, Stopped};
use std::io::{self, Write};
use std::process::ExitCode;

#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    torch::report_panics();
    torch::keep_freed_memory();
    torch::share_cpu();
    let Err(error) = torch::catching(|| cli::run(std::env::args_os())) else { return ExitCode::SUCCESS };
    // `ppo-train plan RECIPE | head`: the reader has seen enough.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    if let Some(Silent(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let _ = writeln!(io::stderr(), "error: {error:#}");
    match error {
        e if e.is::<BadInput>() => ExitCode::from(BAD_INPUT),
        e if e.is::<Stopped>() => ExitCode::from(75),
        _ => ExitCode::FAILURE,
    }
}
