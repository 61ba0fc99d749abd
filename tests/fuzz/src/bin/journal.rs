//! Journal files: whatever the bytes are, reading ends, within bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::journal::count_entries;

fuzz_target!(|bytes: &[u8]| {
    let (good, _) = count_entries(bytes);
    // Entries may share their bytes, but each needs an item of four of its own.
    assert!(good <= bytes.len() as u64 / 4);
});
