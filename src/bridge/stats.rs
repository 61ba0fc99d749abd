//! Counters of the bridge, readable from any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Counters of the bridge's thread. It alone writes them. They are read with Relaxed: each is
/// independent of the others.
#[derive(Debug, Default)]
pub struct BridgeStats {
    pub(super) connected: AtomicBool,
    pub(super) connects: AtomicU64,
    pub(super) failed_connects: AtomicU64,
    pub(super) batches_sent: AtomicU64,
    pub(super) batches_resent: AtomicU64,
    pub(super) batches_acked: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) events_acked: AtomicU64,
    pub(super) stories_acked: AtomicU64,
    pub(super) events_refused: AtomicU64,
    pub(super) queue_bytes: AtomicU64,
    pub(super) last_error: Mutex<String>,
}

/// The bridge in `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BridgeStatus {
    /// Whether the server is connected.
    pub connected: bool,
    /// Successful connections.
    pub connects: u64,
    /// Failed attempts to connect.
    pub failed_connects: u64,
    /// Batches sent, including resent ones.
    pub batches_sent: u64,
    /// Batches resent after a lost connection.
    pub batches_resent: u64,
    /// Batches stored by the server.
    pub batches_acked: u64,
    /// Bytes of batches sent.
    pub bytes_sent: u64,
    /// Events stored by the server.
    pub events_acked: u64,
    /// Stories stored by the server.
    pub stories_acked: u64,
    /// Events in batches that the server refused.
    pub events_refused: u64,
    /// Bytes of unacknowledged batches.
    pub queue_bytes: u64,
    /// Why the last connection or attempt failed; empty if none did.
    pub last_error: String,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    // One writer, so a load and a store are an addition; read by `status` with Relaxed.
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl BridgeStats {
    /// Stores the cause of a failed connection.
    pub(super) fn set_error(&self, error: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone_into(&mut last);
    }

    /// Whether the server is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The current values.
    #[must_use]
    pub fn status(&self) -> BridgeStatus {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BridgeStatus {
            connected: self.is_connected(),
            connects: n(&self.connects),
            failed_connects: n(&self.failed_connects),
            batches_sent: n(&self.batches_sent),
            batches_resent: n(&self.batches_resent),
            batches_acked: n(&self.batches_acked),
            bytes_sent: n(&self.bytes_sent),
            events_acked: n(&self.events_acked),
            stories_acked: n(&self.stories_acked),
            events_refused: n(&self.events_refused),
            queue_bytes: n(&self.queue_bytes),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
