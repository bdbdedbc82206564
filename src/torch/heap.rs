//! The C library's heap, set for tensors.
//!
//! glibc maps every large block separately and returns it to the system when it is freed. libtorch allocates and frees
//! one for almost every operation, so that a step spends a fifth of its time having pages cleared by the kernel.
//!
//! Decided: what was freed stays in the heap for the next tensor. Measured on one step of SmolLM2-135M in float32 (two
//! cores, seconds, peak GiB): glibc as it is 23.1, 5.41; like this 18.7, 5.62; jemalloc 22.5, 5.35; mimalloc 24.6,
//! 5.41. A user's own GLIBC_TUNABLES or MALLOC_ variables take precedence.
//!
//! Micro-batches of many different lengths leave gaps in which the next does not fit, and without an end: after five
//! steps of a warm start with rows of 60 to 300 tokens 8.6 GiB were held and 3.5 in use. So between micro-batches,
//! and whenever rows leave the batch that is decoded, `trim` returns what is free if the program holds more than it
//! should. Between the phases of a step that would be too seldom: one micro-batch leaves gaps of a GiB.

use super::available::available_bytes;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the heap keep what is freed. Must be called before the first tensor is made.
pub fn keep_freed_memory() {
    let chosen = |name: &str| name == "GLIBC_TUNABLES" || name.starts_with("MALLOC_");
    if std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(chosen)) {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: plain settings of the allocator; an allocator that replaces glibc's ignores them.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0); // no block is mapped separately
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1); // the end of the heap is not returned
        libc::mallopt(libc::M_TOP_PAD, 64 << 20); // and it grows by at least this many bytes
    }
}

/// Makes the heap return large blocks when they are freed, from now on: less memory, in which they would leave gaps
/// that nothing else fits, for the time to clear their pages.
pub fn return_large_blocks() {
    /// Bytes of a large block: the largest threshold that glibc allows.
    #[cfg(target_env = "gnu")]
    const LARGE: i32 = 32 << 20;
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 1 << 16); // glibc's own value
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Bytes that a run may hold before it returns what is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Between micro-batches of an update, which find most of what they need in what the last one left.
    pub within: u64,
    /// Before an update, when gradients and activations have yet to be made, of sizes that nothing left.
    pub before: u64,
}

static WITHIN: AtomicU64 = AtomicU64::new(u64::MAX);
static BEFORE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Lets `trim` and `make_room` return what is free whenever the program holds more than that.
pub fn trim_above(held: Held) {
    WITHIN.store(held.within, Ordering::Relaxed);
    BEFORE.store(held.before, Ordering::Relaxed);
}

/// Returns the heap's free memory to the system if the program holds more than it should between micro-batches. To be
/// called where much has just been freed and the next tensors will have other sizes.
pub fn trim() {
    trim_to(WITHIN.load(Ordering::Relaxed));
}

/// The same before an update.
pub fn make_room() {
    trim_to(BEFORE.load(Ordering::Relaxed));
}

/// Whether there is room for a copy of so many bytes, which saves time and could be done without. In a run: what it
/// uses then stays within what it may hold between micro-batches, so that copies never make it larger than its plan
/// says; what is freed and kept in the heap does not count. Elsewhere, where nothing is planned: as many bytes again
/// are left of the memory that can be had.
pub fn has_room(bytes: u64) -> bool {
    match WITHIN.load(Ordering::Relaxed) {
        u64::MAX => leaves_as_much(bytes, available_bytes()),
        most => used_bytes().is_none_or(|used| used.saturating_add(bytes) <= most),
    }
}

/// Whether a copy takes no more than half of what is `left`; not if that is unknown.
fn leaves_as_much(bytes: u64, left: Option<u64>) -> bool {
    left.is_some_and(|left| bytes <= left / 2)
}

/// Bytes of the heap in use; before glibc 2.33, which cannot count so many, and elsewhere all that the program holds.
fn used_bytes() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the name ends with a zero; it is only looked up.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
        if !found.is_null() {
            // SAFETY: the C library's function of that name, which takes nothing and reads the allocator's counts.
            let heap =
                unsafe { std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> libc::mallinfo2>(found)() };
            return Some((heap.uordblks + heap.hblkhd) as u64);
        }
    }
    resident_bytes()
}

fn trim_to(most: u64) {
    #[cfg(target_env = "gnu")]
    if resident_bytes().is_some_and(|bytes| bytes > most) {
        // SAFETY: no arguments to get wrong; another allocator's heap is not touched.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Bytes of memory that the program holds, if the system says so.
pub fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The most memory that the program has held so far, in bytes, if the system says so.
pub fn most_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(all(test, target_env = "gnu", target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_leaves_as_much_memory_again() {
        assert!(leaves_as_much(5, Some(10)) && !leaves_as_much(6, Some(10)) && !leaves_as_much(0, None));
    }

    #[test]
    fn what_is_in_use_is_counted() {
        let block = vec![1u8; 64 << 20];
        let used = used_bytes().unwrap();
        assert!(used >= block.len() as u64 && used <= 2 * most_resident_bytes().unwrap(), "{used}");
        assert!(block.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn gaps_are_returned_once_too_much_is_held() {
        /// Bytes of a block, and how many are freed: half a GiB, far more than other tests use meanwhile.
        const BLOCK: usize = 1 << 20;
        const FREED: usize = 512;
        keep_freed_memory();
        let blocks: Vec<Vec<u8>> = (0..2 * FREED).map(|i| vec![i as u8; BLOCK]).collect();
        // Every second one is freed: gaps in which nothing larger fits.
        let kept: Vec<Vec<u8>> = blocks.into_iter().step_by(2).collect();
        let held = resident_bytes().unwrap();
        trim_to(2 * held);
        assert!(resident_bytes().unwrap() + (FREED * BLOCK / 2) as u64 > held);
        trim_to(held / 2);
        let after = resident_bytes().unwrap();
        assert!(after + (FREED * BLOCK / 2) as u64 <= held, "{after} of {held} bytes are left");
        assert!(kept.iter().zip((0..).step_by(2)).all(|(block, i)| block[BLOCK - 1] == i as u8));
    }
}
