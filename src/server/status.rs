//! The server's counters, as `/api/v1/stats`, gRPC and `/metrics` report them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::storage::StorageStats;
use crate::notify::NotifyStatus;
use tapio_wire::Access;

/// Counters of the ingest since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerCounts {
    /// Batches stored.
    pub batches: u64,
    /// Events stored.
    pub events: u64,
    /// Story revisions stored.
    pub stories: u64,
    /// Items received again and not stored again.
    pub duplicates: u64,
    /// Batches refused.
    pub batches_refused: u64,
    /// Of these, batches whose sequence or epoch is further ahead than any sender can be.
    pub jumps_refused: u64,
    /// Batches of another node than their sender.
    pub batches_denied: u64,
    /// Reports of agents about themselves.
    pub statuses: u64,
    /// Reports refused: out of bounds, or of another node than their sender.
    pub statuses_refused: u64,
    /// Batches that the disk refused; each is retried.
    pub disk_errors: u64,
    /// Times that a tail went on from a position that isn't stored any more.
    pub tail_gaps: u64,
    /// Queries refused because too many were waiting.
    pub queries_refused: u64,
    /// Whether the disk refused the last batch.
    pub disk_failing: bool,
}

/// Delay from an event's own time to its receipt, for events with the kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyStats {
    /// Events measured.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Maximum.
    pub max_ns: u64,
}

/// The answer of `/api/v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerStatus {
    /// Ingest.
    pub ingest: ServerCounts,
    /// Delay from event to receipt.
    pub latency: LatencyStats,
    /// Storage.
    pub store: StorageStats,
    /// Stories that can be listed.
    pub stories_kept: u64,
    /// Receivers of notifications.
    pub notify: Vec<NotifyStatus>,
    /// Agents that are listed.
    pub agents: u64,
    /// Of these, agents that are connected.
    pub agents_connected: u64,
    /// Refusals of the listeners.
    pub access: AccessStats,
}

/// Refusals of the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessStats {
    /// TLS handshakes that failed, by reason.
    pub handshakes_failed: BTreeMap<&'static str, u64>,
    /// Requests, by reason.
    pub requests_refused: BTreeMap<&'static str, u64>,
    /// Changed certificates and token files that couldn't be used.
    pub reload_failures: u64,
}

impl AccessStats {
    /// The sums of several listeners.
    pub(crate) fn of<'a>(listeners: impl IntoIterator<Item = &'a Arc<Access>>) -> Self {
        let mut stats = Self::default();
        for access in listeners {
            for (reason, count) in access.counts().handshakes_failed() {
                *stats.handshakes_failed.entry(reason).or_default() += count;
            }
            for (reason, count) in access.counts().requests_refused() {
                *stats.requests_refused.entry(reason).or_default() += count;
            }
            stats.reload_failures += access.reload_failures();
        }
        stats
    }
}
