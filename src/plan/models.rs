//! Where the models of a plan come from, and where they go: weights and devices.

use super::Plan;
use crate::checkpoint::ensure_whole;
use crate::model::{Head, Weights, missing_files};
use crate::recipe::{Attention, Machine, Precision, Recipe};
use crate::torch::{choose_kernels, named_device, own_stream};
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

/// The device of a `[machine]`, on which this thread computes from now on: with the kernels that it allows, and on a
/// GPU, if it wants graphs of them, in a stream of the thread's own, without which there are none. Whatever decodes
/// takes its device from here.
///
/// # Errors
/// Bad input: a GPU that this libtorch or machine does not have. What libtorch says.
pub fn use_device(machine: &Machine) -> Result<Device> {
    let device = device_of(machine)?;
    if machine.graphs {
        own_stream(device)?;
    }
    choose_kernels(machine.tf32, kernels_of(machine))?;
    Ok(device)
}

/// The device of a `[machine]`. Of several processes on a machine, each takes the GPU of its number there, unless one
/// is named.
fn device_of(machine: &Machine) -> Result<Device> {
    let (device, local) = (torch::device(&machine.device)?, dist::local());
    let chosen = machine.device.contains(':');
    Ok(match device {
        // Slurm may show each process a single GPU.
        Device::Cuda(_) if local.size > 1 && !chosen => Device::Cuda(local.rank % Cuda::device_count().max(1) as usize),
        device => device,
    })
}

/// The kernels that attention may use on a `[machine]`.
fn kernels_of(machine: &Machine) -> torch::Kernels {
    let (wanted, any) = (machine.attention, machine.attention == Attention::Auto);
    torch::Kernels {
        flash: any || wanted == Attention::Flash,
        memory_efficient: any || wanted == Attention::MemoryEfficient,
        cudnn: any || wanted == Attention::Cudnn,
    }
}

impl Plan {
    /// The device that models and tensors are on, of this process.
    ///
    /// # Errors
    /// Bad input: a GPU that this libtorch or machine does not have.
    pub fn device(&self) -> Result<Device> {
        device_of(&self.recipe.machine)
    }

    /// Whether models and tensors are on the CPU, whose memory the processes of a machine share. `auto` is what this
    /// machine has, for whatever is planned.
    pub fn on_cpu(&self) -> bool {
        named_device(&self.recipe.machine.device) == Some(Device::Cpu)
    }

    /// The same plan for other machines than this one, with GPUs or without: `auto` is then what they have.
    pub fn elsewhere(mut self, gpus: bool) -> Self {
        let there = if gpus { "cuda" } else { "cpu" };
        let Recipe { machine, hooks, .. } = &mut self.recipe;
        for device in [&mut machine.device].into_iter().chain(&mut hooks.device) {
            if *device == "auto" {
                *device = there.into();
            }
        }
        self
    }

    /// The kernels that attention may use.
    pub fn kernels(&self) -> torch::Kernels {
        kernels_of(&self.recipe.machine)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{Graph, test_device, test_device_name};

    /// On a CPU there are no graphs. (Those of a GPU are tested where tokens are drawn.)
    #[test]
    fn a_thread_uses_a_device_as_the_machine_says() {
        for graphs in [true, false] {
            let machine = Machine { device: test_device_name(), graphs, ..Machine::default() };
            let used = std::thread::spawn(move || {
                let device = use_device(&machine)?;
                anyhow::Ok((device, Graph::is_possible(device)))
            });
            let (device, possible) = used.join().unwrap().unwrap();
            assert_eq!(device, test_device());
            assert!(!possible || (graphs && device != Device::Cpu));
        }
        let missing = use_device(&Machine { device: "cuda:999".into(), ..Machine::default() });
        assert!(missing.unwrap_err().is::<crate::BadInput>());
    }
}
