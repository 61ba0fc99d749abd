//! Configuration files: each is read, or refused with a place or a key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio::runtime::Config;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // No variables: the environment of the fuzzer doesn't matter.
    match Config::parse("tapio.yaml", text, |_| None) {
        Ok(config) => {
            // What has passed the checks can be used.
            let _ = (config.node_name(), config.state_dir(), config.server(), config.shards());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
