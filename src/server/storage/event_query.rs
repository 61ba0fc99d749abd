//! Queries for events, newest first.

use std::io;
use std::ops::ControlFlow;

use crate::store::LogSnapshot;
use tapio_wire::{Batch, Item, RawEvent};

/// Bytes of segments that one query reads at most.
const MAX_READ_BYTES: u64 = 512 * 1024 * 1024;

/// Selects events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The kind: exact, or a prefix that ends in `*`; empty for any.
    pub kind: String,
    /// The 16 bytes of a trace id; empty for any.
    pub trace_id: Vec<u8>,
    /// The node; empty for any.
    pub node: String,
}

impl EventFilter {
    fn kind_matches(&self, kind: &str) -> bool {
        self.kind.is_empty() || tapio_core::glob::matches(&self.kind, kind)
    }

    /// The positions of matching events among the batch's events, ascending.
    #[must_use]
    pub fn positions(&self, batch: &Batch<'_>) -> Vec<usize> {
        if !self.node.is_empty() && self.node != batch.head.node {
            return Vec::new();
        }
        let kinds: Vec<bool> = batch.names().iter().map(|n| self.kind_matches(n)).collect();
        if !kinds.contains(&true) {
            return Vec::new();
        }
        let matches = |event: RawEvent<'_>| {
            event.kind_index().is_some_and(|index| kinds.get(index) == Some(&true))
                && (self.trace_id.is_empty() || event.trace() == self.trace_id)
        };
        batch
            .items()
            .filter_map(|item| match item {
                Item::Event(event) => Some(event),
                Item::Story(_) => None,
            })
            .enumerate()
            .filter_map(|(position, event)| matches(event).then_some(position))
            .collect()
    }
}

/// A batch with events that match a filter.
#[derive(Clone, Debug)]
pub struct MatchingBatch {
    /// The batch.
    pub batch: Vec<u8>,
    /// The positions of matching events among its events, ascending.
    pub positions: Vec<usize>,
}

/// Finds the newest matching events, at most `limit`. Returns their batches, newest first.
///
/// # Errors
/// When a segment can't be read. Segments that were retired since are skipped.
pub fn newest_events(
    log: &LogSnapshot,
    filter: &EventFilter,
    limit: usize,
) -> io::Result<Vec<MatchingBatch>> {
    let (mut found, mut events) = (Vec::new(), 0);
    if limit == 0 {
        return Ok(found);
    }
    log.newest_first(MAX_READ_BYTES, |frame| {
        let Ok(batch) = Batch::parse(frame.payload) else {
            return ControlFlow::Continue(());
        };
        let mut positions = filter.positions(&batch);
        let surplus = positions.len().saturating_sub(limit - events);
        positions.drain(..surplus);
        if positions.is_empty() {
            return ControlFlow::Continue(());
        }
        events += positions.len();
        found.push(MatchingBatch { batch: frame.payload.to_vec(), positions });
        if events < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}
