//! Collector `jsonl`: reads events as JSON lines from files (to their end, or followed as they
//! grow), fifos and standard input.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | the section `collectors.jsonl` and the run loop |
//! | `stream.rs` | decodes one source's lines into events |
//! | `lines.rs` | splits reads into lines |
//! | `source.rs` | a file, a fifo or standard input |
//!
//! A line that isn't an event is refused, counted and logged with its position and cause; the
//! others are processed. When a ring is full, the collector waits, so no line of a file is lost.

mod collector;
mod lines;
mod source;
mod stream;

pub use collector::Config;
