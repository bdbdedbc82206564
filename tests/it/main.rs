//! The integration tests: one binary, since each links libtorch.

mod analyze;
mod bounds;
mod checkpoints;
mod compare;
mod compare_hooks;
mod dialogues;
mod disk;
mod durability;
mod events;
mod export;
mod golden_model;
mod golden_ppo;
mod golden_steering;
mod hooks;
mod house;
mod judge;
mod judge_local;
mod judged_runs;
mod kills;
mod measure;
mod memory;
mod politifact;
mod program;
#[cfg(feature = "mpi")]
mod ranks;
mod replay;
mod seeds;
mod server;
mod shared_runs;
mod signals;
mod slurm;
mod submit;
mod support;
mod tcp;
mod trajectory;
mod watch;
