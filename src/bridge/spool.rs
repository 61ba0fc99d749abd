//! The spool of a lane: batches on disk from their encoding until the server has stored them.
//!
//! Every batch is appended to a segmented log before it is sent. With `durability: process` it is
//! *released* then: its events are accepted, and it is sent. With `power` it is released once it
//! is synced. Batches that fit into memory are sent from there. Those beyond it are the *backlog*:
//! they are read back, oldest first, as acknowledgements make room. The checkpoint
//! has the position up to which the server has answered, so that the next process goes on there;
//! batches that it sends a second time are duplicates for the server.
//!
//! ```text
//!   acked        first in memory          backlog          released      end of the log
//!     │ answered      │ in memory: to send   │ on disk only     │ to be synced   │
//! ────┴───────────────┴──────────────────────┴──────────────────┴────────────────┴──▶
//! ```
//!
//! When the oldest segment without batches that were sent makes room, its events are counted as
//! dropped, on disk and in memory.

mod recovered;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{Accounts, QueuedBatch, add, without_generations};
use super::checkpoint::{Checkpoint, CheckpointFile};
use super::queue::SendQueue;
use super::spool_ids;
use super::spool_index::{SpoolIndex, subtract, total_of};
use crate::store::{
    Durability, Files, FramePosition, LogSnapshot, PendingSync, SegmentLog, SegmentLogConfig,
};
use tapio_core::event::EventId;
use tapio_core::ring::MAX_ACCOUNTS;
use tapio_wire::EncodedBatch;

/// The tail of the log that is kept for the ids in it.
const TAIL_BYTES: u64 = 64 * 1024 * 1024;
const TAIL_SEGMENTS: usize = 64;

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

/// Events of earlier processes that the server hasn't answered.
pub(super) struct Recovered {
    /// Those that wait in the spool.
    pub(super) waiting: Accounts,
    /// Those that waited in it at the last checkpoint, and are gone.
    pub(super) lost: Accounts,
}

/// The batches on disk.
pub(super) struct Spool {
    log: SegmentLog<SpoolIndex>,
    own_epoch: u64,
    recovered: u8,
    /// The first batch that isn't in memory; `None`: all that are released are.
    backlog: Option<FramePosition>,
    /// Events in the backlog's first segment that are before it.
    loaded: Accounts,
    /// The segment of the batch that was released last, and the events released from it.
    released: (u64, Accounts),
    /// The contents of its file.
    checkpoint: Checkpoint,
    checkpoint_file: CheckpointFile,
    /// Whether a batch was appended since the segment that is appended to was given up.
    has_appended: bool,
}

impl Spool {
    /// Opens or creates the spool. Returns it with the events of earlier processes.
    ///
    /// # Errors
    /// With the folder, when it can't be used.
    pub(super) fn open(config: LaneSpool, files: Arc<dyn Files>) -> io::Result<(Self, Recovered)> {
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
        let index = SpoolIndex::new(epoch, recovered);
        let mut log = SegmentLog::open(log_config, Arc::clone(&files), index)?;
        let (checkpoint_file, checkpoint) = CheckpointFile::open(files, &dir);
        let mut acked = checkpoint.acked;
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
            own_epoch: epoch,
            recovered,
            backlog: first.map(|segment| acked.max(FramePosition { segment, offset: 0 })),
            loaded: [0; MAX_ACCOUNTS],
            released: (0, [0; MAX_ACCOUNTS]),
            checkpoint: Checkpoint { acked, ..Checkpoint::default() },
            checkpoint_file,
            has_appended: false,
        };
        let recovered = spool.count_recovered(&checkpoint)?;
        let lost = total_of(&recovered.lost);
        if lost > 0 {
            tracing::error!(
                events = lost, spool = %dir.display(),
                "spool: events are gone: segments were deleted or damaged while no agent ran"
            );
        }
        Ok((spool, recovered))
    }

    /// Adds the ids of the latest events ([`spool_ids::add_latest`]) in the tail of the log.
    pub(super) fn add_latest_ids(
        &self,
        ids: &mut HashSet<EventId, ahash::RandomState>,
        max_ids: usize,
    ) {
        let tail = self.log.tail_start(TAIL_BYTES, TAIL_SEGMENTS);
        spool_ids::add_latest(&self.log.snapshot(), tail, ids, max_ids);
    }

    /// The segment of the first batch to be sent, and the events in it that are answered. To be
    /// called before the first one is read.
    pub(super) fn answered(&self) -> (u64, u64) {
        self.backlog.map_or((0, 0), |first| (first.segment, total_of(&self.loaded)))
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
                self.log.index_mut().remove(position.segment, &lost);
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
        let (log, end) = (self.log.snapshot(), self.log.end());
        let index = self.log.index_mut();
        let mut finish = |segment: u64, loaded: &Accounts| {
            let mut missing = index.segments.get(&segment).copied().unwrap_or([0; MAX_ACCOUNTS]);
            subtract(&mut missing, loaded);
            index.remove(segment, &missing);
            add(&mut lost, &missing);
        };
        let read = log.oldest_first(from, |frame| {
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
            for segment in at.segment..=end.segment {
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

    /// Where the log ends.
    pub(super) fn end(&self) -> FramePosition {
        self.log.end()
    }

    /// The batches.
    pub(super) fn snapshot(&self) -> LogSnapshot {
        self.log.snapshot()
    }

    /// The events of each segment.
    pub(super) fn segment_events(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.log.index().segments.iter().map(|(segment, events)| (*segment, total_of(events)))
    }

    /// The events of each segment that was removed and isn't accounted for yet.
    pub(super) fn removed_events(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.log.index().removed.iter().map(|(segment, events)| (*segment, total_of(events)))
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Drops the oldest full segment, except for those up to `attempted`, for those with batches
    /// that were sent, which may be stored or not, and for those with batches that aren't released.
    /// Returns whether there was one.
    pub(super) fn drop_oldest(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        attempted: u64,
    ) -> bool {
        let after = queue.attempted_segment().unwrap_or(0).max(attempted);
        let before = unreleased.map_or(u64::MAX, |first| first.segment);
        let Some(oldest) = self.log.full_segment(after + 1..before) else { return false };
        // First, or the next process would count its events again.
        let _ = self.note(queue, unreleased, Some(oldest), true);
        self.log.retire(oldest)
    }

    /// Drops the oldest full segment of which the server has answered everything, and that is
    /// before `kept`. Returns whether there was one.
    pub(super) fn drop_answered(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        kept: Option<FramePosition>,
    ) -> bool {
        let end = self.removable(queue, unreleased, kept);
        let Some(oldest) = self.log.full_segment(..end.segment) else { return false };
        let _ = self.note(queue, unreleased, None, true);
        self.log.retire(oldest)
    }

    /// Ends the segment that is appended to, if the server has answered everything and nothing is
    /// from `kept` on. Returns whether it did.
    pub(super) fn seal_answered(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        kept: Option<FramePosition>,
    ) -> bool {
        // A segment without a batch has nothing to give up.
        let is_removable = self.removable(queue, unreleased, kept) == self.log.end();
        if !is_removable || !std::mem::take(&mut self.has_appended) {
            return false;
        }
        self.log.seal();
        true
    }

    /// The first batch that the server hasn't answered, or `kept` if that is before.
    fn removable(
        &self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        kept: Option<FramePosition>,
    ) -> FramePosition {
        let acked = self.acked(queue, unreleased);
        kept.map_or(acked, |kept| kept.min(acked))
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

    /// Removes what the server has answered, up to `kept`, and notes what waits. `unreleased`: the
    /// first batch that isn't released. The tail of the log stays, for [`Spool::add_latest_ids`].
    ///
    /// # Errors
    /// When the position can't be noted; the next process then sends some batches a second time.
    pub(super) fn trim(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        kept: Option<FramePosition>,
    ) -> io::Result<()> {
        let has_moved = self.acked(queue, unreleased) != self.checkpoint.acked;
        let tail = self.log.tail_start(TAIL_BYTES, TAIL_SEGMENTS);
        let end = self.removable(queue, unreleased, kept).segment.min(tail);
        let removes = self.log.full_segment(..end).is_some();
        let noted = self.note(queue, unreleased, None, removes);
        if !has_moved && !removes {
            // What is noted is less than what waits: no loss is counted that isn't one.
            return Ok(());
        }
        if noted.is_ok() {
            self.log.trim(end);
            self.log.index_mut().removed.clear();
        }
        noted
    }

    /// The position of the first batch that the server hasn't answered.
    pub(super) fn acked(
        &self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
    ) -> FramePosition {
        let first = queue.first_position().or(self.backlog).or(unreleased);
        first.unwrap_or_else(|| self.log.end())
    }

    /// Writes the checkpoint, if it has changed or has to be synced. `removed`: a segment that is
    /// about to be removed. `is_synced`: it has to survive a loss of power, since some segment is.
    fn note(
        &mut self,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
        removed: Option<u64>,
        is_synced: bool,
    ) -> io::Result<()> {
        let acked = self.acked(queue, unreleased);
        let mut waiting = self.waiting(acked, queue, unreleased);
        waiting.retain(|segment, _| Some(*segment) != removed);
        let end = unreleased.unwrap_or_else(|| self.log.end());
        let checkpoint = Checkpoint { acked, end, waiting };
        if checkpoint != self.checkpoint || is_synced {
            self.checkpoint_file.write(&checkpoint, is_synced)?;
            self.checkpoint = checkpoint;
        }
        Ok(())
    }

    /// The events of each segment from `acked` on that wait for the server.
    fn waiting(
        &self,
        acked: FramePosition,
        queue: &SendQueue,
        unreleased: Option<FramePosition>,
    ) -> BTreeMap<u64, u64> {
        let events = |(segment, accounts): (&u64, &Accounts)| {
            // A loss of power may take what isn't released, which nobody was promised.
            let all = match unreleased.filter(|first| first.segment <= *segment) {
                None => total_of(accounts),
                Some(_) if self.released.0 == *segment => total_of(&self.released.1),
                Some(_) => 0,
            };
            (*segment, all.saturating_sub(queue.answered_events(*segment)))
        };
        let segments = self.log.index().segments.range(acked.segment..).map(events);
        segments.filter(|(_, events)| *events > 0).collect()
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

fn some_events(accounts: Accounts) -> Option<Accounts> {
    accounts.iter().any(|n| *n > 0).then_some(accounts)
}
