//! The binary: parse, call, map errors to exit codes.
//!
//! 0 done, 1 failed, 2 bad input, 75 stopped by a signal after writing a checkpoint, 101 a mistake of ours (a panic).

mod cli;

use ppo_train::torch::{self, Heap};
use std::process::ExitCode;

#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    torch::report_panics();
    torch::keep_freed_memory();
    torch::share_cpu();
    match torch::catching(|| cli::run(std::env::args_os())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(cli::report(&error)),
    }
}
