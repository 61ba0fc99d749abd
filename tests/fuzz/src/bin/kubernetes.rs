//! Lines of the API server's watches: none panics, and the same object tells nothing twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::k8s::look;

fuzz_target!(|bytes: &[u8]| {
    let looked = look(bytes);
    assert!(looked.is_ok(), "object {looked:?} tells something twice");
});
