//! Record rings against an oracle: every record is read whole, once and in order.
//!
//! Shows: every field of every record survives the wrap; an oversize event is refused; `Full`
//! leaves nothing behind; two threads with the wake protocol lose nothing and sleep when idle;
//! shutdown wakes all waiters. Doesn't show: correctness of the wake protocol under every
//! interleaving (`loom.rs`), or freedom from data races (`scripts/sanitize.sh` runs these tests
//! under sanitizers).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache_lines;
mod generators;
mod oracle;
mod overload;
mod shutdown;
mod threads;
