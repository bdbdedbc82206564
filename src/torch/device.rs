//! Devices by name.

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
    let gpus = Cuda::device_count();
    match device {
        Device::Cuda(index) if index as i64 >= gpus => Err(BadInput(format!(
            "there is no device `{name}`: this machine and its libtorch have {gpus} CUDA devices (scripts/setup --cuda)"
        ))),
        _ => Ok(device),
    }
}

/// A copy of `from` on another device and of another kind, which may still be under way: see `wait_for`. From a GPU it
/// goes to pinned memory. If nothing has to be copied, `from` itself.
pub fn fetch(from: &Tensor, device: Device, kind: Kind) -> Tensor {
    if from.device() == device && from.kind() == kind {
        return from.shallow_clone();
    }
    from.to_device_(device, kind, true, false)
}

/// Begins to copy `from`, on the host, into `to`, which is of the same kind; it may still be under way: see `wait_for`.
pub fn send(from: &Tensor, to: &Tensor) {
    let mut to = to.shallow_clone();
    match to.device() {
        // Only what is pinned is copied beside other work.
        gpu @ Device::Cuda(_) => to.copy_(&from.pin_memory(gpu).to_device_(gpu, from.kind(), true, false)),
        _ => to.copy_(from),
    }
}

/// Waits for everything that a device was asked to do.
pub fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
