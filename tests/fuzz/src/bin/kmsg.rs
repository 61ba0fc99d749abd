//! Records of the kernel's log, with a zero byte between them: each is told, is a program's, or is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::kmsg::look;
use tapio_fuzz::collected;

fuzz_target!(|bytes: &[u8]| {
    let records = bytes.split(|byte| *byte == 0).count() as u64;
    let (looked, said) = collected(|context| look(bytes, context));
    if looked.is_ok() {
        assert!(said.events.len() as u64 + said.bad_inputs <= records, "a record is told once");
    }
});
