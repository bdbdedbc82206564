//! `ppo-train schema`

use super::common::{print, print_json};
use anyhow::Result;
use clap::Args;
use ppo_train::recipe::{document, schema};

/// Print the JSON Schema of recipes for editors, or their documentation.
///
/// Example: ppo-train schema > recipes/schema.json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Schema {
    /// Print docs/recipe.md instead: every key with its type, default and meaning.
    #[arg(long)]
    markdown: bool,
}

impl Schema {
    pub fn run(self) -> Result<()> {
        if self.markdown { print(document::markdown().trim_end()) } else { print_json(&schema::for_editors()) }
    }
}
