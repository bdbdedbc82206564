//! What the commands over autoencoders share: an autoencoder, a model, texts.

use super::super::common::{precision, whole_model_of};
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::bad;
use ppo_train::model::Policy;
use ppo_train::rollout::Writer;
use ppo_train::sae::{Hook, Residuals, Sae, Text, read, texts};
use std::path::{Path, PathBuf};
use tch::Kind;

/// An autoencoder, and the model whose residual stream it reads.
#[derive(Args)]
pub struct Pair {
    /// The autoencoder: a folder in the layout of sae_lens or of Llama Scope, or its safetensors file.
    pub sae: PathBuf,
    #[command(flatten)]
    pub model: Model,
    /// The layer, from 0, after which it reads (default: what its folder says).
    #[arg(long)]
    pub layer: Option<usize>,
}

/// A model that reads texts.
#[derive(Args)]
pub struct Model {
    /// A Hugging Face model folder, or a run's checkpoint.
    pub model: PathBuf,
    /// The precision of weights and activations of the model; autoencoders are float32.
    #[arg(long, default_value = "float32", value_parser = precision())]
    pub precision: Kind,
}

/// Texts, and how they are read.
#[derive(Args)]
pub struct Texts {
    /// Files of texts: .jsonl, .json or .parquet.
    #[arg(required = true, value_name = "TEXTS")]
    pub files: Vec<PathBuf>,
    /// The column of the texts.
    #[arg(long, default_value = "text")]
    pub column: String,
    /// The column of what stands before them: it is read, but its tokens are not looked at.
    #[arg(long, value_name = "COLUMN")]
    pub prompt_column: Option<String>,
    /// Longest text in tokens, prompt included; what is longer is cut.
    #[arg(long, default_value_t = 1024, value_parser = RangedU64ValueParser::<usize>::new().range(2..=1 << 20))]
    pub context: usize,
}

/// A model that is loaded.
pub struct Reader {
    pub writer: Writer,
    pub policy: Policy,
}

impl Model {
    pub fn open(&self) -> Result<Reader> {
        let writer = Writer::open(&whole_model_of(&self.model, &[])?, &[], 1)?;
        let policy = writer.policy(self.precision, None)?;
        Ok(Reader { writer, policy })
    }
}

impl Reader {
    /// Its residual stream after a layer.
    ///
    /// # Errors
    /// Bad input: it has no such layer.
    pub fn after(&self, layer: usize) -> Result<Residuals<'_>> {
        let layers = self.policy.config.num_hidden_layers as usize;
        if layer >= layers {
            return Err(bad!("layer {layer}: the model has {layers}, from 0 to {}", layers - 1));
        }
        Ok(Residuals { policy: &self.policy, layer })
    }

    /// The texts of a file.
    pub fn texts(&self, file: &Path, how: &Texts) -> Result<Vec<Text>> {
        let limit = how.context.min(self.policy.config.max_position_embeddings as usize);
        texts(file, &how.column, how.prompt_column.as_deref(), &self.writer.tokenizer, limit)
    }
}

impl Pair {
    pub fn open(&self) -> Result<(Sae, Hook, Reader)> {
        let reader = self.model.open()?;
        let (sae, hook) = read(&self.sae, reader.policy.device())?;
        let shown = self.sae.display();
        let layer = self.layer.or(hook.layer);
        let Some(layer) = layer else {
            return Err(bad!("{shown} does not say which layer it reads: name it with --layer"));
        };
        reader.after(layer)?;
        let (wanted, hidden) = (sae.hidden(), reader.policy.config.hidden_size);
        if wanted != hidden {
            let model = self.model.model.display();
            return Err(bad!("{shown} reads a residual stream of {wanted} numbers, but that of {model} has {hidden}"));
        }
        Ok((sae, Hook { layer: Some(layer), ..hook }, reader))
    }
}

/// What a file is called in tables.
pub fn called(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
