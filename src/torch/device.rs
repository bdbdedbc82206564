//! Devices by name.

use super::gpu::{has_cuda, sent};
use crate::BadInput;
use tch::{Cuda, Device, Kind, Tensor};

/// What `device` understands.
pub const DEVICES: &str = "cpu, cuda, cuda:N (N counts from 0), or auto";

/// The device that `cpu`, `cuda`, `cuda:N` or `auto` (the first GPU if there is one) names, present or not.
pub fn named_device(name: &str) -> Option<Device> {
    match name {
        "cpu" => Some(Device::Cpu),
        "auto" => Some(Device::cuda_if_available()),
        "cuda" => Some(Device::Cuda(0)),
        _ => {
            let index = name.strip_prefix("cuda:")?;
            let plain = index.len() < 4 && index.chars().all(|c| c.is_ascii_digit());
            plain.then(|| index.parse().ok()).flatten().map(Device::Cuda)
        }
    }
}

/// The device of that name, if it is present.
///
/// # Errors
/// A name that means nothing; a GPU that this libtorch or machine does not have.
pub fn device(name: &str) -> Result<Device, BadInput> {
    let device =
        named_device(name).ok_or_else(|| BadInput(format!("there is no device `{name}`: expected {DEVICES}")))?;
    match device {
        Device::Cuda(index) => present(name, index, has_cuda(), Cuda::device_count()).map(|()| device),
        _ => Ok(device),
    }
}

/// Refuses the GPU of that number and name if there are fewer; `built`: whether libtorch has CUDA at all.
fn present(name: &str, index: usize, built: bool, gpus: i64) -> Result<(), BadInput> {
    let why = match (built, gpus) {
        (_, gpus) if (index as i64) < gpus => return Ok(()),
        (false, _) => "this build's libtorch has no CUDA: scripts/setup --cuda fetches one that has, then build again",
        (true, 1) => "there is a single GPU, cuda:0",
        (true, 2..) => &format!("there are {gpus} GPUs, cuda:0 to cuda:{}", gpus - 1),
        (true, _) => {
            "libtorch has CUDA, but finds no GPU that it can use: `nvidia-smi` must list one, with a driver for CUDA \
             13 (580 or later), and CUDA_VISIBLE_DEVICES must not hide it"
        }
    };
    Err(BadInput(format!("there is no device `{name}`: {why}")))
}

/// Where tests put their models: PPO_TRAIN_DEVICE, as in a recipe, or the CPU.
///
/// # Panics
/// If there is no such device.
#[doc(hidden)]
pub fn test_device() -> Device {
    device(&test_device_name()).unwrap_or_else(|error| panic!("PPO_TRAIN_DEVICE: {error}"))
}

/// The same, as a recipe names it.
#[doc(hidden)]
pub fn test_device_name() -> String {
    std::env::var("PPO_TRAIN_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// A copy of `from` on another device and of another kind, which may still be under way: see `wait_for`. From a GPU it
/// goes to pinned memory. If nothing has to be copied, `from` itself.
pub fn fetch(from: &Tensor, device: Device, kind: Kind) -> Tensor {
    if from.device() == device && from.kind() == kind {
        return from.shallow_clone();
    }
    from.to_device_(device, kind, true, false)
}

/// Begins to copy `from` into `to`, which is of the same kind; it may still be under way: see `wait_for`.
pub fn send(from: &Tensor, to: &Tensor) {
    let mut to = to.shallow_clone();
    match (from.device(), to.device()) {
        // Only what is pinned is copied beside other work.
        (Device::Cpu, gpu @ Device::Cuda(_)) => to.copy_(&sent(from, gpu)),
        _ => to.copy_(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_the_reason() {
        let said = |index, built, gpus| present("cuda:N", index, built, gpus).err().map(|error| error.0);
        assert_eq!((said(0, true, 1), said(7, true, 8)), (None, None));
        for (index, built, gpus, word) in [
            (0, false, 0, "scripts/setup --cuda"),
            (0, true, 0, "nvidia-smi"),
            (1, true, 1, "a single GPU, cuda:0"),
            (2, true, 2, "2 GPUs, cuda:0 to cuda:1"),
        ] {
            let message = said(index, built, gpus).unwrap();
            assert!(message.starts_with("there is no device `cuda:N`: ") && message.contains(word), "{message}");
        }
    }

    #[test]
    fn names_are_devices_or_refused() {
        assert_eq!(named_device("cpu"), Some(Device::Cpu));
        assert_eq!(named_device("cuda:12"), Some(Device::Cuda(12)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:1000", "cuda: 1", "CPU"] {
            assert_eq!(named_device(wrong), None, "{wrong}");
            assert!(device(wrong).unwrap_err().0.contains(DEVICES));
        }
    }
}
