//! What only GPUs have: memory of their own, queues that the host does not wait for, kernels to choose from.

use super::checked;
use super::fused::{made, raw};
use anyhow::Result;
use std::ffi::c_char;
use tch::kind::Element;
use tch::{Cuda, Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ppo_has_cuda() -> bool;
    fn ppo_device_memory(device: i64, out: *mut i64) -> *mut c_char;
    fn ppo_device_capacity(device: i64, out: *mut i64) -> *mut c_char;
    fn ppo_pinned(tensor: *mut C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn ppo_switches(tf32: bool, flash: bool, memory_efficient: bool, cudnn: bool) -> *mut c_char;
}

/// Whether libtorch has CUDA, also on a machine without a GPU (`tch::utils::has_cuda` looks for one).
pub fn has_cuda() -> bool {
    // SAFETY: it looks at a table of libtorch's.
    unsafe { ppo_has_cuda() }
}

/// Bytes of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Held by tensors.
    pub held: u64,
    pub most_held: u64,
    /// Taken by libtorch, which keeps for the next tensor what is freed.
    pub taken: u64,
    pub most_taken: u64,
}

/// The memory of a GPU, since the program started; none on a CPU.
pub fn device_memory(device: Device) -> Option<DeviceMemory> {
    let Device::Cuda(index) = device else { return None };
    let mut bytes = [0i64; 4];
    // SAFETY: the shim writes four numbers.
    checked(unsafe { ppo_device_memory(index as i64, bytes.as_mut_ptr()) }).ok()?;
    let [held, most_held, taken, most_taken] = bytes.map(|bytes| bytes.max(0) as u64);
    Some(DeviceMemory { held, most_held, taken, most_taken })
}

/// Bytes of memory that a GPU has; none for a CPU, or a GPU that is not there.
pub fn device_capacity(device: Device) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    let mut bytes = 0i64;
    // SAFETY: the shim writes one number.
    checked(unsafe { ppo_device_capacity(index as i64, &mut bytes) }).ok()?;
    u64::try_from(bytes).ok()
}

/// Waits until everything that was given to a GPU is done; on a CPU it is.
pub fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// A copy of `from`, on the host, on its way to a GPU: from locked pages, while the host goes on. From other memory it
/// would have to wait for everything that was queued before.
pub(super) fn sent(from: &Tensor, gpu: Device) -> Tensor {
    pinned(from).to_device_(gpu, from.kind(), true, false)
}

/// A copy of `from`, on the host, in locked pages. (tch's own `pin_memory` names a device, of which libtorch warns.)
///
/// # Panics
/// If they cannot be had, like libtorch's own functions in `tch`.
fn pinned(from: &Tensor) -> Tensor {
    // SAFETY: a pointer to a tensor that lives during the call.
    let [copy] = made(|[copy]| unsafe { ppo_pinned(raw(from), copy) });
    copy
}

/// Values [n] as a tensor on a device. On a GPU they are copied from locked pages while the host goes on: from other
/// memory it would have to wait for everything that was queued before.
pub fn on_device<T: Element>(values: &[T], device: Device) -> Tensor {
    let host = Tensor::from_slice(values);
    match device {
        Device::Cuda(_) => sent(&host, device),
        _ => host.to_device(device),
    }
}

/// Fused kernels for attention that libtorch may choose from. Where none of them can do the work, it takes plain
/// products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    pub flash: bool,
    pub memory_efficient: bool,
    pub cudnn: bool,
}

/// Chooses, for the whole program, whether float32 products on a GPU may round their factors to the ten bits of TF32,
/// and the kernels of attention.
///
/// # Errors
/// What libtorch says.
pub fn choose_kernels(tf32: bool, attention: Kernels) -> Result<()> {
    let Kernels { flash, memory_efficient, cudnn } = attention;
    // SAFETY: settings of libtorch's.
    Ok(checked(unsafe { ppo_switches(tf32, flash, memory_efficient, cudnn) })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{test_device, to_host};

    #[test]
    fn values_arrive_and_memory_is_counted() {
        let device = test_device();
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let there = on_device(&values, device);
        wait_for(device);
        assert_eq!((there.device(), to_host(&there)), (device, values));
        match device_memory(device) {
            None => assert_eq!((device, device_capacity(device)), (Device::Cpu, None)),
            Some(memory) => {
                assert!(device_capacity(device).unwrap() > memory.most_taken);
                assert!(memory.held >= 4000 && memory.most_held >= memory.held, "{memory:?}");
                assert!(memory.taken >= memory.held && memory.most_taken >= memory.taken, "{memory:?}");
            }
        }
    }

    /// What libtorch does by itself; other choices would be those of all tests beside this one.
    #[test]
    fn kernels_are_chosen() {
        choose_kernels(false, Kernels { flash: true, memory_efficient: true, cudnn: true }).unwrap();
    }
}
