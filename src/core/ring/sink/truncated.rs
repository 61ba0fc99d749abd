//! Events that are too large for a record.

use super::super::block::WriteError;
use super::super::block::{BLOCK_BYTES, Header, MAX_RECORD_BLOCKS};
use super::super::ledger::account;
use super::Sink;
use crate::clock;
use crate::event::Event;

/// The least time between two reports of events that were cut.
const REPORT_INTERVAL_NS: u64 = 60_000_000_000;

impl Sink {
    /// Writes an event that is too large for a record with its texts cut.
    #[cold]
    pub(super) fn write_truncated(
        &mut self,
        first: usize,
        header: &Header,
        event: &Event<'_>,
        reserve_blocks: usize,
    ) -> Result<(), WriteError> {
        let writer = &mut self.shards[first].0;
        // A block is the record's head.
        let max_bytes = (MAX_RECORD_BLOCKS - 1) * BLOCK_BYTES;
        let written = event
            .truncated(max_bytes, |cut| writer.write_event_above(header, cut, reserve_blocks))
            .unwrap_or(Err(WriteError::Oversize));
        if written.is_ok() {
            self.ledger.add_truncated(account(self.collector, self.parity()), 1);
            let now_ns = clock::monotonic_ns();
            if now_ns.saturating_sub(self.truncation_reported_ns) >= REPORT_INTERVAL_NS {
                self.truncation_reported_ns = now_ns;
                let bytes = event.archive_bound_bytes();
                let source = event.source.text();
                tracing::warn!(source, bytes, max_bytes, "event cut to fit into a record");
            }
        }
        written
    }
}
