//! `ppo-train compare`

use super::common::{print, print_json};
use anyhow::Result;
use clap::Args;
use ppo_train::analysis::Comparison;
use ppo_train::terminal;
use std::path::PathBuf;

/// Compare one metric across several runs, as a table and as curves.
///
/// Example: ppo-train compare checkpoints/quickstart-1 checkpoints/quickstart-2 --svg curves.svg
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Compare {
    /// Run folders.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// A scalar from metrics.jsonl (default: the first validation accuracy).
    #[arg(long)]
    metric: Option<String>,
    /// Write the curves to this SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON with every point.
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let comparison = Comparison::read(&self.runs, self.metric.as_deref())?;
        if self.json {
            print_json(&comparison.json())?;
        } else {
            let titles = ["run", comparison.metric.as_str(), "at the end", "change"];
            print(terminal::table(&titles, &comparison.rows()))?;
        }
        self.svg.map_or(Ok(()), |file| comparison.draw(&file))
    }
}
