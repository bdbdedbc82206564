//! Where the models of a plan come from, and where they go.

use super::Plan;
use crate::model::{Head, Weights};
use crate::recipe::Precision;
use crate::recipe::spelling::entries;
use crate::{OrBadInput, torch};
use anyhow::Result;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tch::{Device, Kind};

/// How the file begins that Git LFS leaves in the place of a large one.
const POINTER: &[u8; 42] = b"version https://git-lfs.github.com/spec/v1";

impl Plan {
    /// The device that models and tensors are on.
    ///
    /// # Errors
    /// Bad input: a GPU that this libtorch or machine does not have.
    pub fn device(&self) -> Result<Device> {
        Ok(torch::device(&self.recipe.machine.device)?)
    }

    /// The kind of weights and activations.
    pub fn kind(&self) -> Kind {
        match self.recipe.machine.precision {
            Precision::Float32 => Kind::Float,
            Precision::Bfloat16 => Kind::BFloat16,
        }
    }

    /// What keeps the weights in the recipe's model folder from being read, if they are wanted from there. A plan needs
    /// no weights; a run does.
    pub fn missing_weights(&self) -> Option<String> {
        let dir = &self.recipe.model.path;
        let found = |name: &str| dir.join(name).is_file();
        if self.recipe.model.random_weights {
            return None;
        }
        let whole = dir.join("model.safetensors");
        if !whole.is_file() && !found("model.safetensors.index.json") {
            let pickled = entries(dir).iter().any(|name| name.starts_with("pytorch_model") && name.ends_with(".bin"));
            let what = if pickled {
                "has its weights as pytorch_model*.bin only: save them as safetensors with transformers"
            } else {
                "has no weights (model.safetensors, or model.safetensors.index.json and its shards)"
            };
            return Some(format!(
                "{} {what}\nto start from random weights set model.random_weights = true",
                dir.display()
            ));
        }
        let mut start = [0; POINTER.len()];
        let is_pointer =
            File::open(&whole).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *POINTER;
        is_pointer.then(|| {
            format!("{} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder", whole.display())
        })
    }

    /// The weights that the run starts from: read from the recipe's model folder, or random.
    ///
    /// # Errors
    /// Same as `weights`.
    pub fn starting_weights(&self, device: Device) -> Result<Weights> {
        if self.recipe.model.random_weights {
            return Weights::random(&self.config, Head::Language, self.kind(), device, self.recipe.seed);
        }
        self.weights(&self.recipe.model.path, device)
    }

    /// A language model of the plan's shape and precision from a Hugging Face folder.
    ///
    /// # Errors
    /// Bad input: weights that are missing, damaged, or of another shape.
    pub fn weights(&self, dir: &Path, device: Device) -> Result<Weights> {
        let weights = Weights::load(dir, &self.config, Head::Language, self.kind(), device);
        weights.bad_input()
    }
}
