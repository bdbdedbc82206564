//! What libtorch throws, as errors.
//!
//! Its C++ exceptions reach us as panics of tch, whose plain methods unwrap, and as messages of our shim. Decided: both
//! become a `Fault` in one place, `catching`, which stands around a command (exit code 1), around a run (advice about
//! its memory) and around the passes of a mini-batch (which is cut into smaller micro-batches when memory runs out).
//! Every other panic is a mistake of ours, and passes through: `report_panics` says what to do with it.

use anyhow::Result;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use tch::Device;

/// An exception of libtorch's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first line of its message.
    said: String,
}

/// How messages begin or what they contain when memory has run out.
const MEMORY: [&str; 4] = [
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory", // of CUDA, its allocator and its libraries
    "std::bad_alloc",
];
/// What they contain when a device does not answer as it should.
const DEVICE: [&str; 4] = ["CUDA error", "CUDA driver", "CUDNN", "CUBLAS"];

impl Fault {
    /// One with libtorch's message.
    pub fn said(message: &str) -> Self {
        Self { said: message.lines().next().unwrap_or("unknown error").trim().to_string() }
    }

    /// The first line of libtorch's message.
    pub fn message(&self) -> &str {
        &self.said
    }

    /// What a panic carries, if it comes from libtorch.
    fn of_panic(payload: &(dyn Any + Send)) -> Option<Self> {
        if let Some(fault) = payload.downcast_ref::<Self>() {
            return Some(fault.clone());
        }
        // `unwrap` writes `Torch("...")`, with the message as Rust would write it in source code.
        let (_, debug) = payload.downcast_ref::<String>()?.split_once("Torch(\"")?;
        let line = debug.split("\\n").next().unwrap_or_default();
        let line = line.strip_suffix("\")").unwrap_or(line);
        Some(Self::said(&line.replace("\\\"", "\"").replace("\\\\", "\\")))
    }

    /// Whether memory has run out.
    pub fn is_memory(&self) -> bool {
        MEMORY.iter().any(|said| self.said.contains(said))
    }

    /// Whether a GPU does not answer as it should.
    fn is_device(&self) -> bool {
        DEVICE.iter().any(|said| self.said.contains(said))
    }

    /// Where memory has run out.
    pub fn device(&self) -> Device {
        if self.said.contains("CUDA") { Device::Cuda(0) } else { Device::Cpu }
    }

    /// The fault behind an error, if memory has run out.
    pub fn memory(error: &anyhow::Error) -> Option<&Self> {
        error.downcast_ref::<Self>().filter(|fault| fault.is_memory())
    }

    /// What could not be had, such as "1073741824 bytes".
    fn wanted(&self) -> Option<&str> {
        let (_, after) = self.said.split_once("tried to allocate ").or(self.said.split_once("Tried to allocate "))?;
        let end = after.find(". ").unwrap_or(after.len());
        Some(after[..end].trim_end_matches('.'))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let on = if self.device() == Device::Cpu { "" } else { " on the GPU" };
        match self.wanted() {
            Some(wanted) if self.is_memory() => match wanted.strip_suffix(" bytes").and_then(|n| n.parse().ok()) {
                Some(bytes) => write!(f, "not enough memory{on}: {} more could not be had", in_gib(bytes)),
                None => write!(f, "not enough memory{on}: {wanted} more could not be had"),
            },
            _ if self.is_memory() => write!(f, "not enough memory{on}"),
            _ if self.is_device() => write!(f, "the GPU failed: {}", self.said),
            _ => write!(f, "libtorch failed: {}\n{REPORT}", self.said),
        }
    }
}

impl std::error::Error for Fault {}

fn in_gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// What a user can do about a mistake of ours.
const REPORT: &str = "this is a mistake in ppo-train: please report it with this message, the command and the recipe";

/// Calls `work`; what libtorch throws in it is an error that can be downcast to `Fault`.
///
/// # Errors
/// Those of `work`, and faults.
///
/// # Panics
/// If `work` does, and libtorch is not to blame.
pub fn catching<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let gradients = super::gradients_are_recorded();
    // What `work` leaves half done is for its caller to know; tensors are freed as the stack unwinds.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        // `tch::no_grad` does not end where a panic leaves it.
        super::record_gradients(gradients);
        match Fault::of_panic(&*payload) {
            Some(fault) => Err(fault.into()),
            None => resume_unwind(payload),
        }
    })
}

/// What is printed about panics from now on: nothing about those that become errors, of libtorch and of other crates'
/// readers, and of all others a request to report them. With RUST_BACKTRACE=1 mistakes, not machines, show where they
/// come from.
pub fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let fault = Fault::of_panic(info.payload());
        if crate::panics::are_expected() || fault.as_ref().is_some_and(|fault| fault.is_memory() || fault.is_device()) {
            return;
        }
        // Standard error may be closed.
        let mut out = io::stderr().lock();
        if fault.is_none() {
            let what = info.payload_as_str().unwrap_or("no message").escape_debug();
            let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
            let _ = writeln!(out, "error: the program panicked{place}: {what}\n{REPORT}");
        }
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            let _ = writeln!(out, "{trace}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    /// More memory than any machine has.
    const HUGE: i64 = 1 << 60;

    #[test]
    fn what_libtorch_throws_is_an_error() {
        let memory = catching(|| Ok(Tensor::zeros([HUGE], (Kind::Float, Device::Cpu)))).unwrap_err();
        assert!(Fault::memory(&memory).is_some());
        assert_eq!(memory.to_string(), "not enough memory: 4294967296.00 GiB more could not be had");
        let shapes = catching(|| Ok(Tensor::from_slice(&[1, 2]) + Tensor::from_slice(&[1, 2, 3]))).unwrap_err();
        assert!(shapes.is::<Fault>() && Fault::memory(&shapes).is_none());
        let said = shapes.to_string();
        assert!(said.starts_with("libtorch failed: The size of tensor a (2) must match") && said.contains("report"));
        assert_eq!(catching(|| anyhow::bail!("ours")).map(|()| 0).unwrap_err().to_string(), "ours");
    }

    #[test]
    fn gradients_are_recorded_again_after_a_fault() {
        let thrown = catching(|| Ok(tch::no_grad(|| Tensor::zeros([HUGE], (Kind::Float, Device::Cpu)))));
        assert!(thrown.is_err() && super::super::gradients_are_recorded());
        let x = Tensor::from(1f32).set_requires_grad(true);
        assert!((x * 2).requires_grad());
        tch::no_grad(|| {
            assert!(catching(|| Ok(tch::with_grad(|| Tensor::zeros([HUGE], (Kind::Float, Device::Cpu))))).is_err());
            assert!(!super::super::gradients_are_recorded());
        });
    }

    #[test]
    fn other_panics_are_not_caught() {
        let ours = catch_unwind(|| catching(|| -> Result<()> { panic!("a mistake") })).unwrap_err();
        assert_eq!(ours.downcast_ref::<&str>(), Some(&"a mistake"));
    }

    /// Messages as libtorch 2.13 writes them, the second of its CUDA half, which is not here.
    #[test]
    fn messages_say_what_was_wanted_and_where() {
        let cuda = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which";
        for (said, shown) in [
            (
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried \
                 to allocate 3221225472 bytes. Error code 12 (Cannot allocate memory)",
                "not enough memory: 3.00 GiB more could not be had",
            ),
            (cuda, "not enough memory on the GPU: 20.00 GiB more could not be had"),
            ("CUDA error: out of memory", "not enough memory on the GPU"),
            ("std::bad_alloc", "not enough memory"),
            ("CUDA error: unspecified launch failure\nmore", "the GPU failed: CUDA error: unspecified launch failure"),
        ] {
            assert_eq!(Fault::said(said).to_string(), shown);
        }
        assert_eq!(Fault::said(cuda).device(), Device::Cuda(0));
    }
}
