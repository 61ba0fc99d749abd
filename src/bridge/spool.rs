//! The spool of a lane: batches on disk from their encoding until the server has stored them.
//!
//! Every batch is appended to a segmented log before it is sent. With `durability: process` it is
//! *released* then: its events are accepted, and it is sent. With `power` it is released once it
//! is synced. Batches that fit into memory are sent from there. Those beyond it are the *backlog*:
//! they are read back, oldest first, as acknowledgements make room. `acked` has the position up to
//! which the server has answered, so that the next process goes on there; batches that it sends
//! a second time are duplicates for the server.
//!
//! ```text
//!   acked        first in memory          backlog          released      end of the log
//!     │ answered      │ in memory: to send   │ on disk only     │ to be synced   │
//! ────┴───────────────┴──────────────────────┴──────────────────┴────────────────┴──▶
//! ```
//!
//! When the oldest segment without batches in flight makes room, its events are counted as dropped,
//! on disk and in memory.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{Accounts, QueuedBatch, accounts_of, add, without_generations};
use super::queue::SendQueue;
use crate::store::{
    Durability, Files, Frame, FramePosition, PendingSync, SealedIndex, SegmentIndex, SegmentLog,
    SegmentLogConfig,
};
use tapio_core::event::EventId;
use tapio_core::ring::MAX_ACCOUNTS;
use tapio_wire::{Batch, EncodedBatch, Item};

/// The position up to which the server has answered.
const ACKED_FILE: &str = "acked";

/// The tail of the log that is kept for the ids in it.
const TAIL_BYTES: u64 = 64 * 1024 * 1024;
const TAIL_SEGMENTS: usize = 64;
/// No log has as many segments: a greater number in the file is damage.
const MAX_SEGMENT: u64 = 1 << 48;

/// A lane's spool to be opened.
pub(super) struct LaneSpool {
    /// Its folder; created if missing.
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) durability: Durability,
    /// The epoch of this process's batches.
    pub(super) epoch: u64,
    /// The collector's number under which events of earlier processes are counted.
    pub(super) recovered: u8,
}

/// Events by account and segment.
struct SpoolIndex {
    own_epoch: u64,
    recovered: u8,
    /// The counts of the batch that is being appended, to save parsing it.
    next: Option<Accounts>,
    segments: BTreeMap<u64, Accounts>,
    /// Segments that were removed to stay within the budget.
    removed: Vec<(u64, Accounts)>,
    /// Events of the segment that is appended to.
    open: Option<u64>,
}

impl SpoolIndex {
    fn add(&mut self, segment: u64, accounts: &Accounts) {
        add(self.segments.entry(segment).or_insert([0; MAX_ACCOUNTS]), accounts);
    }
}

fn subtract(sum: &mut Accounts, accounts: &Accounts) {
    sum.iter_mut().zip(accounts).for_each(|(sum, n)| *sum = sum.saturating_sub(*n));
}

impl SegmentIndex for SpoolIndex {
    fn frame(&mut self, frame: &Frame<'_>) {
        let accounts = self.next.take().or_else(|| {
            let batch = Batch::parse(frame.payload).ok()?;
            Some(accounts_of(&batch, self.own_epoch, self.recovered))
        });
        self.open = Some(frame.position.segment);
        self.add(frame.position.segment, &accounts.unwrap_or([0; MAX_ACCOUNTS]));
    }

    /// The summary is the number of events: to the next process all of them are recovered ones.
    fn seal(&mut self) -> SealedIndex {
        let accounts = self.open.take().and_then(|segment| self.segments.get(&segment));
        let events: u64 = accounts.map_or(0, |a| a.iter().map(|n| u64::from(*n)).sum());
        SealedIndex { summary: events.to_le_bytes().to_vec(), index: Vec::new() }
    }

    fn discard(&mut self, segment: u64) {
        self.segments.retain(|s, _| *s < segment);
    }

    fn sealed(&mut self, segment: u64, summary: &[u8]) {
        let events = summary.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut accounts = [0; MAX_ACCOUNTS];
        accounts[usize::from(self.recovered) % MAX_ACCOUNTS] =
            events.try_into().unwrap_or(u32::MAX);
        self.add(segment, &accounts);
    }

    fn retired(&mut self, segment: u64) {
        if let Some(accounts) = self.segments.remove(&segment) {
            self.removed.push((segment, accounts));
        }
    }
}

/// The batches on disk.
pub(super) struct Spool {
    log: SegmentLog<SpoolIndex>,
    files: Arc<dyn Files>,
    dir: PathBuf,
    own_epoch: u64,
    recovered: u8,
    /// The first batch that isn't in memory; `None`: all that are released are.
    backlog: Option<FramePosition>,
    /// Events in the backlog's first segment that are before it.
    loaded: Accounts,
    /// The segment of the batch that was released last, and the events released from it.
    released: (u64, Accounts),
    /// The position in the file.
    acked: FramePosition,
    /// Whether a batch was appended since the segment that is appended to was given up.
    has_appended: bool,
}

impl Spool {
    /// Opens or creates the spool. Returns it with the number of recovered events.
    ///
    /// # Errors
    /// With the folder, when it can't be used.
    pub(super) fn open(config: LaneSpool, files: Arc<dyn Files>) -> io::Result<(Self, Accounts)> {
        let LaneSpool { dir, segment_bytes, durability, epoch, recovered } = config;
        let log_config = SegmentLogConfig {
            dir: dir.clone(),
            segment_bytes,
            // The outbox divides the room between the lanes.
            retention_bytes: u64::MAX,
            retires_when_full: false,
            durability,
            acknowledges_recovered: false,
        };
        let index = SpoolIndex {
            own_epoch: epoch,
            recovered,
            next: None,
            segments: BTreeMap::new(),
            removed: Vec::new(),
            open: None,
        };
        let mut log = SegmentLog::open(log_config, Arc::clone(&files), index)?;
        let mut acked = read_acked(&*files, &dir);
        if acked > log.end() {
            // A loss of power has left less than was there. New batches behind it must not look as
            // if they were answered.
            log.skip_number(acked.segment);
            acked = log.end();
        }
        log.index_mut().removed.clear();
        let first = log.snapshot().segments().next();
        let mut spool = Self {
            log,
            files,
            dir,
            own_epoch: epoch,
            recovered,
            backlog: first.map(|segment| acked.max(FramePosition { segment, offset: 0 })),
            loaded: [0; MAX_ACCOUNTS],
            released: (0, [0; MAX_ACCOUNTS]),
            acked,
            has_appended: false,
        };
        let waiting = spool.count_waiting()?;
        Ok((spool, waiting))
    }

    /// Adds the ids of the latest events that their sources may deliver again, up to about
    /// `max_ids`, in the tail of the log. A source's saved position is at most a few batches
    /// behind, but many processes may have been killed since it was saved.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub(super) fn latest_ids(
        &self,
        ids: &mut HashSet<EventId, ahash::RandomState>,
        max_ids: usize,
    ) -> io::Result<()> {
        let log = self.log.snapshot();
        let tail = self.log.tail_start(TAIL_BYTES, TAIL_SEGMENTS);
        for segment in log.segments().rev().take_while(|segment| *segment >= tail) {
            let Some(frames) = log.frames(segment)? else { continue };
            for (offset, _) in frames.offsets().rev() {
                if ids.len() >= max_ids {
                    return Ok(());
                }
                if let Some(payload) = frames.payload(offset)? {
                    add_ids(&payload, ids);
                }
            }
        }
        Ok(())
    }

    /// Counts the events of earlier processes that the server hasn't answered.
    fn count_waiting(&mut self) -> io::Result<Accounts> {
        let mut waiting = [0; MAX_ACCOUNTS];
        let Some(from) = self.backlog else { return Ok(waiting) };
        let unanswered = self.log.index().segments.range(from.segment..);
        unanswered.for_each(|(_, accounts)| add(&mut waiting, accounts));
        let (own_epoch, recovered) = (self.own_epoch, self.recovered);
        let loaded = &mut self.loaded;
        let start = FramePosition { offset: 0, ..from };
        self.log.snapshot().oldest_first(start, |frame| {
            if frame.position >= from {
                return ControlFlow::Break(());
            }
            if let Ok(batch) = Batch::parse(frame.payload) {
                add(loaded, &accounts_of(&batch, own_epoch, recovered));
            }
            ControlFlow::Continue(())
        })?;
        subtract(&mut waiting, loaded);
        Ok(waiting)
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub(super) fn append(
        &mut self,
        batch: &EncodedBatch,
        receipt_ns: u64,
    ) -> io::Result<FramePosition> {
        self.log.index_mut().next = Some(without_generations(&batch.accounts));
        let appended = self.log.append(&batch.message(), receipt_ns);
        // A batch that was refused has left them behind.
        self.log.index_mut().next = None;
        self.has_appended |= appended.is_ok();
        appended
    }

    /// Queues an appended batch, if `queue` has room and no batch waits on disk before it. Returns
    /// the events of batches before it that turned out to be lost.
    pub(super) fn release(
        &mut self,
        batch: &EncodedBatch,
        position: FramePosition,
        queue: &mut SendQueue,
        queue_bytes: usize,
    ) -> Option<Accounts> {
        if self.released.0 != position.segment {
            self.released = (position.segment, [0; MAX_ACCOUNTS]);
        }
        let before = self.released.1;
        add(&mut self.released.1, &without_generations(&batch.accounts));
        let has_room = queue.bytes() + batch.len_bytes() <= queue_bytes;
        match self.backlog {
            None if !has_room => {
                self.backlog = Some(position);
                self.loaded = before;
                None
            }
            None => {
                queue.push(QueuedBatch::encoded(batch, self.own_epoch, Some(position)));
                None
            }
            // Everything before it is read back.
            Some(backlog) if has_room && backlog == position => {
                queue.push(QueuedBatch::encoded(batch, self.own_epoch, Some(position)));
                self.backlog = None;
                let mut lost = before;
                subtract(&mut lost, &std::mem::replace(&mut self.loaded, [0; MAX_ACCOUNTS]));
                some_events(lost)
            }
            Some(_) => None,
        }
    }

    /// Accounts for the segments that the log has removed, and drops their unsent batches from
    /// `queue`; `None` if nothing of them was waiting.
    pub(super) fn drop_removed(&mut self, mut queue: Option<&mut SendQueue>) -> Option<Accounts> {
        let removed = std::mem::take(&mut self.log.index_mut().removed);
        let mut dropped = [0; MAX_ACCOUNTS];
        for (segment, mut accounts) in removed {
            if let Some(queue) = &mut queue {
                add(&mut dropped, &queue.drop_segment(segment));
            }
            let Some(backlog) = self.backlog.filter(|b| b.segment <= segment) else { continue };
            if backlog.segment == segment {
                subtract(&mut accounts, &self.loaded);
                self.backlog = Some(FramePosition { segment: segment + 1, offset: 0 });
                self.loaded = [0; MAX_ACCOUNTS];
            }
            add(&mut dropped, &accounts);
        }
        some_events(dropped)
    }

    /// Reads batches of the backlog into the queue, up to `queue_bytes` in all. `unreleased`: the
    /// first batch that isn't released. Returns the events of batches that are damaged or
    /// unreadable; their segment is left behind.
    pub(super) fn refill(
        &mut self,
        queue: &mut SendQueue,
        queue_bytes: usize,
        unreleased: Option<FramePosition>,
    ) -> Option<Accounts> {
        let from = self.backlog?;
        let (own_epoch, recovered) = (self.own_epoch, self.recovered);
        let (mut at, mut loaded) = (from, self.loaded);
        let (mut is_full, mut is_unreadable, mut lost) = (false, false, [0; MAX_ACCOUNTS]);
        let segments = &self.log.index().segments;
        let mut finish = |segment: u64, loaded: &Accounts| {
            let mut missing = segments.get(&segment).copied().unwrap_or([0; MAX_ACCOUNTS]);
            subtract(&mut missing, loaded);
            add(&mut lost, &missing);
        };
        let read = self.log.snapshot().oldest_first(from, |frame| {
            let is_unreleased = unreleased.is_some_and(|first| frame.position >= first);
            if queue.bytes() >= queue_bytes || is_unreleased {
                is_full = true;
                return ControlFlow::Break(());
            }
            for segment in at.segment..frame.position.segment {
                finish(segment, &std::mem::replace(&mut loaded, [0; MAX_ACCOUNTS]));
            }
            at = frame.end();
            let batch = QueuedBatch::spooled(frame.payload, frame.position, own_epoch, recovered);
            if let Some(batch) = batch {
                add(&mut loaded, &batch.accounts);
                queue.push(batch);
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::error!(segment = at.segment, %error, "spool: can't read the rest of a segment");
            finish(at.segment, &std::mem::replace(&mut loaded, [0; MAX_ACCOUNTS]));
            at = FramePosition { segment: at.segment + 1, offset: 0 };
            is_full = true;
            is_unreadable = true;
        } else if !is_full {
            for segment in at.segment..=self.log.end().segment {
                finish(segment, &std::mem::replace(&mut loaded, [0; MAX_ACCOUNTS]));
            }
        }
        self.backlog = is_full.then_some(at);
        self.loaded = loaded;
        if is_unreadable {
            // What is appended from now on isn't behind the unreadable part.
            self.log.seal();
        }
        some_events(lost)
    }

    /// Whether batches wait on disk only.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Drops the oldest full segment, except for those with batches in flight, which may be stored
    /// or not, and for those with batches that aren't released. Returns whether there was one.
    pub(super) fn drop_oldest(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
    ) -> bool {
        let after = queue.in_flight_segment().unwrap_or(0);
        let before = unreleased.map_or(u64::MAX, |first| first.segment);
        self.log.retire_one_of(after + 1..before)
    }

    /// Drops the oldest segment of which the server has answered everything, the one that is
    /// appended to included. Returns whether there was one.
    pub(super) fn drop_answered(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
    ) -> bool {
        let first = queue.first_position().or(self.backlog).or(unreleased);
        let answered = first.map_or(u64::MAX, |first| first.segment);
        if self.log.retire_one_of(..answered) {
            return true;
        }
        // A segment without a batch has nothing to give up.
        if first.is_some() || !std::mem::take(&mut self.has_appended) {
            return false;
        }
        self.log.seal();
        self.log.retire_one_of(..)
    }

    /// Notes what has to be written to the disk; `None` if nothing has.
    pub(super) fn begin_sync(&mut self) -> Option<PendingSync> {
        self.log.begin_sync()
    }

    /// Takes the result of a sync. After an error, the batches that weren't synced aren't in the
    /// spool any more.
    ///
    /// # Errors
    /// The error of the disk.
    pub(super) fn finish_sync(
        &mut self,
        sync: &PendingSync,
        result: io::Result<()>,
    ) -> io::Result<()> {
        self.log.finish_sync(sync, result).map_err(|(_, error)| error)
    }

    /// Removes what the server has answered, and notes how far that is. `unreleased`: the first
    /// batch that isn't released. The tail of the log stays, for [`Spool::latest_ids`].
    ///
    /// # Errors
    /// When the file can't be written; the next process then sends some batches a second time.
    pub(super) fn trim(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
    ) -> io::Result<()> {
        let first = queue.first_position().or(self.backlog).or(unreleased);
        let acked = first.unwrap_or_else(|| self.log.end());
        if acked == self.acked {
            return Ok(());
        }
        // First, since the file needs room on a full disk too.
        let tail = self.log.tail_start(TAIL_BYTES, TAIL_SEGMENTS);
        self.log.trim(acked.segment.min(tail));
        self.log.index_mut().removed.clear();
        write_acked(&*self.files, &self.dir, acked)?;
        self.acked = acked;
        Ok(())
    }

    /// Ends the segment that is appended to, so that the next start doesn't read it.
    pub(super) fn close(&mut self) {
        self.log.seal();
    }

    /// Notices deleted segments.
    ///
    /// # Errors
    /// When the folder can't be read, or the disk refuses to write the current segment again.
    pub(super) fn check(&mut self) -> io::Result<Option<Accounts>> {
        self.log.check()?;
        // Batches in memory can be sent all the same.
        Ok(self.drop_removed(None))
    }
}

/// Adds the ids of a batch's events.
fn add_ids(payload: &[u8], ids: &mut HashSet<EventId, ahash::RandomState>) {
    let Ok(batch) = Batch::parse(payload) else { return };
    ids.extend(batch.items().filter_map(|item| match item {
        Item::Event(event) => event.event_id(),
        Item::Story(_) => None,
    }));
}

fn some_events(accounts: Accounts) -> Option<Accounts> {
    accounts.iter().any(|n| *n > 0).then_some(accounts)
}

fn read_acked(files: &dyn Files, dir: &std::path::Path) -> FramePosition {
    let read = || {
        let file = files.open(&dir.join(ACKED_FILE)).ok()?;
        let mut bytes = [0; 64];
        let len = file.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..len]).ok()?;
        let (segment, offset) = text.trim_end().split_once(' ')?;
        let segment = segment.parse().ok().filter(|segment| *segment < MAX_SEGMENT)?;
        Some(FramePosition { segment, offset: offset.parse().ok()? })
    };
    // Without it, everything is sent again, and the server has it once.
    read().unwrap_or_default()
}

fn write_acked(files: &dyn Files, dir: &std::path::Path, acked: FramePosition) -> io::Result<()> {
    let new = dir.join("acked.new");
    let _ = files.remove(&new);
    let text = format!("{} {}\n", acked.segment, acked.offset);
    files.create(&new)?.write_at([text.as_bytes(), &[], &[]], 0)?;
    files.rename(&new, &dir.join(ACKED_FILE))
}
