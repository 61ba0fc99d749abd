//! Returns the memory that only the start needed.

use tapio_core::memory;

// SAFETY: the linker defines both names; only their addresses are used.
unsafe extern "C" {
    /// The linker's name for the program's first byte in memory.
    static __executable_start: u8;
    /// The linker's name for the first byte behind the program's code.
    static etext: u8;
}

/// Returns freed memory, and the pages of the program's code and constants: of those that the start
/// has used, most aren't used again, and the others are mapped again when they are.
pub(crate) fn release_start_memory() {
    memory::trim();
    let (first, end) = (&raw const __executable_start, &raw const etext);
    let bytes = end.addr().saturating_sub(first.addr());
    // Whole pages of code only.
    let bytes = bytes - bytes % rustix::param::page_size();
    // SAFETY: between the two are pages of the program's file that nothing writes to: data, also
    // that which the dynamic linker relocates, lies behind the code. After MADV_DONTNEED such a
    // page is read from the file again (madvise(2)). The first byte is at the begin of a page.
    unsafe { libc::madvise(first.cast_mut().cast(), bytes, libc::MADV_DONTNEED) };
}
