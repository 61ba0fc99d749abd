//! tapio: a node-level event correlator.
//!
//! Dependencies point one way: `event ← identity ← ring ← wire ← {collector, dataflow} ← bridge ← server ←
//! runtime ← cli`. `collector`, `dataflow` and `bridge` don't know of each other; the
//! `runtime` joins them. `clock`, `timer` and `span_text` are at the bottom. `ARCHITECTURE.md` follows one event through the files, and
//! `tests/architecture.rs` holds the direction.

pub mod bridge;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod dataflow;
pub mod event;
pub mod identity;
pub mod load;
pub mod ring;
pub mod runtime;
pub mod server;
pub mod span_text;
mod timer;
pub mod wire;
