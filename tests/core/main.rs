//! The record ring against an oracle: what goes in comes out, whole, once and in order.
//!
//! Shows: every field of every record survives the wrap; an oversize event is refused; `Full`
//! leaves nothing behind; two threads with the wake protocol lose nothing and rest at idle; an end
//! wakes who waits for it. Does not show: that the wake protocol is right under every interleaving (`tests/loom`), or that the
//! memory accesses are free of races (`scripts/sanitize.sh` runs this file under sanitizers).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod made;
mod oracle;
mod shutdown;
mod threads;
