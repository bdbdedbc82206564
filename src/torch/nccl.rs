//! NCCL, NVIDIA's collectives between GPUs: libnccl, loaded while the program runs, so that a build needs neither it
//! nor CUDA. Built with `--features nccl`.
//!
//! Operations are queued on libtorch's own stream of the GPU, in order with its kernels: nobody waits for them on the
//! host, and their memory is safe to reuse for what is queued after them. What NCCL offers is declared as in nccl.h of
//! NCCL 2; its numbers have not changed since 2.10.
//!
//! Written and compiled; not run on a GPU.

use super::checked;
use crate::bad;
use anyhow::{Result, anyhow};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// The library's name, for the system's loader. libtorch for CUDA has loaded it already.
const NAME: &str = "libnccl.so.2";
/// Bytes of a group's id.
pub const ID: usize = 128;
/// ncclSum.
const SUM: c_int = 0;
/// ncclSuccess.
const SUCCESS: c_int = 0;

unsafe extern "C" {
    fn ppo_stream(device: i64, out: *mut *mut c_void) -> *mut c_char;
}

#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; ID]);

type Handle = *mut c_void;
type Stream = *mut c_void;

/// Declares the functions of libnccl that we call, and loads them.
macro_rules! functions {
    ($($field:ident: $name:literal, fn($($argument:ty),*) -> $result:ty;)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// Keeps them in memory.
            _library: Library,
        }

        impl Functions {
            fn of(library: Library) -> Result<Self, libloading::Error> {
                $(
                    // SAFETY: the type is that of nccl.h.
                    let $field = *unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> $result>(concat!($name, "\0").as_bytes())
                    }?;
                )*
                Ok(Self { $($field,)* _library: library })
            }
        }
    };
}

functions! {
    error_text: "ncclGetErrorString", fn(c_int) -> *const c_char;
    last_error: "ncclGetLastError", fn(Handle) -> *const c_char;
    version: "ncclGetVersion", fn(*mut c_int) -> c_int;
    unique_id: "ncclGetUniqueId", fn(*mut UniqueId) -> c_int;
    init_rank: "ncclCommInitRank", fn(*mut Handle, c_int, UniqueId, c_int) -> c_int;
    destroy: "ncclCommDestroy", fn(Handle) -> c_int;
    abort: "ncclCommAbort", fn(Handle) -> c_int;
    group_start: "ncclGroupStart", fn() -> c_int;
    group_end: "ncclGroupEnd", fn() -> c_int;
    all_reduce: "ncclAllReduce", fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
    reduce: "ncclReduce", fn(*const c_void, *mut c_void, usize, c_int, c_int, c_int, Handle, Stream) -> c_int;
    broadcast: "ncclBroadcast", fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
}

/// The functions, loaded once and for good: NCCL has threads of its own that run in them.
///
/// # Errors
/// Bad input: there is no NCCL.
fn nccl() -> Result<&'static Functions> {
    static LOADED: OnceLock<Functions> = OnceLock::new();
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded);
    }
    let new = Functions::load(NAME)?;
    Ok(LOADED.get_or_init(|| new))
}

impl Functions {
    /// # Errors
    /// Bad input: there is no such library, or it is too old.
    fn load(name: &str) -> Result<Self> {
        // SAFETY: the library's own initialisation, which libtorch relies on too.
        let loaded = unsafe { Library::new(name) }.and_then(Self::of);
        loaded.map_err(|error| {
            bad!(
                "GPUs exchange through NCCL, and {name} cannot be loaded: {error}\nit comes with the libtorch that \
                 scripts/setup --cuda fetches, and as NVIDIA's package libnccl2; LD_LIBRARY_PATH may name its folder"
            )
        })
    }

    /// Turns a code into a `Result`; `handle` may be null.
    fn checked(&self, code: c_int, what: &str, handle: Handle) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: both return texts of the library's own.
        let [code, last] = unsafe { [(self.error_text)(code), (self.last_error)(handle)] }.map(|text| {
            if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
        });
        let last = if last.is_empty() { last } else { format!(" ({last})") };
        Err(anyhow!("NCCL {} cannot {what}: {code}{last}", self.version_text()))
    }

    /// Such as 2.29.7; NCCL writes it as 22907.
    fn version_text(&self) -> String {
        let mut version = 0;
        // SAFETY: it fills a number.
        let _ = unsafe { (self.version)(&mut version) };
        format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }
}

/// The id of a new group, which all its ranks need in order to join it.
///
/// # Errors
/// Bad input: there is no NCCL. What NCCL says.
pub fn new_id() -> Result<[u8; ID]> {
    let nccl = nccl()?;
    let mut id = UniqueId([0; ID]);
    // SAFETY: it fills the id.
    let code = unsafe { (nccl.unique_id)(&mut id) };
    nccl.checked(code, "make an id", std::ptr::null_mut())?;
    Ok(id.0)
}

/// Whether NCCL moves numbers of this kind.
pub fn carries(kind: Kind) -> bool {
    number(kind).is_some()
}

/// ncclDataType_t.
fn number(kind: Kind) -> Option<c_int> {
    match kind {
        Kind::Int8 => Some(0),
        Kind::Uint8 => Some(1),
        Kind::Int => Some(2),
        Kind::Int64 => Some(4),
        Kind::Half => Some(6),
        Kind::Float => Some(7),
        Kind::Double => Some(8),
        Kind::BFloat16 => Some(9),
        _ => None,
    }
}

/// Ranks with a GPU each that exchange tensors. All of them make the same calls in the same order.
pub struct Group {
    nccl: &'static Functions,
    handle: Handle,
    device: i64,
    rank: usize,
}

impl Group {
    /// Joins the group with this id, and waits for all others.
    ///
    /// # Errors
    /// Bad input: there is no NCCL, or not on a GPU. What NCCL says, such as that two ranks have the same GPU.
    pub fn join(id: &[u8; ID], rank: usize, size: usize, device: Device) -> Result<Self> {
        let Device::Cuda(index) = device else { return Err(bad!("NCCL is for GPUs, not for {device:?}")) };
        let (nccl, device) = (nccl()?, index as i64);
        // NCCL takes the GPU that is this thread's own.
        stream(device)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: it fills the handle, which `drop` destroys.
        let code = unsafe { (nccl.init_rank)(&mut handle, size as c_int, UniqueId(*id), rank as c_int) };
        nccl.checked(code, &format!("let rank {rank} of {size} join with cuda:{device}"), handle)?;
        Ok(Self { nccl, handle, device, rank })
    }

    /// Replaces a contiguous tensor by the sum of those of all ranks.
    ///
    /// # Errors
    /// What NCCL says.
    pub fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        let (data, count, kind) = self.plain(tensor)?;
        let stream = stream(self.device)?;
        // SAFETY: `plain` has seen that `count` numbers of that kind are at `data` on this GPU, and what is queued on
        // libtorch's stream runs before their memory is used for anything else.
        let code = unsafe { (self.nccl.all_reduce)(data, data, count, kind, SUM, self.handle, stream) };
        self.nccl.checked(code, "sum", self.handle)
    }

    /// Each rank gets the sum of its own part, of as many as there are ranks; the others are of no use then.
    ///
    /// # Errors
    /// What NCCL says.
    pub fn sum_parts(&self, parts: &mut [Tensor]) -> Result<()> {
        self.together(parts, "sum parts", |root, (data, count, kind), stream| {
            // SAFETY: as in `sum`.
            unsafe { (self.nccl.reduce)(data, data, count, kind, SUM, root, self.handle, stream) }
        })
    }

    /// Each rank gets the parts of the others.
    ///
    /// # Errors
    /// What NCCL says.
    pub fn share_parts(&self, parts: &mut [Tensor]) -> Result<()> {
        self.together(parts, "share parts", |root, (data, count, kind), stream| {
            // SAFETY: as in `sum`.
            unsafe { (self.nccl.broadcast)(data, data, count, kind, root, self.handle, stream) }
        })
    }

    /// One operation for each part, of which NCCL makes one: parts need not be of equal length.
    fn together(
        &self,
        parts: &mut [Tensor],
        what: &str,
        operation: impl Fn(c_int, (*mut c_void, usize, c_int), Stream) -> c_int,
    ) -> Result<()> {
        let parts = parts.iter().map(|part| self.plain(part)).collect::<Result<Vec<_>>>()?;
        let stream = stream(self.device)?;
        // SAFETY: no arguments to get wrong; the group is closed below whatever happens.
        self.nccl.checked(unsafe { (self.nccl.group_start)() }, what, self.handle)?;
        let filled = (0..).zip(parts).filter(|(_, (_, count, _))| *count > 0);
        let codes: Vec<c_int> = filled.map(|(root, part)| operation(root, part, stream)).collect();
        let codes = codes.into_iter().chain([unsafe { (self.nccl.group_end)() }]);
        codes.into_iter().try_for_each(|code| self.nccl.checked(code, what, self.handle))
    }

    /// Where a tensor's numbers are, how many there are, and of which type.
    fn plain(&self, tensor: &Tensor) -> Result<(*mut c_void, usize, c_int)> {
        let here = tensor.device() == Device::Cuda(self.device as usize) && tensor.is_contiguous();
        match number(tensor.kind()).filter(|_| here) {
            Some(kind) => Ok((tensor.data_ptr(), tensor.numel(), kind)),
            None => Err(anyhow!("rank {} cannot exchange {tensor:?} through cuda:{}", self.rank, self.device)),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Destroying it waits for the others, who may wait for what this rank will never send.
        let end = if std::thread::panicking() { self.nccl.abort } else { self.nccl.destroy };
        // SAFETY: the handle that `join` got, once.
        let _ = unsafe { end(self.handle) };
    }
}

/// Libtorch's stream of a GPU, which becomes this thread's own.
fn stream(device: i64) -> Result<Stream> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: the shim fills `stream` unless it returns a message.
    checked(unsafe { ppo_stream(device, &mut stream) })?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_is_named_with_where_it_comes_from() {
        let error = Functions::load("libnccl-of-nobody.so.2").err().unwrap().to_string();
        for word in ["libnccl-of-nobody.so.2 cannot be loaded", "scripts/setup --cuda", "libnccl2"] {
            assert!(error.contains(word), "{error}");
        }
        // Another library is not taken for it.
        let error = Functions::load("libc.so.6").err().unwrap().to_string();
        assert!(error.contains("ncclGetErrorString"), "{error}");
    }

    #[test]
    fn only_gpus_join() {
        let error = Group::join(&[0; ID], 0, 2, Device::Cpu).err().unwrap().to_string();
        assert!(error.contains("NCCL is for GPUs, not for Cpu"), "{error}");
    }

    /// Where NCCL is, with or without a GPU: it makes ids, and all differ.
    #[test]
    fn ids_are_made_where_there_is_nccl() {
        match nccl() {
            Err(error) => assert!(new_id().err().unwrap().to_string() == error.to_string()),
            Ok(nccl) => {
                assert!(nccl.version_text().starts_with("2."), "{}", nccl.version_text());
                assert_ne!(new_id().unwrap(), new_id().unwrap());
            }
        }
    }
}
