//! Who makes the data of the warm start: a teacher who solves problems as a dialogue and as a monologue.
//!
//! A teacher is a server behind an OpenAI-compatible endpoint, a local model, or our own solver. `pool` asks it,
//! through a cache and within a budget; `judge` decides what its replies are worth; `pairs` writes what both arms
//! solved.

mod grading;
mod interface;
mod judge;
mod local;
mod pairs;
mod pool;
mod problems;
mod prompts;
mod report;
mod server;
mod solver;

pub use grading::Kind;
pub use interface::Teacher;
pub use local::Local;
pub use pairs::{Wanted, write};
pub use pool::{Job, Outcome, run};
pub use problems::{Problem, Problems, read};
pub use prompts::Prompts;
pub use report::Source;
pub use server::Server;
pub use solver::Solver;
