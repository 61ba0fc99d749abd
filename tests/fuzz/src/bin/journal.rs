//! Fuzz target: reading a journal file ends within bounds, whatever its bytes are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::journal::count_entries;

fuzz_target!(|bytes: &[u8]| {
    let (good, _) = count_entries(bytes);
    // Entries may share their bytes, but each needs an array item of its own, four bytes long.
    assert!(good <= bytes.len() as u64 / 4);
});
