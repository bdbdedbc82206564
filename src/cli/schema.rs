//! `ppo-train schema`

use super::common::{print, print_json};
use anyhow::Result;
use clap::Args;
use ppo_train::cluster::{self, Site};
use ppo_train::recipe::Recipe;
use ppo_train::recipe::document::{RECIPES, markdown};
use ppo_train::recipe::schema::{RECIPE, for_editors, keys_of};

/// Print the JSON Schema of recipes or site files for editors, or their documentation.
///
/// Example: ppo-train schema > recipes/schema.json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Schema {
    /// Print docs/recipe.md instead: every key with its type, default and meaning.
    #[arg(long)]
    markdown: bool,
    /// Print that of site files (docs/site.md), which `submit` reads.
    #[arg(long)]
    site: bool,
}

impl Schema {
    pub fn run(self) -> Result<()> {
        match (self.markdown, self.site) {
            (false, false) => print_json(&for_editors::<Recipe>()),
            (false, true) => print_json(&for_editors::<Site>()),
            (true, false) => print(markdown(RECIPES, &RECIPE).trim_end()),
            (true, true) => print(markdown(cluster::HEAD, &keys_of::<Site>()).trim_end()),
        }
    }
}
