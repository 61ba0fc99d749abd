//! The spool as exporters read it, each at a position of its own, beside the server.
//!
//! An exporter asks for a view, reads batches in it by itself, and says how far it is done. The
//! spool keeps what some exporter hasn't read as long as it has room.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::lanes::LANES;
use crate::store::{Frame, FramePosition, LogSnapshot};
use tapio_core::ring::Bell;

/// A position in each lane: everything before it is done.
pub(super) type LanePositions = [FramePosition; LANES];

/// How far an exporter is in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCursor {
    /// Everything before it is done.
    pub position: FramePosition,
    /// The events that are done in the position's segment.
    pub events: u64,
}

/// How far an exporter is.
pub type ExportCursor = [LaneCursor; LANES];

/// A lane at the time of a view.
pub(super) struct LaneView {
    pub(super) log: LogSnapshot,
    /// Batches behind it aren't released.
    pub(super) end: FramePosition,
}

/// The spool at one time.
#[derive(Clone, Default)]
pub struct SpoolView {
    /// `None` until the spool is open.
    lanes: Option<Arc<[LaneView; LANES]>>,
    /// Whether the agent shuts down: nothing should wait for more.
    pub is_draining: bool,
    /// Whether nothing comes behind it any more.
    pub is_closed: bool,
}

impl SpoolView {
    /// Where a lane ends.
    #[must_use]
    pub fn end(&self, lane: usize) -> FramePosition {
        self.lanes.as_ref().map_or(FramePosition::default(), |lanes| lanes[lane].end)
    }

    /// Passes the batches of a lane from a position on to `visit`, oldest first, until it breaks.
    /// Returns whether the end was reached.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn read(
        &self,
        lane: usize,
        from: FramePosition,
        mut visit: impl FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        let Some(lanes) = &self.lanes else { return Ok(false) };
        let LaneView { log, end } = &lanes[lane];
        let mut is_stopped = false;
        log.oldest_first(from, |frame| {
            if frame.position >= *end {
                return ControlFlow::Break(());
            }
            let visited = visit(frame);
            is_stopped = visited.is_break();
            visited
        })?;
        Ok(!is_stopped)
    }
}

/// The progress of an exporter.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// `None`: a new exporter, before the spool is open.
    done: Option<ExportCursor>,
    /// The last segment of each lane that it has read from.
    reading: [u64; LANES],
}

#[derive(Default)]
struct FeedState {
    exporters: Vec<Progress>,
    /// Those of removed segments too, until every exporter has passed them.
    segments: [BTreeMap<u64, SegmentEvents>; LANES],
}

/// The events of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct SegmentEvents {
    events: u64,
    is_removed: bool,
}

/// The spool as exporters read it.
pub struct SpoolFeed {
    state: Mutex<FeedState>,
    view: watch::Sender<SpoolView>,
    /// Whether an exporter waits for a view. Release in `ask`, Acquire in `is_asked`.
    is_asked: AtomicBool,
    /// Counts the moves of exporters. Release in `done`, Acquire in `moves`.
    moves: AtomicU64,
    bell: Arc<Bell>,
}

impl SpoolFeed {
    /// `exporters`: how far each was when the last process ended; `None` for a new one, which
    /// begins where the server is. `bell`: the bridge's.
    #[must_use]
    pub fn new(exporters: impl IntoIterator<Item = Option<ExportCursor>>, bell: Arc<Bell>) -> Self {
        let progress = |done| Progress { done, ..Progress::default() };
        let exporters = exporters.into_iter().map(progress).collect();
        Self {
            state: Mutex::new(FeedState { exporters, ..FeedState::default() }),
            view: watch::Sender::default(),
            is_asked: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            bell,
        }
    }

    /// Views for an exporter.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<SpoolView> {
        self.view.subscribe()
    }

    /// Asks for a view with more than the last one; [`SpoolFeed::views`] gets it.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// How far an exporter is; `None` until the spool is open.
    #[must_use]
    pub fn cursor(&self, exporter: usize) -> Option<ExportCursor> {
        self.state().exporters.get(exporter)?.done
    }

    /// Notes how far an exporter is.
    pub fn done(&self, exporter: usize, cursor: ExportCursor) {
        if let Some(progress) = self.state().exporters.get_mut(exporter) {
            progress.done = Some(cursor);
        }
        self.moves.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// Notes the segment of a lane that an exporter reads.
    pub fn reading(&self, exporter: usize, lane: usize, segment: u64) {
        if let Some(progress) = self.state().exporters.get_mut(exporter) {
            progress.reading[lane] = progress.reading[lane].max(segment);
        }
    }

    /// The events of a lane's segments.
    #[must_use]
    pub fn events(&self, lane: usize, segments: std::ops::Range<u64>) -> u64 {
        self.sum(lane, segments, |_| true)
    }

    /// The events of a lane's segments that aren't in the spool any more.
    #[must_use]
    pub fn removed_events(&self, lane: usize, segments: std::ops::Range<u64>) -> u64 {
        self.sum(lane, segments, |segment| segment.is_removed)
    }

    fn sum(
        &self,
        lane: usize,
        segments: std::ops::Range<u64>,
        counts: impl Fn(&SegmentEvents) -> bool,
    ) -> u64 {
        if segments.is_empty() {
            return 0;
        }
        let state = self.state();
        let of_lane = state.segments[lane].range(segments).map(|(_, segment)| segment);
        of_lane.filter(|segment| counts(segment)).map(|segment| segment.events).sum()
    }

    /// Notes where the server is and the lanes end, for new exporters and those whose position the
    /// spool doesn't have.
    pub(super) fn open(&self, acked: ExportCursor, ends: LanePositions) {
        for progress in &mut self.state().exporters {
            let done = progress.done.get_or_insert(acked);
            for (lane, cursor) in done.iter_mut().enumerate() {
                if cursor.position > ends[lane] {
                    *cursor = acked[lane];
                }
            }
        }
    }

    /// Says that nothing more comes, also where the bridge has ended without a word.
    pub fn close(&self) {
        self.view.send_modify(|view| view.is_closed = true);
    }

    /// The position of the exporter that is furthest behind; `None` if there is none.
    pub(super) fn slowest(&self) -> Option<LanePositions> {
        let state = self.state();
        let done = state.exporters.iter().map(|e| e.done.unwrap_or_default());
        let done = done.map(|cursor| cursor.map(|lane| lane.position));
        done.reduce(|a, b| std::array::from_fn(|lane| a[lane].min(b[lane])))
    }

    /// The last segment of a lane that some exporter has read from.
    pub(super) fn last_read(&self, lane: usize) -> u64 {
        self.state().exporters.iter().map(|e| e.reading[lane]).max().unwrap_or(0)
    }

    /// Whether an exporter waits for a view.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// A number that changes when an exporter has moved on.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Notes the events of a segment; a larger number than before counts.
    pub(super) fn note_events(&self, lane: usize, segment: u64, events: u64) {
        let mut state = self.state();
        let noted = state.segments[lane].entry(segment).or_default();
        noted.events = events.max(noted.events);
    }

    /// Notes that a segment with so many events was removed.
    pub(super) fn note_removed(&self, lane: usize, segment: u64, events: u64) {
        self.note_events(lane, segment, events);
        if let Some(noted) = self.state().segments[lane].get_mut(&segment) {
            noted.is_removed = true;
        }
    }

    /// Passes a view on to the exporters, with the events of its segments.
    pub(super) fn publish(
        &self,
        lanes: [LaneView; LANES],
        events: [Vec<(u64, u64)>; LANES],
        (is_draining, is_closed): (bool, bool),
    ) {
        let slowest = self.slowest().unwrap_or_default();
        for (lane, segments) in events.into_iter().enumerate() {
            for (segment, events) in segments {
                self.note_events(lane, segment, events);
            }
            self.state().segments[lane].retain(|segment, _| *segment >= slowest[lane].segment);
        }
        self.is_asked.store(false, Ordering::Release);
        self.view.send_replace(SpoolView { lanes: Some(Arc::new(lanes)), is_draining, is_closed });
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
