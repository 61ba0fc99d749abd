//! `src/event` and `src/ring`, and nothing else, for the sanitizers: see `scripts/sanitize.sh`.

#[path = "../../../src/event/mod.rs"]
pub mod event;
#[path = "../../../src/ring/mod.rs"]
pub mod ring;
