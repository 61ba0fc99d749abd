//! Returns freed memory to the kernel.

/// Returns the whole pages that the allocator holds without use. glibc's allocator keeps them
/// otherwise, and the process stays as large as it ever was.
#[cfg(target_env = "gnu")]
pub(super) fn trim() {
    // SAFETY: `malloc_trim` takes a number, locks each arena itself and is thread-safe
    // (malloc_trim(3)); it touches no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators return memory by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
