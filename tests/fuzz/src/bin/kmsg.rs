//! Records of the kernel's log, separated by zero bytes: each is emitted, skipped or rejected.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_collectors::kmsg::process_records;
use tapio_fuzz::collected;

fuzz_target!(|bytes: &[u8]| {
    let records = bytes.split(|byte| *byte == 0).count() as u64;
    let (result, collected) = collected(|context| process_records(bytes, context));
    if result.is_ok() {
        let processed = collected.events.len() as u64 + collected.bad_inputs;
        assert!(processed <= records, "a record is emitted at most once");
    }
});
