//! `ppo-train sae train`

use super::super::common::{print, print_json};
use super::shared::{Model, Texts, can_be_written};
use anyhow::Result;
use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};
use ppo_train::bad;
use ppo_train::sae::{Fit, Hook, Settings, Shape, train, write};
use ppo_train::terminal::{Progress, counted, figure, seconds, table};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Train a sparse autoencoder on the residual stream after a layer of a model that reads texts.
///
/// TopK (arXiv:2406.04093) or JumpReLU (arXiv:2407.14435). One text in twenty is held out to measure it. The folder
/// is one that sae_lens reads too.
///
/// Example: ppo-train sae train models/smollm2-135m-instruct texts.jsonl --layer 15 --out saes/layer15
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Train {
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    texts: Texts,
    /// The layer, from 0, after which the residual stream is read.
    #[arg(long)]
    layer: usize,
    /// The folder to be written, which must not exist yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many features it has.
    #[arg(long, default_value_t = 2048, value_parser = RangedI64ValueParser::<i64>::new().range(1..=1 << 20))]
    features: i64,
    /// How many features are active at a token: of TopK at most, of JumpReLU on average.
    #[arg(long, default_value_t = 32, value_parser = RangedI64ValueParser::<i64>::new().range(1..=1 << 20))]
    k: i64,
    /// The kind of activation.
    #[arg(long, value_enum, default_value_t = Kind::Topk)]
    kind: Kind,
    /// Tokens to train on; texts are repeated until there are as many.
    #[arg(long, default_value_t = 1_000_000, value_parser = RangedI64ValueParser::<i64>::new().range(1..=1 << 40))]
    tokens: i64,
    /// Tokens per step.
    #[arg(long, default_value_t = 2048, value_parser = RangedI64ValueParser::<i64>::new().range(2..=1 << 20))]
    batch: i64,
    /// The learning rate, which rises over the first twentieth of the steps and falls over the last fifth.
    #[arg(long, default_value_t = 1e-3, value_parser = rate)]
    lr: f64,
    /// The seed of weights and order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON: how good it is.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Topk,
    Jumprelu,
}

fn rate(text: &str) -> Result<f64, String> {
    let known = |rate: &f64| *rate > 0.0 && *rate <= 1.0;
    text.parse().ok().filter(known).ok_or_else(|| "expected a number above 0, at most 1".to_string())
}

impl Train {
    pub fn run(self) -> Result<()> {
        if self.out.exists() {
            return Err(bad!("{} is there already: remove it, or name another folder", self.out.display()));
        }
        if self.k > self.features {
            return Err(bad!("--k {} is more than the {} of --features", self.k, self.features));
        }
        can_be_written(&self.out)?;
        let begun = Instant::now();
        let reader = self.model.open()?;
        let residuals = reader.after(self.layer)?;
        let mut texts = vec![];
        for file in &self.texts.files {
            texts.extend(reader.texts(file, &self.texts)?);
        }
        if texts.len() < 2 {
            return Err(bad!("there is one text, but one has to be held out: expected two or more"));
        }
        let shape = match self.kind {
            Kind::Topk => Shape::TopK,
            Kind::Jumprelu => Shape::JumpRelu,
        };
        let &Self { features, k, tokens, batch, lr, seed, .. } = &self;
        let settings = Settings { shape, features, k, tokens, batch, lr, seed };
        let mut progress = Progress::new(settings.steps() as u64, "step");
        let trained = train(&residuals, &texts, &settings, |_, fit| progress.count(words(fit)))?;
        drop(progress);
        let model = Some(self.model.model.display().to_string());
        write(&self.out, &trained.sae, &Hook { layer: Some(self.layer), model })?;
        let fit = trained.held_out;
        if self.json {
            return print_json(&json!({
                "out": self.out,
                "layer": self.layer,
                "features": features,
                "texts": texts.len(),
                "trained_tokens": trained.tokens,
                "held_out_tokens": trained.held_tokens,
                "held_out": fit,
                "seconds": begun.elapsed().as_secs_f64(),
            }));
        }
        let rows = [
            ("explained variance", figure(fit.explained_variance)),
            ("features active at a token (L0)", figure(fit.l0)),
            ("dead features", format!("{:.1} %", 100.0 * fit.dead)),
            ("tokens trained on", trained.tokens.to_string()),
            ("tokens held out", trained.held_tokens.to_string()),
        ];
        print(table(&["on texts that were held out", ""], &rows.map(|(name, value)| vec![name.to_string(), value])))?;
        let (out, took) = (self.out.display(), seconds(begun.elapsed().as_secs_f64()));
        print(format_args!("{out}: {} after layer {}, {took}", counted(features as usize, "feature"), self.layer))
    }
}

/// What the progress says; nothing until there are figures.
fn words(fit: Fit) -> Vec<String> {
    if fit == Fit::default() {
        return vec![];
    }
    let explained = format!("explained {}", figure(fit.explained_variance));
    vec![explained, format!("L0 {}", figure(fit.l0)), format!("dead {:.1} %", 100.0 * fit.dead)]
}
