//! The bytes of a wire batch: decoded or refused; the decoded events are evaluated by the rules.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapio_fuzz::{builtin_sets, replay_agrees};
use tapio_wire::{Batch, batch_json};

fuzz_target!(|bytes: &[u8]| {
    let parsed = Batch::parse(bytes);
    let Ok((items, bad)) = batch_json(bytes) else { return };
    let Ok(batch) = parsed else { panic!("decoded, though the batch can't be parsed") };
    let decoded = items.len() as u64 + u64::from(bad);
    assert_eq!(decoded, u64::from(batch.events) + u64::from(batch.stories), "items are missing");
    let events = items.iter().filter(|(story, _)| !story);
    let lines: String = events.map(|(_, json)| format!("{json}\n")).collect();
    if !lines.is_empty() {
        replay_agrees(lines.as_bytes(), builtin_sets());
    }
});
