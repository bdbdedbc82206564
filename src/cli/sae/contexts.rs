//! `ppo-train sae contexts`

use super::super::common::{print, print_json};
use super::shared::{Pair, Texts, called, can_be_written};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::bad;
use ppo_train::files::replace_file;
use ppo_train::sae::{Contexts, page};
use ppo_train::terminal::{Progress, counted, figure, table};
use serde_json::json;
use std::path::PathBuf;

/// Show where features of a sparse autoencoder are most active: the tokens, and what stands around them.
///
/// Example: ppo-train sae contexts saes/layer7 MODEL traces.jsonl --feature 12,508 --html features.html
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ContextsCommand {
    #[command(flatten)]
    pair: Pair,
    #[command(flatten)]
    texts: Texts,
    /// The features (default: all that are active anywhere).
    #[arg(long = "feature", value_name = "N", value_delimiter = ',')]
    features: Vec<i64>,
    /// Most texts for each feature, each with its most active token.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    most: usize,
    /// Tokens to either side.
    #[arg(long, default_value_t = 12, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1000))]
    around: usize,
    /// Write a page to this file rather than a table to the terminal.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON: a list of contexts, each token with its activation.
    #[arg(long)]
    json: bool,
}

impl ContextsCommand {
    pub fn run(self) -> Result<()> {
        self.html.as_ref().map_or(Ok(()), |file| can_be_written(file))?;
        let (sae, hook, reader) = self.pair.open()?;
        let count = sae.features();
        if let Some(other) = self.features.iter().find(|feature| !(0..count).contains(*feature)) {
            return Err(bad!("--feature {other}: the autoencoder has {count} features, from 0 to {}", count - 1));
        }
        let residuals = reader.after(hook.layer.context("no layer")?)?;
        let mut texts = vec![];
        for (name, file) in called(&self.texts.files).into_iter().zip(&self.texts.files) {
            texts.push((name, reader.texts(file, &self.texts)?));
        }
        let mut features = if self.features.is_empty() { (0..count).collect() } else { self.features.clone() };
        features.sort_unstable();
        features.dedup();
        let mut contexts = Contexts::new(features, self.most, self.around);
        let mut progress = Progress::new(texts.iter().map(|(_, texts)| texts.len() as u64).sum(), "text");
        for (name, texts) in &texts {
            residuals.encoded(&sae, &texts.iter().collect::<Vec<_>>(), |text, active| {
                contexts.add(name, text, &active);
                progress.count(vec![]);
                Ok(())
            })?;
        }
        drop(progress);
        let found = contexts.read(&reader.writer.tokenizer)?;
        if let Some(file) = &self.html {
            let sae = self.pair.sae.display();
            let title = format!("What activates the features of {sae}");
            let written = replace_file(file, page(&title, &found));
            written.with_context(|| format!("cannot write {}", file.display()))?;
            if !self.json {
                return print(format_args!("{}: {}", file.display(), counted(found.len(), "context")));
            }
        }
        if self.json {
            return print_json(&json!(found));
        }
        let row = |one: &ppo_train::sae::Context| {
            vec![one.feature.to_string(), figure(one.activation), format!("{}, row {}", one.file, one.row), one.line()]
        };
        match found.is_empty() {
            true => print("none of these features is active in the texts"),
            false => {
                print(table(&["feature", "activation", "text", "context"], &found.iter().map(row).collect::<Vec<_>>()))
            }
        }
    }
}
