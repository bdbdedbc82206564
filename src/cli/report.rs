//! `ppo-train report`

use super::common::print;
use anyhow::Result;
use clap::Args;
use ppo_train::checkpoint::write_file;
use ppo_train::page::page;
use std::path::PathBuf;

/// Write one HTML page about runs: curves, what their hooks found, traces, recipes and how they depart from the paper.
///
/// Example: ppo-train report checkpoints/quickstart --out quickstart.html
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Report {
    /// Run folders.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Traces shown for the first and for the last judged step of each run.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    traces: usize,
}

impl Report {
    pub fn run(self) -> Result<()> {
        write_file(&self.out, page(&self.runs, self.traces)?)?;
        print(self.out.display())
    }
}
