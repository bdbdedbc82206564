//! Kernels of a GPU that are recorded once and started again together: a graph of CUDA.
//!
//! The host needs some 20 microseconds for each operation, and a GPU fewer for most of those that decode a token.
//! Started as one graph they wait for nothing. What is recorded has the addresses of its tensors, which must stay where
//! they are; what it allocates meanwhile is its own.

use super::checked;
use super::fault::{Fault, catching};
use anyhow::Result;
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::panic::resume_unwind;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::Device;

unsafe extern "C" {
    fn ppo_own_stream(device: i64) -> *mut c_char;
    fn ppo_can_record(device: i64) -> bool;
    fn ppo_graph_begin(device: i64, before: *mut c_void, out: *mut *mut c_void) -> *mut c_char;
    fn ppo_graph_end(graph: *mut c_void) -> *mut c_char;
    fn ppo_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn ppo_graph_free(graph: *mut c_void);
}

/// Gives this thread a stream of its own on a GPU, from now on, since what is given to the default one cannot be
/// recorded. What any thread gave to the GPU before is done by then. On a CPU nothing.
///
/// # Errors
/// What libtorch says.
pub fn own_stream(device: Device) -> Result<()> {
    match device {
        Device::Cuda(index) => {
            let _alone = alone();
            // SAFETY: it changes the state of libtorch in this thread.
            Ok(checked(unsafe { ppo_own_stream(index as i64) })?)
        }
        _ => Ok(()),
    }
}

/// A recorded graph.
pub struct Graph(*mut c_void);

impl Graph {
    /// Whether this thread can record what it does on a device. Not once a recording has failed in a way that leaves
    /// libtorch in disorder.
    pub fn is_possible(device: Device) -> bool {
        // SAFETY: it looks at the state of libtorch in this thread.
        matches!(device, Device::Cuda(index) if !FAILED.load(Relaxed) && unsafe { ppo_can_record(index as i64) })
    }

    /// Records what `work` does on a GPU, which is not done yet. The memory of a graph `before`, which is not started
    /// any more, is used again.
    ///
    /// # Errors
    /// What libtorch says: memory that runs out; work that needs the host.
    pub fn record(device: Device, before: Option<&Self>, work: impl FnOnce()) -> Result<Self> {
        let Device::Cuda(index) = device else { anyhow::bail!("there are graphs on GPUs alone") };
        let _alone = alone();
        let mut graph = Self(null_mut());
        let before = before.map_or(null_mut(), |before| before.0);
        // SAFETY: the shim fills in a new graph unless it returns a message; `before` lives during the call.
        in_order(checked(unsafe { ppo_graph_begin(index as i64, before, &mut graph.0) }))?;
        let done = catching(|| {
            work();
            Ok(())
        });
        // SAFETY: recording has begun, and has not ended.
        let ended = in_order(checked(unsafe { ppo_graph_end(graph.0) }));
        if let Err(fault) = ended {
            // libtorch's allocator still knows it.
            std::mem::forget(graph);
            return done.and(Err(fault.into()));
        }
        done.map(|()| graph)
    }

    /// Leaves a graph that is not started any more, for the next one that this thread records after `left`: libtorch
    /// would not give the memory of a graph that is gone to another.
    pub fn leave(self) {
        LEFT.set(Some(self));
    }

    /// The graph that this thread has left.
    pub fn left() -> Option<Self> {
        LEFT.take()
    }

    /// Does what was recorded.
    ///
    /// # Panics
    /// If it fails, like libtorch's own functions in `tch`.
    pub fn replay(&self) {
        // SAFETY: a graph that was recorded to its end.
        checked(unsafe { ppo_graph_replay(self.0) }).unwrap_or_else(|fault: Fault| resume_unwind(Box::new(fault)));
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by the shim, or null, and dropped once.
        unsafe { ppo_graph_free(self.0) }
    }
}

static FAILED: AtomicBool = AtomicBool::new(false);
static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    static LEFT: Cell<Option<Graph>> = const { Cell::new(None) };
}

/// Keeps recordings apart from waits for all of a GPU, which would break one.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers that beginning or ending a recording has failed.
fn in_order(done: Result<(), Fault>) -> Result<(), Fault> {
    if done.is_err() {
        FAILED.store(true, Relaxed);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};
    use tch::Tensor;

    /// On a GPU; elsewhere there are none.
    #[test]
    fn what_is_recorded_is_done_when_it_is_started() {
        let device = test_device();
        std::thread::spawn(move || {
            own_stream(device).unwrap();
            let mut sum = on_device(&[1f32, 2.0], device);
            let add = |sum: &mut Tensor| drop(sum.g_add_(&(&*sum * 2.0)));
            if !Graph::is_possible(device) {
                assert_eq!(device, Device::Cpu);
                assert!(Graph::record(device, None, || add(&mut sum)).is_err());
                return;
            }
            add(&mut sum); // 3, 6
            let graph = Graph::record(device, None, || add(&mut sum)).unwrap();
            assert_eq!(to_host(&sum), [3.0, 6.0]);
            graph.replay();
            graph.replay();
            assert_eq!(to_host(&sum), [27.0, 54.0]);
            // What needs the host cannot be recorded, and does no harm to what comes after it.
            assert!(Graph::record(device, Some(&graph), || drop(to_host(&sum))).is_err());
            let again = Graph::record(device, Some(&graph), || add(&mut sum)).unwrap();
            again.replay();
            assert_eq!(to_host(&sum), [81.0, 162.0]);
        })
        .join()
        .unwrap();
    }
}
