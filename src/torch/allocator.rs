//! Rust's own memory, and what happens when there is no more.
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
