//! The outbox's side of the exporters: what they may read, what is kept for them, and, where no
//! server is configured, what they have answered.

use std::sync::Arc;

use super::account::EventAccount;
use super::feed::{LaneCursor, LanePositions, SpoolFeed};
use super::lane::Lane;
use super::lanes::LANES;
use super::queue::Acknowledged;
use crate::store::FramePosition;

/// The exporters of an outbox.
pub(super) struct Exports {
    feed: Arc<SpoolFeed>,
    /// Whether a batch is answered once every exporter has read it: no server is configured.
    answers: bool,
    /// Where the lanes ended when the last view was published.
    published: Option<LanePositions>,
    /// Whether the last view said that the agent shuts down.
    is_draining: bool,
    /// The moves of the exporters that were taken into account.
    moves: u64,
}

impl Exports {
    pub(super) fn new(feed: Arc<SpoolFeed>, answers: bool, lanes: &[Lane; LANES]) -> Self {
        let acked = lanes
            .each_ref()
            .map(|lane| LaneCursor { position: lane.acked(), events: lane.answered_events() });
        feed.open(acked, lanes.each_ref().map(Lane::end));
        let exports = Self { feed, answers, published: None, is_draining: false, moves: 0 };
        exports.note_events(lanes);
        exports
    }

    /// The first batch of a lane that some exporter hasn't read.
    pub(super) fn kept(&self, lane: usize) -> Option<FramePosition> {
        Some(self.feed.slowest()?[lane])
    }

    /// The last segment of a lane whose batches exporters may have sent, and aren't answered.
    pub(super) fn attempted_segment(&self, lane: usize) -> u64 {
        if self.answers { self.feed.last_read(lane) } else { 0 }
    }

    /// Whether there is something to publish or to answer.
    pub(super) fn is_due(&self, lanes: &[Lane; LANES]) -> bool {
        (self.feed.is_asked() && self.published != Some(lanes.each_ref().map(Lane::end)))
            || (self.answers && self.moves != self.feed.moves())
    }

    /// Shows the exporters what is released, if one waits for it.
    pub(super) fn publish(&mut self, lanes: &[Lane; LANES], is_draining: bool, is_closed: bool) {
        let is_changed = is_draining != self.is_draining || is_closed;
        let ends = lanes.each_ref().map(Lane::end);
        if !is_changed && (!self.feed.is_asked() || self.published == Some(ends)) {
            return;
        }
        (self.published, self.is_draining) = (Some(ends), is_draining);
        let [Some(important), Some(ordinary)] = lanes.each_ref().map(Lane::view) else { return };
        let events = lanes.each_ref().map(|lane| lane.segment_events().collect());
        self.feed.publish([important, ordinary], events, (is_draining, is_closed));
    }

    /// Notes the events of the segments, before some are removed.
    pub(super) fn note_events(&self, lanes: &[Lane; LANES]) {
        for (number, lane) in lanes.iter().enumerate() {
            for (segment, events) in lane.segment_events() {
                self.feed.note_events(number, segment, events);
            }
        }
    }

    /// Notes the events of segments of a lane that were removed.
    pub(super) fn note_removed(&self, number: usize, lane: &Lane) {
        for (segment, events) in lane.removed_events() {
            self.feed.note_removed(number, segment, events);
        }
    }

    /// Answers the batches that every exporter has read, if no server does.
    pub(super) fn answer(
        &mut self,
        lanes: &mut [Lane; LANES],
        account: &EventAccount,
    ) -> Option<Acknowledged> {
        let moves = self.feed.moves();
        if !self.answers || self.moves == moves {
            return None;
        }
        let slowest = self.feed.slowest()?;
        self.moves = moves;
        let mut done = Acknowledged::default();
        for (lane, end) in lanes.iter_mut().zip(slowest) {
            done.add(&lane.queue.answer_before(end, account));
        }
        Some(done)
    }
}
