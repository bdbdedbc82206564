//! Where the models of a plan come from, and where they go.

use super::Plan;
use crate::model::{Head, Weights};
use crate::recipe::Precision;
use crate::{OrBadInput, torch};
use anyhow::Result;
use std::path::Path;
use tch::{Device, Kind};

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
