//! `ppo-train completions`

use super::common::{PARSER, STDOUT};
use anyhow::{Context, Result};
use clap::Args;
use clap_complete::{Shell, generate};
use std::io::Write;

/// Print a shell script that completes commands and options.
///
/// Example: ppo-train completions bash > ~/.local/share/bash-completion/completions/ppo-train
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<()> {
        // Into memory first: the generator panics if it cannot write.
        let mut script = Vec::new();
        let mut parser = PARSER.get().cloned().unwrap_or_default();
        generate(self.shell, &mut parser, "ppo-train", &mut script);
        std::io::stdout().write_all(&script).context(STDOUT)
    }
}
