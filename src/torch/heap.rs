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

/// Whether so many bytes more stay within what a run may hold before an update, so that they never make it larger than
/// its plan says. What is freed and kept in the heap does not count.
pub fn has_room(bytes: u64) -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments; it only reads the allocator's counts.
    let used = Some(unsafe { libc::mallinfo2() }).map(|heap| (heap.uordblks + heap.hblkhd) as u64);
    #[cfg(not(target_env = "gnu"))]
    let used = resident_bytes();
    used.is_none_or(|used| used.saturating_add(bytes) <= WITHIN.load(Ordering::Relaxed))
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
