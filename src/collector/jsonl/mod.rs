//! Collector `jsonl`: reads events as JSON lines, tapio's or those of OTLP, from files (to their
//! end, or followed as they grow), fifos and standard input.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | the section `collectors.jsonl` and the run loop |
//! | `stream.rs` | decodes one source's lines into events |
//! | `lines.rs` | splits reads into lines |
//! | `source.rs` | a file, a fifo or standard input |
//! | `sources.rs` | the files of the configured paths and patterns |
//! | `packed.rs` | compressed files |
//! | `followed.rs` | a followed file, over rotations, truncations and restarts |
//! | `rotation.rs` | finds rotated contents in a file's folder |
//! | `position.rs` | a position in a followed file |
//! | `positions.rs` | the cursor of all followed files |
//!
//! A line that isn't an event is refused, counted and logged with its position and cause; the
//! others are processed. When a ring is full, the collector waits, so no line of a file is lost.

mod collector;
mod followed;
mod lines;
mod packed;
mod position;
mod positions;
mod rotation;
mod source;
mod sources;
mod stream;

pub use collector::Config;
pub use packed::unpacked;
