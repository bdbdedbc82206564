//! How long each operation of libtorch takes: on a CPU between its call and its return, on a GPU while its kernels run.

use super::{checked, wait_for};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::Device;

unsafe extern "C" {
    fn ppo_profile_begin();
    fn ppo_profile_end(state: *mut c_void, take: Take);
    fn ppo_kernels_begin() -> *mut c_char;
    fn ppo_kernels_end(state: *mut c_void, take: Take) -> *mut c_char;
}

/// Receives an operation: its name, calls and seconds.
type Take = extern "C" fn(*mut c_void, *const c_char, i64, f64);

/// All calls of one operation, or of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// As libtorch names it, such as `aten::mm`; of a kernel, its own name, with the types it was made for.
    pub name: String,
    pub calls: u64,
    /// Wall-clock time, without that of the operations it calls; of a kernel, the time it ran.
    pub seconds: f64,
    /// Whether it is a kernel, or a copy that a GPU does.
    pub kernel: bool,
}

/// A profile that is being taken: operations of all threads are timed until it is read.
pub struct Profile {
    device: Device,
    /// One at a time.
    _one: MutexGuard<'static, ()>,
    stopped: bool,
}

static ONE: Mutex<()> = Mutex::new(());

impl Profile {
    /// From now on, of operations on a CPU, or of the kernels of a GPU.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn start(device: Device) -> Result<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(device);
        // SAFETY: begin and end are paired, since the lock keeps others out.
        match device {
            Device::Cuda(_) => checked(unsafe { ppo_kernels_begin() })?,
            _ => unsafe { ppo_profile_begin() },
        }
        Ok(Self { device, _one: one, stopped: false })
    }

    /// The operations since the start, once they are done.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn read(mut self) -> Result<Vec<Operation>> {
        wait_for(self.device);
        let all = self.stop()?;
        ensure!(self.device == Device::Cpu || !all.is_empty(), "the kernels of the GPU could not be watched");
        Ok(all)
    }

    fn stop(&mut self) -> Result<Vec<Operation>> {
        extern "C" fn take(state: *mut c_void, name: *const c_char, calls: i64, seconds: f64) {
            // SAFETY: `state` is the vector below, and `name` a string of the shim's, both alive during the call.
            let (all, name) = unsafe { (&mut *(state as *mut Vec<Operation>), CStr::from_ptr(name)) };
            let name = name.to_string_lossy().into_owned();
            all.push(Operation { name, calls: calls as u64, seconds, kernel: false });
        }
        let mut all: Vec<Operation> = Vec::new();
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(all);
        }
        let state = (&mut all as *mut Vec<Operation>).cast();
        // SAFETY: `take` is called before these return, with the vector it casts back.
        match self.device {
            Device::Cuda(_) => checked(unsafe { ppo_kernels_end(state, take) })?,
            _ => unsafe { ppo_profile_end(state, take) },
        }
        all.iter_mut().for_each(|operation| operation.kernel = self.device != Device::Cpu);
        Ok(all)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::test_device;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tch::{Kind, Tensor};

    #[test]
    fn operations_are_timed_without_what_they_call() {
        let profile = Profile::start(Device::Cpu).unwrap();
        let x = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
        drop(x.linear(&x, None::<&Tensor>));
        let all = profile.read().unwrap();
        let of = |name: &str| all.iter().find(|operation| operation.name == name);
        assert!(of("aten::ones").is_some_and(|ones| ones.calls >= 1 && ones.seconds >= 0.0), "{all:?}");
        assert!(all.iter().any(|operation| operation.name.contains("mm") || operation.name.contains("linear")));
    }

    #[test]
    fn kernels_are_timed_where_there_are_any() {
        let device = test_device();
        let x = Tensor::ones([64, 64], (Kind::Float, device));
        let profile = Profile::start(device).unwrap();
        (0..5).for_each(|_| drop(x.matmul(&x)));
        let all = profile.read().unwrap();
        assert!(all.iter().all(|operation| operation.kernel == (device != Device::Cpu)), "{all:?}");
        assert!(all.iter().any(|operation| operation.calls >= 5 && operation.seconds > 0.0), "{all:?}");
    }

    /// What another thread had begun before the end is over after it, when nobody reads it any more.
    #[test]
    fn operations_of_other_threads_may_outlast_a_profile() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let x = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
                    while !done.load(Ordering::Relaxed) {
                        let _ = x.linear(&x, None::<&Tensor>).sum(Kind::Float);
                    }
                });
            }
            for _ in 0..500 {
                let profile = Profile::start(Device::Cpu).unwrap();
                std::thread::sleep(Duration::from_micros(200));
                let all = profile.read().unwrap();
                assert!(all.iter().all(|operation| operation.calls > 0 && operation.seconds.is_finite()), "{all:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
