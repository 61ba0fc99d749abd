//! The state of a sink, readable from any thread.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use tapio_core::counters::Reading;

tapio_core::counters! {
    /// Counters of a sink. Of the events that it has passed, `events` = exported and refused ones +
    /// `events_filtered` + `events_invalid`; with `events_lost` and `events_held` these are all
    /// since it was added.
    pub(super) struct SinkCounters {
        events: Counter = "Events that the sink has passed: sent, left out by its configuration, or invalid.",
        events_filtered: Counter = "Events that the sink's configuration leaves out.",
        events_invalid: Counter = "Events that can't be decoded.",
        events_lost: Counter = "Events that left the spool, or were damaged in it, before the sink had read them.",
        events_held: Gauge = "Events in the spool that the sink hasn't passed.",
        log_records: Counter = "Log records that the receiver has taken.",
        spans: Counter = "Spans that the receiver has taken.",
        data_points: Counter = "Data points that the receiver has taken.",
        records_rejected: Counter = "Log records, spans and data points that the receiver has refused.",
        requests: Counter = "Requests that the receiver has answered with success.",
        requests_failed: Counter = "Requests that failed, those sent again included.",
        request_bytes: Counter = "Bytes of successful requests before compression.",
    }
}

/// The state of a sink.
#[derive(Debug, Default)]
pub struct SinkStats {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub endpoint: String,
    /// Its transport.
    pub protocol: &'static str,
    pub(super) counters: SinkCounters,
    last_error: Mutex<String>,
    /// The least severity number of a log record.
    min_severity: AtomicU8,
}

impl SinkStats {
    pub(super) fn new(name: String, endpoint: String, protocol: &'static str) -> Self {
        Self { name, endpoint, protocol, ..Self::default() }
    }

    /// The least severity number of a log record, from the next batch on.
    pub(super) fn min_severity(&self) -> u8 {
        // Relaxed, paired with the store in `set_min_severity`: nothing else depends on it.
        self.min_severity.load(Ordering::Relaxed)
    }

    pub(super) fn set_min_severity(&self, min_severity: u8) {
        self.min_severity.store(min_severity, Ordering::Relaxed);
    }

    /// Why the last request failed; empty if the receiver has taken one since, or none failed.
    #[must_use]
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_error(&self, error: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone_into(&mut last);
    }

    /// Reads the counters.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<> {
        self.counters.readings()
    }
}
