//! Where the models of a plan come from, and where they go.

use super::Plan;
use crate::checkpoint::ensure_whole;
use crate::model::{Head, Weights, missing_files};
use crate::recipe::{Attention, Precision};
use crate::{OrBadInput, dist, torch};
use anyhow::Result;
use std::path::Path;
use tch::{Cuda, Device, Kind};

/// The kind of tensors that a recipe's precision means.
pub fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::Float32 => Kind::Float,
        Precision::Bfloat16 => Kind::BFloat16,
    }
}

impl Plan {
    /// The device that models and tensors are on. Of several processes on a machine, each takes the GPU of its number
    /// there, unless the recipe names one.
    ///
    /// # Errors
    /// Bad input: a GPU that this libtorch or machine does not have.
    pub fn device(&self) -> Result<Device> {
        let (device, local) = (torch::device(&self.recipe.machine.device)?, dist::local());
        let chosen = self.recipe.machine.device.contains(':');
        Ok(match device {
            // Slurm may show each process a single GPU.
            Device::Cuda(_) if local.size > 1 && !chosen => {
                Device::Cuda(local.rank % Cuda::device_count().max(1) as usize)
            }
            device => device,
        })
    }

    /// The kernels that attention may use.
    pub fn kernels(&self) -> torch::Kernels {
        let (wanted, any) = (self.recipe.machine.attention, self.recipe.machine.attention == Attention::Auto);
        torch::Kernels {
            flash: any || wanted == Attention::Flash,
            memory_efficient: any || wanted == Attention::MemoryEfficient,
            cudnn: any || wanted == Attention::Cudnn,
        }
    }

    /// The kind of weights and activations.
    pub fn kind(&self) -> Kind {
        kind_of(self.recipe.machine.precision)
    }

    /// What keeps the weights in the recipe's model folder from being read, if they are wanted from there: files that
    /// are not there. A plan needs no weights; a run does.
    pub fn missing_weights(&self) -> Option<String> {
        let model = &self.recipe.model;
        let missing = if model.random_weights { None } else { missing_files(&model.path) };
        missing.map(|missing| format!("{missing}\nto start from random weights set model.random_weights = true"))
    }

    /// Checks the names, shapes and types of the weights that are in the recipe's model folder; returns notes about
    /// what would be ignored.
    ///
    /// # Errors
    /// Bad input: weights that the run could not start from.
    pub fn check_weights(&self) -> Result<Vec<String>> {
        let model = &self.recipe.model;
        match model.random_weights || missing_files(&model.path).is_some() {
            true => Ok(vec![]),
            false => Weights::check(&model.path, &self.config, Head::Language).bad_input(),
        }
    }

    /// The weights that the run starts from: read from the recipe's model folder, or random.
    ///
    /// # Errors
    /// Same as `weights`; bad input: the folder is that of a checkpoint which is not complete, or damaged.
    pub fn starting_weights(&self, device: Device) -> Result<Weights> {
        if self.recipe.model.random_weights {
            return Weights::random(&self.config, Head::Language, self.kind(), device, self.recipe.seed);
        }
        ensure_whole(&self.recipe.model.path, &[])?;
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
