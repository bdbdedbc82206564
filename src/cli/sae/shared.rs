//! What the commands over autoencoders share: an autoencoder, a model, texts.

use super::super::common::{precision, whole_model_of};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::bad;
use ppo_train::model::Policy;
use ppo_train::rollout::Writer;
use ppo_train::sae::{Columns, Hook, Residuals, Sae, Text, read, texts};
use ppo_train::terminal::{self, counted};
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
        let columns =
            Columns { text: &[&how.column], prompt: how.prompt_column.as_deref(), every_prompt: true, special: false };
        let (all, without) = texts(file, columns, &self.writer.tokenizer, limit)?;
        if without > 0 {
            let (rows, shown) = (counted(without, "row"), file.display());
            terminal::warn(&format!("note: {rows} of {shown} without tokens among the first {limit} left out"));
        }
        Ok(all)
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

/// What files are called in tables: by their names, or where these are equal by their paths.
pub fn called(files: &[PathBuf]) -> Vec<String> {
    let names: Vec<_> = files.iter().map(|file| file.file_stem().unwrap_or_default().to_string_lossy()).collect();
    let is_one = |name| names.iter().filter(|other| *other == name).count() == 1;
    let all = files.iter().zip(&names);
    all.map(|(file, name)| if is_one(name) { name.to_string() } else { file.display().to_string() }).collect()
}

/// Makes sure that a file or folder can be written, before long work.
///
/// # Errors
/// Its folder cannot be made or written to.
pub fn can_be_written(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    tempfile::tempfile_in(parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    Ok(())
}
