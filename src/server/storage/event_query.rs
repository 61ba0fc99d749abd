//! Queries for events, newest first.

use std::ops::ControlFlow;
use std::time::Instant;

use prost::Message as _;

use super::frames::Frames;
use super::page::{Budget, Cursor, Page};
use super::query_filter::Filter;
use super::segment_index::SegmentIndex;
use crate::store::{FramePosition, LogSnapshot, SegmentFrames};
use tapio_core::clock;
use tapio_wire::{Batch, Item, proto};

/// The matching events of a batch.
#[derive(Clone, Debug)]
pub struct MatchingBatch {
    /// A batch of these events, in the order in which they were sent. It has the head of the stored
    /// batch, and only these items.
    pub batch: Vec<u8>,
}

/// A query that is ready to be read.
pub struct EventSelection {
    pub(super) filter: Filter,
    pub(super) before: Cursor,
    pub(super) log: LogSnapshot,
    /// The segments that may have matching events, newest first, also those of earlier pages.
    pub(super) segments: Vec<(u64, Frames)>,
}

impl EventSelection {
    /// Reads the newest matching events. The items of the page are their batches. Segments that
    /// were removed since are skipped; so is what is damaged, which the page isn't complete
    /// without.
    #[must_use]
    pub fn read(&self, budget: &Budget) -> Page<MatchingBatch> {
        let mut found = Found {
            filter: &self.filter,
            budget,
            deadline: budget.deadline(),
            batches: Vec::new(),
            frames: 0,
            events: 0,
            bytes: 0,
        };
        let (mut read, mut next) = (0, None);
        let unread = self.segments.iter().filter(|(segment, _)| *segment <= self.before.segment);
        for (segment, known) in unread {
            if found.is_full() {
                next = Some(Cursor::end_of(*segment));
                break;
            }
            let frames = self.frames(*segment, known);
            if matches!(&frames, Frames::At(offsets) if offsets.is_empty()) {
                continue;
            }
            if read >= budget.segments {
                next = Some(Cursor::end_of(*segment));
                break;
            }
            read += 1;
            if let ControlFlow::Break(cursor) = self.read_segment(*segment, &frames, &mut found) {
                next = Some(cursor);
                break;
            }
        }
        let remaining_ns = next.and_then(|next| self.last_receipt_before(next));
        let damaged_ns = self.log.damaged_receipt_ns();
        Page {
            items: found.batches,
            next: next.filter(|_| remaining_ns.is_some()),
            complete_since_ns: remaining_ns.max(damaged_ns).map_or(0, |ns| ns.saturating_add(1)),
        }
    }

    /// The latest receipt of a frame that a later page reads; `None` if there is none.
    fn last_receipt_before(&self, cursor: Cursor) -> Option<u64> {
        let mut last = None;
        for (segment, _) in self.segments.iter().filter(|(segment, _)| *segment <= cursor.segment) {
            let is_partial = *segment == cursor.segment && cursor.offset < u64::MAX;
            let receipt = match is_partial.then(|| self.log.frames(*segment)) {
                None => self.log.last_receipt_ns(*segment),
                Some(frames) => {
                    let frames = frames.iter().flat_map(SegmentFrames::offsets);
                    frames.filter(|(offset, _)| has_items(*offset, cursor)).map(|(_, ns)| ns).max()
                }
            };
            last = last.max(receipt);
        }
        last
    }

    /// The frames of a segment that may have matching events.
    fn frames(&self, segment: u64, known: &Frames) -> Frames {
        let filter = &self.filter;
        if *known != Frames::InIndex {
            return known.clone();
        }
        let is_indexed = !filter.trace_id.is_empty() || !filter.entities.is_empty();
        let reader = if is_indexed { self.log.index(segment) } else { None };
        let index = reader.and_then(|reader| SegmentIndex::open(move |range| reader.read(range)));
        index.map_or(Frames::All, |index| {
            let may_have = |hash| index.may_have_entity(hash);
            Frames::select(filter, may_have, |trace| index.frames_of(trace))
        })
    }

    /// Reads the rest of a segment. Breaks with the cursor of the next page.
    fn read_segment(
        &self,
        segment: u64,
        frames: &Frames,
        found: &mut Found<'_>,
    ) -> ControlFlow<Cursor> {
        match frames {
            Frames::At(offsets) => {
                let receipt_ns = self.log.last_receipt_ns(segment).unwrap_or_default();
                let payload =
                    |offset| self.log.payload(FramePosition { segment, offset }, receipt_ns);
                self.read_frames(segment, offsets.iter().copied(), payload, found)
            }
            Frames::All | Frames::InIndex => {
                let Some(frames) = self.log.frames(segment) else {
                    return ControlFlow::Continue(());
                };
                let offsets = frames.offsets().map(|(offset, _)| offset);
                self.read_frames(segment, offsets, |offset| frames.payload(offset), found)
            }
        }
    }

    /// Reads those frames of a segment that are before the cursor, newest first.
    fn read_frames(
        &self,
        segment: u64,
        offsets: impl DoubleEndedIterator<Item = u64>,
        payload: impl Fn(u64) -> Option<Vec<u8>>,
        found: &mut Found<'_>,
    ) -> ControlFlow<Cursor> {
        let cursor = self.before.min(Cursor::end_of(segment));
        for offset in offsets.filter(|offset| has_items(*offset, cursor)).rev() {
            let Some(payload) = payload(offset) else { continue };
            let is_first = cursor.segment == segment && cursor.offset == offset;
            let end = if is_first { cursor.position } else { u32::MAX };
            if let ControlFlow::Break(position) = found.add(&payload, end) {
                return ControlFlow::Break(Cursor { segment, offset, position });
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether the frame at an offset of the cursor's segment has items before the cursor.
fn has_items(offset: u64, cursor: Cursor) -> bool {
    (offset, 0) < (cursor.offset, cursor.position)
}

/// The events found so far.
struct Found<'a> {
    filter: &'a Filter,
    budget: &'a Budget,
    deadline: Option<Instant>,
    batches: Vec<MatchingBatch>,
    /// Frames that were read. A page without any would get no further.
    frames: usize,
    events: usize,
    bytes: usize,
}

impl Found<'_> {
    fn is_full(&self) -> bool {
        self.events >= self.budget.items
            || self.bytes >= self.budget.bytes
            || self.frames > 0 && self.deadline.is_some_and(|deadline| clock::instant() >= deadline)
    }

    /// Adds the matching events of a batch that are before the position `end`. Breaks, when the
    /// page is full, with the position before which the next page goes on.
    fn add(&mut self, payload: &[u8], end: u32) -> ControlFlow<u32> {
        let mut through = 0;
        self.frames += 1;
        if let Ok(batch) = Batch::parse(payload) {
            let mut positions = self.filter.positions(&batch);
            positions.retain(|position| *position < end as usize);
            let surplus = positions.len().saturating_sub(self.budget.items - self.events);
            if surplus > 0 {
                through = positions.get(surplus).map_or(end, |position| *position as u32);
            }
            positions.drain(..surplus);
            if !positions.is_empty() {
                let batch = extract(&batch, payload, &positions);
                if self.bytes > 0 && self.bytes.saturating_add(batch.len()) > self.budget.bytes {
                    return ControlFlow::Break(end);
                }
                self.events += positions.len();
                self.bytes += batch.len();
                self.batches.push(MatchingBatch { batch });
            }
        }
        if self.is_full() { ControlFlow::Break(through) } else { ControlFlow::Continue(()) }
    }
}

/// A batch with only the events at these positions.
fn extract(batch: &Batch<'_>, payload: &[u8], positions: &[usize]) -> Vec<u8> {
    const EVENTS_TAG: u32 = 6;
    let mut out = proto::EventBatch {
        first_sequence: batch.head.first_sequence,
        count: positions.len() as u32,
        node: batch.head.node.to_owned(),
        epoch: batch.head.epoch,
        names: batch.names().iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    let events = batch.items().filter_map(|item| match item {
        Item::Event(event) => Some(event),
        Item::Story(_) | Item::LogBlock(_) => None,
    });
    for (position, event) in events.enumerate() {
        if positions.binary_search(&position).is_ok() {
            let bytes = &payload[event.range()];
            prost::encoding::encode_key(
                EVENTS_TAG,
                prost::encoding::WireType::LengthDelimited,
                &mut out,
            );
            prost::encoding::encode_varint(bytes.len() as u64, &mut out);
            out.extend_from_slice(bytes);
        }
    }
    out
}
