//! The agent's reports of its own state, on their way to the server.
//!
//! The agent's main thread writes a report every ten seconds; the bridge's thread sends the latest
//! one on the connection of its batches, at most one at a time. None is queued or sent again but
//! after a reconnect: the next one has more to say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::Code;

use super::link::Link;
use tapio_wire::proto::AgentStatus;

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The latest report, which one thread writes and the bridge's thread reads.
#[derive(Debug, Default)]
pub struct LatestReport {
    /// Reports written so far.
    number: AtomicU64,
    report: Mutex<AgentStatus>,
}

impl LatestReport {
    /// Replaces the report.
    pub fn write(&self, report: AgentStatus) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
        // Relaxed: the mutex orders the report itself; who reads the number too early sends the
        // report a second later.
        self.number.fetch_add(1, Ordering::Relaxed);
    }

    /// The report and its number, if it isn't number `sent`.
    fn newer(&self, sent: u64) -> Option<(u64, AgentStatus)> {
        let number = self.number.load(Ordering::Relaxed);
        let read = || self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (number != sent).then(|| (number, read()))
    }
}

/// The reports of one connection.
#[derive(Debug, Default)]
struct Connection {
    is_busy: AtomicBool,
    /// Whether the server keeps no reports.
    is_unsupported: AtomicBool,
}

/// Sends reports.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    latest: Arc<LatestReport>,
    /// The number of the last report sent; 0 for none on this connection.
    sent: u64,
    connection: Arc<Connection>,
}

impl Reporter {
    pub(super) fn new(latest: Arc<LatestReport>) -> Self {
        Self { latest, ..Self::default() }
    }

    /// Begins with a new connection: its server may be another one.
    pub(super) fn connected(&mut self) {
        (self.sent, self.connection) = (0, Arc::default());
    }

    /// Sends the latest report, unless it was sent. To be called about once a second.
    pub(super) fn send(&mut self, link: &Link) {
        let connection = &self.connection;
        // Relaxed, here and below: nothing else depends on these.
        if connection.is_busy.load(Ordering::Relaxed)
            || connection.is_unsupported.load(Ordering::Relaxed)
        {
            return;
        }
        let Some((number, report)) = self.latest.newer(self.sent) else { return };
        let Some(sending) = link.report_status(report, TIMEOUT) else { return };
        self.sent = number;
        connection.is_busy.store(true, Ordering::Relaxed);
        let connection = Arc::clone(connection);
        tokio::spawn(async move {
            if let Err(status) = sending.await {
                let is_unsupported = status.code() == Code::Unimplemented;
                connection.is_unsupported.store(is_unsupported, Ordering::Relaxed);
                tracing::debug!(error = status.message(), "bridge: status not reported");
            }
            connection.is_busy.store(false, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_report_is_read_once() {
        let latest = LatestReport::default();
        assert!(latest.newer(0).is_none());
        for version in ["1", "2"] {
            latest.write(AgentStatus { version: version.into(), ..AgentStatus::default() });
        }
        let (number, report) = latest.newer(0).unwrap();
        assert_eq!(report.version, "2");
        assert!(latest.newer(number).is_none());
    }
}
