//! The interface to libtorch: what `tch` does not expose (through `shim.cpp`), and the few places where tensors and
//! host memory meet.
//!
//! All `unsafe` code of the crate is in this module.

mod allocator;
mod available;
mod ceiling;
mod device;
mod fault;
mod flash;
mod fused;
mod gpu;
mod graph;
mod heap;
mod machine;
#[cfg(feature = "nccl")]
pub mod nccl;
mod neighbours;
mod packed;
mod profile;

pub use allocator::Heap;
pub use ceiling::{products, shortest};
pub use device::{DEVICES, device, fetch, named_device, send, test_device, test_device_name};
pub use fault::{Fault, catching, report_panics};
pub use flash::Flash;
pub use fused::{
    Branch, NewToken, add_norm, attend, attend_one, fuses, is_fused, norm, sample, split, swiglu, vocabulary,
};
pub use gpu::{DeviceMemory, Kernels, choose_kernels, device_capacity, device_memory, has_cuda, on_device, wait_for};
pub use graph::{Graph, own_stream};
pub use heap::{
    Held, has_room, keep_freed_memory, make_room, most_resident_bytes, resident_bytes, return_large_blocks, trim,
    trim_above,
};
pub use machine::Machine;
pub use neighbours::share_cpu;
pub use packed::Packed;
pub use profile::{Operation, Profile};

use anyhow::{Context, Result};
use memmap2::Mmap;
use safetensors::Dtype;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ppo_version() -> *const c_char;
    fn ppo_capability() -> *mut c_char;
    fn ppo_free(message: *mut c_char);
    fn ppo_set_grad(tensor: *mut C_tensor, grad: *mut C_tensor) -> *mut c_char;
    fn ppo_generator(seed: u64, out: *mut *mut c_void) -> *mut c_char;
    fn ppo_generator_free(generator: *mut c_void);
    fn ppo_normal(tensor: *mut C_tensor, mean: f64, deviation: f64, generator: *mut c_void) -> *mut c_char;
    fn ppo_fused_adamw(
        weights: *mut C_tensor,
        grad: *mut C_tensor,
        exp_avg: *mut C_tensor,
        exp_avg_sq: *mut C_tensor,
        step: *mut C_tensor,
        skip: *mut C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn ppo_recompute(
        x: *mut C_tensor,
        state: *mut c_void,
        call: extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut c_char) -> *mut C_tensor,
        drop: extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// The version of libtorch.
pub fn version() -> String {
    // SAFETY: a string literal of the shim's.
    unsafe { CStr::from_ptr(ppo_version()) }.to_string_lossy().into_owned()
}

/// The instructions that libtorch's own kernels use on this CPU, such as AVX2.
fn capability() -> String {
    // SAFETY: a string that the shim allocated.
    taken(unsafe { ppo_capability() }).unwrap_or_default()
}

/// The version of the C library.
fn libc_version() -> String {
    #[cfg(target_env = "gnu")]
    // SAFETY: a string literal of glibc's.
    return format!("glibc {}", unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy());
    #[cfg(not(target_env = "gnu"))]
    String::from("unknown")
}

/// A string of the shim's, which is freed; none if it is null.
fn taken(string: *mut c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the shim returns NUL-terminated strings that it allocated and that we own.
    unsafe {
        let text = CStr::from_ptr(string).to_string_lossy().into_owned();
        ppo_free(string);
        Some(text)
    }
}

/// Turns the shim's answer into a `Result`.
fn checked(message: *mut c_char) -> Result<(), Fault> {
    taken(message).map_or(Ok(()), |text| Err(Fault::said(&text)))
}

/// Whether operations are recorded for a backward pass, in this thread.
fn gradients_are_recorded() -> bool {
    // SAFETY: a thread-local flag of libtorch's, which says what it was.
    let recorded = unsafe { torch_sys::at_grad_set_enabled(0) } != 0;
    record_gradients(recorded);
    recorded
}

fn record_gradients(recorded: bool) {
    // SAFETY: as above.
    unsafe { torch_sys::at_grad_set_enabled(i32::from(recorded)) };
}

/// Makes `grad` (same shape, kind and device) the place where `backward` accumulates the gradient of the leaf `tensor`.
pub fn set_grad(tensor: &mut Tensor, grad: &mut Tensor) -> Result<()> {
    // SAFETY: both pointers are live at::Tensors for the duration of the call.
    Ok(checked(unsafe { ppo_set_grad(tensor.as_mut_ptr(), grad.as_mut_ptr()) })?)
}

/// A generator of libtorch's random numbers, separate from the one that all threads share.
pub struct Generator(*mut c_void);

impl Generator {
    /// A generator of the numbers that the shared one would yield after `manual_seed(seed)`.
    pub fn seeded(seed: u64) -> Result<Self> {
        let mut generator = std::ptr::null_mut();
        // SAFETY: the shim fills `generator` unless it returns a message.
        checked(unsafe { ppo_generator(seed, &mut generator) })?;
        Ok(Self(generator))
    }

    /// Fills a float tensor on the CPU from the normal distribution with mean 0.
    pub fn normal(&mut self, tensor: &mut Tensor, deviation: f64) -> Result<()> {
        // SAFETY: a live at::Tensor and the live generator that `seeded` made.
        Ok(checked(unsafe { ppo_normal(tensor.as_mut_ptr(), 0.0, deviation, self.0) })?)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by the shim, and dropped once.
        unsafe { ppo_generator_free(self.0) }
    }
}

/// Hyper-parameters of one AdamW step (arXiv:1711.05101, algorithm 2).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

/// One AdamW step over flat float32 buffers of equal length, in place; `step`, a float32 scalar, is its number from 1.
/// If `skip`, a float32 scalar, is 1, everything stays as it is.
pub fn fused_adamw(
    weights: &mut Tensor,
    grad: &mut Tensor,
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    step: &mut Tensor,
    skip: &mut Tensor,
    p: AdamWStep,
) -> Result<()> {
    // SAFETY: all pointers are live at::Tensors for the duration of the call.
    let done = checked(unsafe {
        ppo_fused_adamw(
            weights.as_mut_ptr(),
            grad.as_mut_ptr(),
            exp_avg.as_mut_ptr(),
            exp_avg_sq.as_mut_ptr(),
            step.as_mut_ptr(),
            skip.as_mut_ptr(),
            p.lr,
            p.betas[0],
            p.betas[1],
            p.weight_decay,
            p.eps,
        )
    });
    Ok(done?)
}

/// What a `recompute` computes: a function of one tensor, called again from whichever thread runs the backward pass.
type Body = Box<dyn Fn(&Tensor) -> Tensor + Send>;

/// `body(x)`, of which only x is kept; the backward pass computes the rest again (gradient checkpointing,
/// arXiv:1604.06174). Leaves that `body` holds get their gradients as usual. If no gradient is needed, this is just
/// `body(x)`.
///
/// # Panics
/// If `body` does, like libtorch's own functions in `tch`.
pub fn recompute(x: &Tensor, body: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Tensor {
    extern "C" fn call(state: *mut c_void, x: *mut C_tensor, message: *mut *mut c_char) -> *mut C_tensor {
        // SAFETY: `state` is the box made below, alive until `drop` is called; `x` is a live tensor, cloned at once.
        let (body, x) = unsafe { (&*(state as *const Body), Tensor::clone_from_ptr(x)) };
        // No panic may cross the other side; any fault goes through it as the message it was.
        let y = catch_unwind(AssertUnwindSafe(|| catching(|| Ok(body(&x)))));
        let said = match y {
            // The other side owns the tensor from here on.
            Ok(Ok(mut y)) => {
                let pointer = y.as_mut_ptr();
                std::mem::forget(y);
                return pointer;
            }
            Ok(Err(fault)) => fault.downcast_ref::<Fault>().map(|fault| fault.message().to_string()),
            Err(_) => None,
        };
        let said = CString::new(said.unwrap_or("a recomputed part of the model failed".into())).unwrap_or_default();
        // SAFETY: the shim frees the copy.
        unsafe { *message = libc::strdup(said.as_ptr()) };
        std::ptr::null_mut()
    }
    extern "C" fn drop(state: *mut c_void) {
        // SAFETY: made by `Box::into_raw` below, and the shim calls this once.
        std::mem::drop(unsafe { Box::from_raw(state as *mut Body) });
    }
    if !x.requires_grad() {
        return body(x);
    }
    let state = Box::into_raw(Box::new(Box::new(body) as Body)) as *mut c_void;
    let mut out = std::ptr::null_mut();
    // SAFETY: the shim takes ownership of the state and drops it, keeps no pointer to `x`, and fills `out` unless it
    // returns a message.
    let result = checked(unsafe { ppo_recompute(x.shallow_clone().as_mut_ptr(), state, call, drop, &mut out) });
    result.unwrap_or_else(|fault| resume_unwind(Box::new(fault)));
    // SAFETY: a new tensor, ours.
    unsafe { Tensor::from_ptr(out) }
}

/// The bytes of a contiguous tensor on the CPU.
///
/// # Panics
/// If the tensor is elsewhere or has gaps: a bug of ours, not a user's mistake.
pub fn bytes(tensor: &Tensor) -> &[u8] {
    assert!(tensor.is_contiguous() && tensor.device() == Device::Cpu, "bytes of a tensor that is not plain memory");
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return &[];
    }
    // SAFETY: a contiguous CPU tensor of `length` bytes starts at data_ptr, and the borrow keeps it alive.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const u8, length) }
}

/// The bytes of a contiguous tensor on the CPU, to be overwritten.
///
/// # Panics
/// As `bytes`.
pub fn bytes_mut(tensor: &mut Tensor) -> &mut [u8] {
    let length = bytes(tensor).len();
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as in `bytes`; other tensors may share the memory, but nobody reads it while its only thread is here.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut u8, length) }
}

/// The numbers of a contiguous tensor on the CPU.
///
/// # Panics
/// If the tensor is elsewhere, has gaps or is of another kind: a bug of ours, not a user's mistake.
pub fn numbers_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    assert!(tensor.is_contiguous() && tensor.device() == Device::Cpu && tensor.kind() == T::KIND);
    let length = tensor.numel();
    if length == 0 {
        return &mut [];
    }
    // SAFETY: a contiguous CPU tensor of `length` numbers of this kind starts at data_ptr; the borrow keeps it alive.
    // Other tensors may share the memory, but nobody reads it while its only thread is here.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut T, length) }
}

/// Maps a file of tensors into memory, read only.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = crate::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the mapping is private and read only; if another process truncates the file meanwhile, this one dies.
    unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map {}", path.display()))
}

/// Copies a float tensor of any kind, shape and device to the host as float32, in row order.
pub fn to_host(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view(-1);
    let mut values = vec![0f32; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}

/// Copies an int64 tensor to the host, in row order.
pub fn ids_to_host(tensor: &Tensor) -> Vec<i64> {
    let flat = tensor.to_device(Device::Cpu).contiguous().view(-1);
    let mut values = vec![0i64; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}

/// Token ids of several sequences as [B, T], padded on the right with zeros up to the longest.
pub fn padded<S: AsRef<[i64]>>(sequences: &[S], device: Device) -> Tensor {
    let width = sequences.iter().map(|s| s.as_ref().len()).max().unwrap_or(0);
    let mut ids = vec![0i64; sequences.len() * width];
    for (row, sequence) in ids.chunks_mut(width.max(1)).zip(sequences) {
        let sequence = sequence.as_ref();
        row[..sequence.len()].copy_from_slice(sequence);
    }
    on_device(&ids, device).view([sequences.len() as i64, width as i64])
}

/// The kind that holds a safetensors type, for the types that weights come in.
pub fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F16 => Some(Kind::Half),
        Dtype::F64 => Some(Kind::Double),
        Dtype::I64 => Some(Kind::Int64),
        _ => None,
    }
}

/// The safetensors type of a kind that we write.
pub fn dtype_of(kind: Kind) -> Option<Dtype> {
    let all = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::I64];
    all.into_iter().find(|dtype| kind_of(*dtype) == Some(kind))
}

/// Whether this CPU has instructions for products of bfloat16 (AVX512-BF16; every CPU with AMX has them too).
pub fn cpu_multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
