//! Lines of the API server's watches: none panics, and no object yields a fact twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::k8s::check_watch;

fuzz_target!(|bytes: &[u8]| {
    let checked = check_watch(bytes);
    assert!(checked.is_ok(), "object {checked:?} yields a fact twice");
});
