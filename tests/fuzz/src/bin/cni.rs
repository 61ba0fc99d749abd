//! Reports to the CNI socket and packets of the kernel's route netlink: none panics, and what ended is known to.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::cni::look;

fuzz_target!(|bytes: &[u8]| {
    look(bytes);
});
