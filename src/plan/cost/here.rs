//! This machine's rates, measured within seconds.

use super::machine::{KNOWN, Machine, read};
use crate::plan::{Devices, Plan};
use crate::torch;
use anyhow::Result;
use std::time::Duration;
use tch::{Cuda, Device, Kind, Tensor};

/// The machine whose rates are taken for those that are not measured.
const MOST_ALIKE: &str = "a100";
/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(400);
/// The share of the products' rate that a CPU reaches in a step, and of its memory's: fitted to a step of SmolLM2 on
/// two cores (docs/clusters.md).
const PRODUCTS_SHARE: f64 = 0.9;
const MEMORY_SHARE: f64 = 1.0;

impl Machine {
    /// A machine by its name, this one (`here`), whose rates are measured within seconds with the device and threads of
    /// the plan, or one of a TOML file.
    ///
    /// # Errors
    /// Bad input: neither a name nor a file with the keys of a machine; a device that this machine does not have.
    pub fn named(name: &str, plan: &Plan) -> Result<Self> {
        match name {
            "here" => measured(plan),
            name if KNOWN.iter().any(|(known, ..)| *known == name) => Self::known(name),
            name => Ok(read(name)?),
        }
    }
}

/// The machine that runs this, with the device and threads of a plan. What lies between machines is not measured.
///
/// # Errors
/// Bad input: a device that it does not have.
fn measured(plan: &Plan) -> Result<Machine> {
    let device = plan.device()?;
    if plan.recipe.machine.threads > 0 {
        tch::set_num_threads(plan.recipe.machine.threads as i32);
    }
    let gpu = device != Device::Cpu;
    let here = torch::Machine::here(&plan.recipe.machine.device);
    let name = here.gpus.first().cloned().unwrap_or(format!("{}, {} threads", here.processor, here.threads));
    let size: i64 = if gpu { 8192 } else { 1536 };
    let products = |kind| torch::products(&[[size; 3]], kind, device, TIME);
    let shortest = |work: &mut dyn FnMut()| torch::shortest(device, TIME, work);
    let numbers = 1i64 << 26;
    let from = Tensor::zeros([numbers], (Kind::Float, device));
    let mut to = from.zeros_like();
    let copied = 8.0 * numbers as f64 / shortest(&mut || to.copy_(&from));
    let mut one = Tensor::zeros([1], (Kind::Float, device));
    const KERNELS: usize = 1000;
    let mut kernels = || (0..KERNELS).for_each(|_| drop(one.g_add_scalar_(1)));
    let known = Machine::known(MOST_ALIKE)?;
    Ok(Machine {
        name: format!("this machine ({name})"),
        gpu,
        per_node: if gpu { Cuda::device_count().max(1) as usize } else { 1 },
        memory_gb: Devices::of(plan).memory.map_or(known.memory_gb, |bytes| bytes as f64 / 1e9),
        bfloat16_tflops: products(Kind::BFloat16) / 1e12,
        float32_tflops: products(Kind::Float) / 1e12,
        products_share: if gpu { known.products_share } else { PRODUCTS_SHARE },
        memory_gb_s: copied / 1e9,
        memory_share: if gpu { known.memory_share } else { MEMORY_SHARE },
        launch_us: shortest(&mut kernels) / KERNELS as f64 * 1e6,
        ..known
    })
}
