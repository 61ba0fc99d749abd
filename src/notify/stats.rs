//! Counters of a receiver, readable from any thread.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tapio_core::clock;
use tapio_core::counters::Reading;

tapio_core::counters! {
    /// Counters of a receiver.
    pub(super) struct ReceiverCounters {
        sent: Counter = "Notifications that the receiver has taken.",
        failed: Counter = "Requests that failed, those sent again included.",
        dead_letters: Counter = "Notifications given up after retry_for, or because the receiver refused them.",
        digests: Counter = "Notifications about many new stories at once.",
        digested: Counter = "New stories that a digest counts and that have no notification of their own.",
        silenced: Counter = "Stories that ended while they were silenced, without a notification.",
        related: Counter = "Revisions of stories left out because their incident was notified about.",
        gaps: Counter = "Times that a part of the log was retired before it was read: its stories have no notification.",
        queue: Gauge = "Notifications that wait.",
        open: Gauge = "Stories that were notified about and haven't ended.",
    }
}

/// The state of a receiver.
#[derive(Debug, Default)]
pub struct ReceiverStats {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Host and port of its URL.
    pub host: String,
    pub(super) counters: ReceiverCounters,
    /// Since when the oldest notification waits, and why the last request failed.
    state: Mutex<(Option<u64>, String)>,
}

/// The state of a receiver, as `/api/v1/stats` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotifyStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Host and port of its URL.
    pub host: String,
    /// Notifications taken.
    pub sent: u64,
    /// Requests failed.
    pub failed: u64,
    /// Notifications given up.
    pub dead_letters: u64,
    /// Notifications that wait.
    pub queue: u64,
    /// How long the oldest of them has waited, seconds.
    pub oldest_age_s: f64,
    /// Why the last request failed; empty if one was taken since.
    pub last_error: String,
}

impl ReceiverStats {
    pub(super) fn new(name: String, kind: &'static str, host: String) -> Self {
        Self { name, kind, host, ..Self::default() }
    }

    pub(super) fn set_oldest(&self, oldest_ns: Option<u64>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = oldest_ns;
    }

    pub(super) fn set_last_error(&self, error: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone_into(&mut state.1);
    }

    /// How long the oldest notification has waited, seconds; 0 if none waits.
    #[must_use]
    pub fn oldest_age_s(&self) -> f64 {
        let oldest_ns = self.state.lock().unwrap_or_else(PoisonError::into_inner).0;
        oldest_ns.map_or(0.0, |ns| clock::wall_ns().saturating_sub(ns) as f64 / 1e9)
    }

    /// Reads the counters.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<> {
        self.counters.readings()
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> NotifyStatus {
        let last_error = self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        NotifyStatus {
            name: self.name.clone(),
            kind: self.kind,
            host: self.host.clone(),
            sent: self.counters.sent.get(),
            failed: self.counters.failed.get(),
            dead_letters: self.counters.dead_letters.get(),
            queue: self.counters.queue.get(),
            oldest_age_s: self.oldest_age_s(),
            last_error,
        }
    }
}
