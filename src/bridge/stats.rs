//! The state of the bridge, readable from any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::circuit::CircuitState;
use tapio_core::counters::Reading;

tapio_core::counters! {
    /// Counters of the bridge.
    pub(super) struct BridgeCounters {
        rounds: Counter = "Passes of the bridge over its rings, one a second at least.",
        connects: Counter = "Connections established to the server.",
        failed_connects: Counter = "Failed attempts to connect to the server.",
        batches_sent: Counter = "Batches sent, including those sent again.",
        batches_resent: Counter = "Batches sent again after a lost connection.",
        batches_acked: Counter = "Batches that the server has acknowledged.",
        sent_bytes: Counter = "Bytes of batches sent.",
        events_acked: Counter = "Events that the server has acknowledged.",
        stories_acked: Counter = "Story revisions that the server has acknowledged.",
        events_refused: Counter = "Events in batches that the server refused.",
        batches_split: Counter = "Refused batches that were divided to find the items refused.",
        items_quarantined: Counter = "Refused events and stories in the quarantine file.",
        circuit_state: Gauge = "State of the circuit to the server: 0 closed, 1 half open, 2 open.",
        queue_bytes: Gauge = "Bytes in memory of batches that are not acknowledged yet.",
        spool_bytes: Gauge = "Bytes of the spool.",
        spool_oldest_seconds: Gauge = "Age of the oldest batch in the spool that is not acknowledged, in seconds; 0: none.",
    }
}

/// The state of the bridge, which its thread alone writes.
#[derive(Debug, Default)]
pub struct BridgeStats {
    pub(super) counters: BridgeCounters,
    connected: AtomicBool,
    disk_failing: AtomicBool,
    endpoint: Mutex<String>,
    last_error: Mutex<String>,
}

impl BridgeStats {
    /// Sets whether the server is connected.
    pub(super) fn set_connected(&self, connected: bool) {
        // Relaxed, paired with the load in `is_connected`: independent of other values.
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Sets whether the disk refuses batches of the spool.
    pub(super) fn set_disk_failing(&self, is_failing: bool) {
        // Relaxed, paired with the load in `is_disk_failing`: independent of other values.
        self.disk_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Whether the disk refuses batches of the spool.
    #[must_use]
    pub fn is_disk_failing(&self) -> bool {
        self.disk_failing.load(Ordering::Relaxed)
    }

    /// Sets the server that the bridge is connected to.
    pub(super) fn set_endpoint(&self, endpoint: &str) {
        let mut current = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        endpoint.clone_into(&mut current);
    }

    /// The server that the bridge was connected to last; empty if none was.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of the circuit to the server.
    #[must_use]
    pub fn circuit(&self) -> CircuitState {
        match self.counters.circuit_state.get() {
            0 => CircuitState::Closed,
            1 => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        }
    }

    /// Stores the cause of a failed connection.
    pub(super) fn set_last_error(&self, error: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone_into(&mut last);
    }

    /// Whether the server is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Why the last connection or attempt failed; empty if none did.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the counters.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<> {
        self.counters.readings()
    }
}
