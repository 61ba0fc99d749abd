//! The damage that a log has: found at its start, by reads and by the scrubber. Each place is
//! logged and counts once, and an owner can ask up to which receipt something is missing.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::segment;

/// Places that are remembered; more of them aren't counted.
const MAX_PLACES: usize = 65_536;
/// Damaged frames of a segment that are logged one by one.
const MAX_LOGGED: usize = 10;

/// The damage of a log.
pub(super) struct Damage {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, SegmentDamage>,
    /// Segments that are gone although nothing retired them, with a time by which all of their
    /// frames were received.
    gone: BTreeMap<u64, u64>,
    places: usize,
    corrupt_frames: u64,
    unreadable_segments: u64,
}

#[derive(Default)]
struct SegmentDamage {
    /// Offsets of damaged frames.
    offsets: HashSet<u64>,
    /// Frames that aren't there any more.
    missing_frames: u64,
    is_unreadable: bool,
    /// The latest receipt of what is damaged, nanoseconds since the Unix epoch.
    last_receipt_ns: u64,
}

impl Damage {
    /// Nothing is damaged yet in the log of this folder.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        segment::path(&self.dir, number)
    }

    /// Notes a frame that can't be read.
    pub(super) fn corrupt(&self, number: u64, offset: u64, receipt_ns: u64, cause: &str) {
        let mut state = self.state();
        let has_room = state.places < MAX_PLACES;
        let segment = state.segments.entry(number).or_default();
        segment.last_receipt_ns = segment.last_receipt_ns.max(receipt_ns);
        if has_room && segment.offsets.insert(offset) {
            let places = segment.offsets.len();
            state.places += 1;
            state.corrupt_frames += 1;
            if places <= MAX_LOGGED {
                let more =
                    if places == MAX_LOGGED { "; further ones are only counted" } else { "" };
                tracing::error!(
                    segment = %self.path(number).display(), offset, cause,
                    "segment log: a stored frame is damaged{more}"
                );
            }
        }
    }

    /// Notes that a segment has fewer frames than it had, the latest received at `receipt_ns`.
    pub(super) fn missing(&self, number: u64, frames: u64, receipt_ns: u64) {
        let mut state = self.state();
        let segment = state.segments.entry(number).or_default();
        segment.last_receipt_ns = segment.last_receipt_ns.max(receipt_ns);
        if frames > segment.missing_frames {
            let more = frames - segment.missing_frames;
            segment.missing_frames = frames;
            state.corrupt_frames += more;
            tracing::error!(
                segment = %self.path(number).display(), frames,
                "segment log: stored frames are missing"
            );
        }
    }

    /// Notes a segment that can't be read, whose last frame was received at `receipt_ns`.
    pub(super) fn unreadable(&self, number: u64, receipt_ns: u64, error: &io::Error) {
        let mut state = self.state();
        let segment = state.segments.entry(number).or_default();
        segment.last_receipt_ns = segment.last_receipt_ns.max(receipt_ns);
        if !std::mem::replace(&mut segment.is_unreadable, true) {
            state.unreadable_segments += 1;
            tracing::error!(
                segment = %self.path(number).display(), %error,
                "segment log: can't read a segment"
            );
        }
    }

    /// Notes that a segment can be read: what it had may have been temporary.
    pub(super) fn readable(&self, number: u64) {
        let mut state = self.state();
        if let Some(segment) = state.segments.get_mut(&number)
            && std::mem::take(&mut segment.is_unreadable)
            && segment.offsets.is_empty()
            && segment.missing_frames == 0
        {
            state.segments.remove(&number);
        }
    }

    /// Notes a segment that is gone although nothing retired it.
    pub(super) fn gone(&self, number: u64, receipt_ns: u64) {
        self.state().gone.insert(number, receipt_ns);
    }

    /// Whether something of a segment is damaged.
    pub(super) fn has(&self, number: u64) -> bool {
        self.state().segments.contains_key(&number)
    }

    /// Notes that a segment was retired.
    pub(super) fn retired(&self, number: u64) {
        let mut state = self.state();
        if let Some(segment) = state.segments.remove(&number) {
            state.places -= segment.offsets.len();
        }
    }

    /// Forgets the segments before the oldest one that are gone: they would be retired by now.
    pub(super) fn retired_before(&self, oldest: u64) {
        let mut state = self.state();
        state.gone = state.gone.split_off(&oldest);
    }

    /// The latest receipt of what is damaged or gone; `None` if nothing is.
    pub(super) fn last_receipt_ns(&self) -> Option<u64> {
        let state = self.state();
        let damaged = state.segments.values().map(|segment| segment.last_receipt_ns);
        damaged.chain(state.gone.values().copied()).max()
    }

    /// Damaged and missing frames.
    pub(super) fn corrupt_frames(&self) -> u64 {
        self.state().corrupt_frames
    }

    /// Segments that couldn't be read.
    pub(super) fn unreadable_segments(&self) -> u64 {
        self.state().unreadable_segments
    }
}
