//! Jobs for the schedulers of clusters: one recipe with several seeds as a job of Slurm or of Kubernetes, a task per
//! seed.
//!
//! Decided: a job holds the merged recipe as it was checked, in a file of its own (Slurm) or in the job itself
//! (Kubernetes), so that a recipe edited while its job waits changes nothing. A task is told only its seed: whether it
//! begins, goes on or is finished, `--seeds` sees in the run folder, so that a restart needs nothing from the
//! scheduler. Where seeds share the warm start, each task still trains it: all come to the same one, and none waits.

mod kubernetes;
mod names;
mod quote;
mod site;
mod slurm;

pub use kubernetes::{manifest, outside};
pub use quote::shell;
pub use site::{HEAD, Kubernetes, Site, Slurm};
pub use slurm::script;

use std::path::PathBuf;

/// What is submitted: a recipe with seeds.
#[derive(Clone, Debug)]
pub struct Job {
    /// The recipe's name.
    pub name: String,
    /// The merged recipe as TOML.
    pub recipe: String,
    pub seeds: Vec<u64>,
    /// Run folders are `OUT-SEED`. Absolute for Slurm; as the pods see it for Kubernetes.
    pub out: PathBuf,
    /// The folder that relative paths of the recipe are relative to, absolute.
    pub folder: PathBuf,
    /// The program as nodes find it, unless the site says otherwise.
    pub program: String,
    /// Processes of each run (1: no launcher).
    pub processes: u64,
}

impl Job {
    /// A file next to the run folders: `OUT.EXTENSION`.
    pub fn beside(&self, extension: &str) -> PathBuf {
        self.named(&format!(".{extension}"))
    }

    /// The folder of a seed's run.
    pub fn run(&self, seed: u64) -> PathBuf {
        self.named(&format!("-{seed}"))
    }

    /// What the task of a seed prints.
    pub fn log(&self, seed: u64) -> PathBuf {
        self.named(&format!("-{seed}.log"))
    }

    /// `out` with an ending.
    fn named(&self, end: &str) -> PathBuf {
        let mut name = self.out.file_name().unwrap_or_default().to_os_string();
        name.push(end);
        self.out.with_file_name(name)
    }
}
