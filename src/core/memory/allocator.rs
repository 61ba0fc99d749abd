//! Requests to the allocator: glibc's, or jemalloc in the static program of the packages.

/// Fixes the size from which an allocation is a mapping of its own, which returns to the kernel
/// when it is freed. By itself glibc's allocator raises it to the largest that was freed, up to 32
/// MiB: a ring that grew once would stay. To be called before threads start.
#[cfg(target_env = "gnu")]
pub fn fix_thresholds() {
    const MAPPED_BYTES: libc::c_int = 1 << 20;
    const TRIM_BYTES: libc::c_int = 4 << 20;
    for (parameter, bytes) in
        [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES), (libc::M_TRIM_THRESHOLD, TRIM_BYTES)]
    {
        // SAFETY: `mallopt` takes two numbers and changes the allocator's settings (mallopt(3)).
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// jemalloc has no such sizes: it returns whole pages of any allocation.
#[cfg(not(target_env = "gnu"))]
pub fn fix_thresholds() {}

/// Returns the whole pages that the allocator holds without use to the kernel. glibc's allocator
/// keeps them otherwise, and the process stays as large as it ever was; jemalloc returns those of a
/// thread that goes on allocating after a second, and all of them here.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: `malloc_trim` takes a number, locks each arena itself and is thread-safe
    // (malloc_trim(3)); it touches no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Returns the whole pages that the allocator holds without use to the kernel.
#[cfg(target_env = "musl")]
pub fn trim() {
    use std::ptr;
    // What this thread has at hand, then the free pages of all arenas, whose number is 4096.
    for command in [c"thread.tcache.flush", c"arena.4096.purge"] {
        // SAFETY: the name ends with a zero, both commands read and write no value, and `mallctl`
        // is thread-safe (jemalloc(3)); it touches no memory that is in use.
        unsafe {
            let name = command.as_ptr();
            tikv_jemalloc_sys::mallctl(name, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
        };
    }
}

/// The settings of jemalloc, which it reads from this name before `main`. Two arenas for all
/// threads, instead of four for each core: with caches in each thread they hardly wait for each
/// other, and each arena keeps free pages of its own. Free pages go back after a second, not ten.
#[cfg(target_env = "musl")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: Option<&'static std::ffi::c_char> = {
    let text = c"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr();
    // SAFETY: the text is constant and ends with a zero; jemalloc reads the bytes behind the first.
    Some(unsafe { &*text })
};
