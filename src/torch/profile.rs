//! How long each operation of libtorch takes.

use serde::Serialize;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

unsafe extern "C" {
    fn ppo_profile_begin();
    fn ppo_profile_end(state: *mut c_void, take: extern "C" fn(*mut c_void, *const c_char, i64, f64));
}

/// All calls of one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// As libtorch names it, such as `aten::mm`.
    pub name: String,
    pub calls: u64,
    /// Wall-clock time, without that of the operations it calls. On a GPU, that of the calls alone.
    pub seconds: f64,
}

/// A profile that is being taken: operations of all threads are timed until it is read.
pub struct Profile {
    /// One at a time.
    _one: MutexGuard<'static, ()>,
    stopped: bool,
}

static ONE: Mutex<()> = Mutex::new(());

impl Profile {
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: begin and end are paired, since the lock keeps others out.
        unsafe { ppo_profile_begin() };
        Self { _one: one, stopped: false }
    }

    /// The operations since the start.
    pub fn read(mut self) -> Vec<Operation> {
        self.stop()
    }

    fn stop(&mut self) -> Vec<Operation> {
        extern "C" fn take(state: *mut c_void, name: *const c_char, calls: i64, seconds: f64) {
            // SAFETY: `state` is the vector below, and `name` a string of the shim's, both alive during the call.
            let (all, name) = unsafe { (&mut *(state as *mut Vec<Operation>), CStr::from_ptr(name)) };
            all.push(Operation { name: name.to_string_lossy().into_owned(), calls: calls as u64, seconds });
        }
        let mut all: Vec<Operation> = Vec::new();
        if !std::mem::replace(&mut self.stopped, true) {
            // SAFETY: `take` is called before this returns, with the vector it casts back.
            unsafe { ppo_profile_end((&mut all as *mut Vec<Operation>).cast(), take) };
        }
        all
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn operations_are_timed_without_what_they_call() {
        let profile = Profile::start();
        let x = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
        drop(x.linear(&x, None::<&Tensor>));
        let all = profile.read();
        let of = |name: &str| all.iter().find(|operation| operation.name == name);
        assert!(of("aten::ones").is_some_and(|ones| ones.calls >= 1 && ones.seconds >= 0.0), "{all:?}");
        assert!(all.iter().any(|operation| operation.name.contains("mm") || operation.name.contains("linear")));
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
                let profile = Profile::start();
                std::thread::sleep(Duration::from_micros(200));
                let all = profile.read();
                assert!(all.iter().all(|operation| operation.calls > 0 && operation.seconds.is_finite()), "{all:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
