//! Reports to the CNI socket and packets of the kernel's route netlink: no input causes a panic, an
//! attachment ends once, and a repeated message is no change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::cni::fuzz_entry::process_packet;

fuzz_target!(|bytes: &[u8]| {
    process_packet(bytes);
});
