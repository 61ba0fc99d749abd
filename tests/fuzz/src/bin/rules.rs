//! Rule documents, tapio's and Sigma's: any text loads or is rejected with a position; what loads
//! processes events and can be explained.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_dataflow::rules::{Loaded, explain};
use tapio_fuzz::{EVENTS_MARK, Sets, replay_agrees};

/// Events for inputs that have none.
const EVENTS: &str = include_str!("../../../stories/nginx-cascade.jsonl");

fuzz_target!(|bytes: &[u8]| {
    let Ok(input) = std::str::from_utf8(bytes) else { return };
    let (text, events) = input.split_once(EVENTS_MARK).unwrap_or((input, EVENTS));
    let mut loaded = Loaded::default();
    loaded.text("fuzz.yaml", text);
    // A lone carriage return ends a line too (YAML 1.2, 5.4).
    let lines = text.split(['\n', '\r']).count();
    for error in loaded.errors.iter().chain(&loaded.warnings) {
        let position = error.diagnostic.position;
        assert!(!error.diagnostic.message.is_empty(), "an error without a message");
        assert!(position.line as usize <= lines + 1, "{error}: there are {lines} lines");
    }
    for rule in &loaded.rules {
        assert!(!explain(rule).is_empty());
    }
    if !loaded.rules.is_empty() {
        replay_agrees(events.as_bytes(), &Sets::new(&loaded.rules));
    }
});
