//! A checkpoint's models as Hugging Face folders for other programs.

use super::files::{copy_file, save_critic};
use super::folder::place;
use super::sums::MARK;
use crate::OrBadInput;
use crate::model::{Head, ModelConfig, Weights, critic_weights, tensor_names};
use crate::text::Tokenizer;
use anyhow::Result;
use std::fs;
use std::path::Path;
use tch::{Device, Kind};

/// Copies a language model to the folder `target`, after a check that it is complete.
///
/// # Errors
/// Bad input: a folder that is not a complete model with its tokenizer.
pub fn export_model(model: &Path, target: &Path) -> Result<()> {
    load(model, &ModelConfig::from_dir(model).bad_input()?, Head::Language)?;
    Tokenizer::from_dir(model)?;
    copy(model, target)
}

/// Copies a critic to the folder `target` as a token classifier with one label; a head on the decoder of `model` is
/// exported with a copy of that decoder.
///
/// # Errors
/// Bad input: a folder that is not a complete critic.
pub fn export_critic(critic: &Path, model: &Path, target: &Path) -> Result<()> {
    let config = ModelConfig::from_dir(model).bad_input()?;
    if !tensor_names(critic).bad_input()?.iter().all(|name| name.starts_with("score.")) {
        load(critic, &config, Head::Value)?;
        return copy(critic, target);
    }
    let head = load(critic, &config, Head::ValueOnly)?;
    let weights = critic_weights(&config, &load(model, &config, Head::Language)?);
    weights.copy_from(&head);
    place(target, |dir| save_critic(dir, &weights, model, model))
}

/// The weights in `dir`.
fn load(dir: &Path, config: &ModelConfig, head: Head) -> Result<Weights> {
    Weights::load(dir, config, head, Kind::Float, Device::Cpu).bad_input()
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    place(target, |dir| {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != MARK {
                copy_file(&entry.path(), &dir.join(entry.file_name()))?;
            }
        }
        Ok(())
    })
}
