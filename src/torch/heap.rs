//! The heap: the C library's, set for tensors, and what happens when it is empty.
//!
//! glibc maps every large block separately and returns it to the system when it is freed. libtorch allocates and frees
//! one for almost every operation, so that a step spends a fifth of its time having pages cleared by the kernel.
//!
//! Decided: what was freed stays in the heap for the next tensor. Measured on one step of SmolLM2-135M in float32 (two
//! cores, seconds, peak GiB): glibc as it is 23.1, 5.41; like this 18.7, 5.62; jemalloc 22.5, 5.35; mimalloc 24.6,
//! 5.41. A user's own GLIBC_TUNABLES or MALLOC_ variables take precedence.
//!
//! libtorch throws when memory runs out, and Rust aborts, with the signal and the core of a crash. Decided: the program
//! then says so and ends with exit code 1. Files are written whole or not at all, so that nothing is left half done.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The program's allocator: the system's, and a plain end of the program where it has nothing left.
pub struct Heap;

// SAFETY: the system's allocator does all the work; where it fails, nothing returns.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on, here and below.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        given(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

/// A block that was allocated; without one the program ends here, with words that need no memory.
fn given(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() {
        let mut line = [0; 100];
        let mut rest = line.as_mut_slice();
        let _ = writeln!(rest, "error: not enough memory: {bytes} more bytes could not be had");
        let unused = rest.len();
        let used = line.len() - unused;
        // SAFETY: the bytes of `line` that are written; `_exit` runs nothing that could need memory.
        unsafe {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), used);
            libc::_exit(1);
        }
    }
    block
}

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
