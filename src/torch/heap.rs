//! The C library's heap, set for tensors.
//!
//! glibc maps every large block on its own and gives it back to the system when it is freed. libtorch allocates and
//! frees one for almost every operation, so that a step spends a fifth of its time having pages cleared by the kernel.
//!
//! Decided: what was freed stays in the heap for the next tensor. Measured on one step of SmolLM2-135M in float32 (two
//! cores, seconds, peak GiB): glibc as it is 23.1, 5.41; like this 18.7, 5.62; jemalloc 22.5, 5.35; mimalloc 24.6, 5.41.
//! A user's own GLIBC_TUNABLES or MALLOC_ variables count instead.

/// Makes the heap keep what is freed. To be called before the first tensor.
pub fn keep_freed_memory() {
    let chosen = |name: &str| name == "GLIBC_TUNABLES" || name.starts_with("MALLOC_");
    if std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(chosen)) {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: plain settings of the allocator; an allocator that has taken glibc's place does not hear of them.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0); // no block is mapped on its own
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1); // the heap's end is not given back
        libc::mallopt(libc::M_TOP_PAD, 64 << 20); // and grows by so many bytes at least
    }
}
