//! The spool → chunks of requests.

use std::ops::ControlFlow;

use crate::bridge::{ExportCursor, IMPORTANT, LaneCursor, ORDINARY, SpoolFeed, SpoolView};
use crate::store::{Frame, FramePosition};
use tapio_core::clock;
use tapio_wire::{Batch, OtlpEncoder, OtlpRequest};

/// A chunk is full with this many bytes of requests: a third of what receivers take by default.
const REQUEST_BYTES: usize = 1 << 20;
/// … or with this many bytes of batches, when most of their events are left out.
const BATCH_BYTES: usize = 4 << 20;

/// Accounts of the events of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkEvents {
    pub(super) passed: u64,
    pub(super) filtered: u64,
    pub(super) invalid: u64,
    pub(super) lost: u64,
}

/// Requests with a part of the spool.
pub(super) struct Chunk {
    pub(super) requests: Vec<OtlpRequest>,
    pub(super) events: ChunkEvents,
    /// How far the sink is once they are delivered.
    pub(super) after: ExportCursor,
}

/// Reads the spool for a sink.
pub(super) struct Reader {
    encoder: OtlpEncoder,
    /// The sink's number in the feed.
    number: usize,
    lanes: ExportCursor,
}

impl Reader {
    /// Changes the least severity of a log record.
    pub(super) fn set_min_severity(&mut self, min_severity: u8) {
        self.encoder.set_min_severity(min_severity);
    }

    pub(super) fn new(encoder: OtlpEncoder, number: usize, lanes: ExportCursor) -> Self {
        Self { encoder, number, lanes }
    }

    /// Events of a lane that it will find lost: their segments aren't in the spool any more.
    pub(super) fn lost_ahead(&self, lane: usize, feed: &SpoolFeed) -> u64 {
        let LaneCursor { position: FramePosition { segment, .. }, events } = self.lanes[lane];
        let here = feed.removed_events(lane, segment..segment + 1).saturating_sub(events);
        here + feed.removed_events(lane, segment + 1..u64::MAX)
    }

    /// The next chunk, the important lane first; `None` at the end of the view.
    pub(super) fn next(&mut self, view: &SpoolView, feed: &SpoolFeed) -> Option<Chunk> {
        let before = self.lanes;
        let mut events = ChunkEvents::default();
        let mut batch_bytes = 0;
        for lane in [IMPORTANT, ORDINARY] {
            if !self.read(lane, view, feed, (&mut events, &mut batch_bytes)) {
                break;
            }
        }
        (self.lanes != before).then(|| Chunk {
            requests: self.encoder.finish(),
            events,
            after: self.lanes,
        })
    }

    /// Reads a lane. Returns whether its end was reached, rather than the chunk filled.
    fn read(
        &mut self,
        lane: usize,
        view: &SpoolView,
        feed: &SpoolFeed,
        (events, batch_bytes): (&mut ChunkEvents, &mut usize),
    ) -> bool {
        let Self { encoder, number, lanes } = self;
        let cursor = &mut lanes[lane];
        let (from, now_ns) = (cursor.position, clock::wall_ns());
        let read = view.read(lane, from, |frame| {
            if encoder.len_bytes() >= REQUEST_BYTES || *batch_bytes >= BATCH_BYTES {
                return ControlFlow::Break(());
            }
            enter(cursor, lane, frame.position.segment, feed, events);
            feed.reading(*number, lane, frame.position.segment);
            *batch_bytes += frame.payload.len();
            add(encoder, cursor, &frame, now_ns, events);
            cursor.position = frame.end();
            ControlFlow::Continue(())
        });
        match read {
            Ok(true) => {
                let end = view.end(lane);
                enter(cursor, lane, end.segment, feed, events);
                cursor.position = cursor.position.max(end);
                true
            }
            Ok(false) => false,
            Err(error) => {
                let segment = cursor.position.segment;
                tracing::error!(segment, %error, "export: can't read the rest of a segment");
                enter(cursor, lane, segment + 1, feed, events);
                true
            }
        }
    }
}

/// Adds a batch to the requests.
fn add(
    encoder: &mut OtlpEncoder,
    cursor: &mut LaneCursor,
    frame: &Frame<'_>,
    now_ns: u64,
    events: &mut ChunkEvents,
) {
    // One that is damaged counts as lost at the end of its segment.
    let Ok(batch) = Batch::parse(frame.payload) else { return };
    let encoded = encoder.add(&batch, now_ns);
    cursor.events += encoded.events;
    events.passed += encoded.events;
    events.filtered += encoded.events_filtered;
    events.invalid += encoded.events_invalid;
}

/// Goes on to a segment: what wasn't read of those before it is lost.
fn enter(
    cursor: &mut LaneCursor,
    lane: usize,
    segment: u64,
    feed: &SpoolFeed,
    events: &mut ChunkEvents,
) {
    let from = cursor.position.segment;
    if segment > from {
        events.lost += feed.events(lane, from..segment).saturating_sub(cursor.events);
        *cursor = LaneCursor { position: FramePosition { segment, offset: 0 }, events: 0 };
    }
}

#[cfg(test)]
mod tests;
