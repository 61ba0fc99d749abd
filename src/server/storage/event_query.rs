//! Queries for events, newest first.

use std::io;
use std::ops::ControlFlow;

use prost::Message as _;

use super::event_filter::EventFilter;
use super::summary::{Index, entity_hash, first_eight};
use crate::store::{Frame, FramePosition, LogSnapshot};
use tapio_wire::Batch;

/// Segments that one query reads at most.
const MAX_READ_SEGMENTS: usize = 64;

/// A batch with events that match a filter.
#[derive(Clone, Debug)]
pub struct MatchingBatch {
    /// The batch.
    pub batch: Vec<u8>,
    /// The positions of matching events among its events, ascending.
    pub positions: Vec<usize>,
}

/// A query that is ready to be read.
pub struct EventSelection {
    pub(super) filter: EventFilter,
    pub(super) log: LogSnapshot,
    /// The segments that may have matching events, newest first.
    pub(super) segments: Vec<u64>,
}

impl EventSelection {
    /// Reads the newest matching events, at most `limit`. Returns their batches, newest first.
    ///
    /// # Errors
    /// When a segment can't be read. Segments that were removed since are skipped.
    pub fn read(&self, limit: usize) -> io::Result<Vec<MatchingBatch>> {
        let mut found = Found { filter: &self.filter, limit, batches: Vec::new(), events: 0 };
        for segment in self.segments.iter().take(MAX_READ_SEGMENTS) {
            if found.events >= limit || self.read_segment(*segment, &mut found)?.is_break() {
                break;
            }
        }
        Ok(found.batches)
    }

    fn read_segment(&self, segment: u64, found: &mut Found<'_>) -> io::Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        let (filter, entity) = (&self.filter, self.filter.entity());
        let is_indexed = !filter.trace_id.is_empty() || entity.is_some();
        let index = if is_indexed { self.log.index(segment)? } else { None };
        let index = index.and_then(|bytes| Index::decode(&bytes[..]).ok());
        if let (Some(index), Some((key, value))) = (&index, entity)
            && !index.may_have_entity(entity_hash(key, value))
        {
            return Ok(flow);
        }
        if let Some(index) = index.filter(|_| !filter.trace_id.is_empty()) {
            for offset in index.frames_of(first_eight(&filter.trace_id)).iter().rev() {
                let position = FramePosition { segment, offset: *offset };
                if let Some(payload) = self.log.payload(position)? {
                    flow = found.add(&payload);
                }
                if flow.is_break() {
                    break;
                }
            }
            return Ok(flow);
        }
        self.log.newest_first(
            |s| s == segment,
            |frame: Frame<'_>| {
                flow = found.add(frame.payload);
                flow
            },
        )?;
        Ok(flow)
    }
}

/// The events found so far.
struct Found<'a> {
    filter: &'a EventFilter,
    limit: usize,
    batches: Vec<MatchingBatch>,
    events: usize,
}

impl Found<'_> {
    fn add(&mut self, payload: &[u8]) -> ControlFlow<()> {
        let Ok(batch) = Batch::parse(payload) else {
            return ControlFlow::Continue(());
        };
        let mut positions = self.filter.positions(&batch);
        let surplus = positions.len().saturating_sub(self.limit - self.events);
        positions.drain(..surplus);
        if !positions.is_empty() {
            self.events += positions.len();
            self.batches.push(MatchingBatch { batch: payload.to_vec(), positions });
        }
        if self.events < self.limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
