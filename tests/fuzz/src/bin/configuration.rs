//! The text of a configuration file: parsed, or refused with a place within it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio::runtime::Config;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| (name.len() % 2 == 0).then(|| "value".to_owned());
    match Config::parse("tapio.yaml", text, env) {
        Ok(config) => {
            let _ = (config.node_name(), config.state_dir(), config.server(), config.shards());
        }
        Err(error) => {
            // A carriage return alone ends a line in YAML.
            let lines = text.matches(['\n', '\r']).count() as u64 + 1;
            assert!(error.line <= lines, "line {} of {lines}", error.line);
            assert!(!error.cause.is_empty(), "an error without a cause");
        }
    }
});
