//! A lane to the server. Errors and stories have one of their own, so that a flood of other events
//! neither delays them nor takes their place in the spool.

use std::collections::VecDeque;
use std::io;

use super::account::EventAccount;
use super::batch::{Accounts, QueuedBatch};
use super::feed::LaneView;
use super::queue::SendQueue;
use super::spool::Spool;
use super::spool_age::AppendTime;
use crate::store::{FramePosition, PendingSync};
use tapio_wire::EncodedBatch;

/// Batches of a lane on their way: to the spool, in it, and in the queue to the server.
pub(super) struct Lane {
    pub(super) queue: SendQueue,
    pub(super) spool: Option<Spool>,
    epoch: u64,
    /// Bytes of batches kept in memory.
    queue_bytes: usize,
    /// Batches that aren't in the spool yet, oldest first: the disk has refused the first one.
    unspooled: VecDeque<EncodedBatch>,
    /// Batches in the spool that aren't synced yet, oldest first.
    unsynced: VecDeque<(FramePosition, EncodedBatch)>,
    append_time: AppendTime,
}

impl Lane {
    pub(super) fn new(node: &str, epoch: u64, queue_bytes: usize, spool: Option<Spool>) -> Self {
        Self {
            queue: SendQueue::new(node.to_owned(), spool.as_ref().map_or((0, 0), Spool::answered)),
            spool,
            epoch,
            queue_bytes,
            unspooled: VecDeque::new(),
            unsynced: VecDeque::new(),
            append_time: AppendTime::default(),
        }
    }

    /// Whether batches wait on disk only.
    pub(super) fn has_backlog(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::has_backlog)
    }

    /// Whether the server has answered every batch.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.unspooled.is_empty()
            && self.unsynced.is_empty()
            && !self.has_backlog()
    }

    /// Whether every batch is in the spool, where it survives what it is to survive.
    pub(super) fn is_spooled(&self) -> bool {
        self.unspooled.is_empty() && self.unsynced.is_empty()
    }

    /// Bytes in the spool.
    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Drops the oldest segment of the spool after `attempted` ([`Spool::drop_oldest`]).
    pub(super) fn drop_oldest(&mut self, attempted: u64) -> bool {
        let unreleased = self.unreleased();
        self.spool
            .as_mut()
            .is_some_and(|spool| spool.drop_oldest(&self.queue, unreleased, attempted))
    }

    /// Drops the oldest full segment of the spool that is answered, and before `kept`
    /// ([`Spool::drop_answered`]).
    pub(super) fn drop_answered(&mut self, kept: Option<FramePosition>) -> bool {
        let unreleased = self.unreleased();
        self.spool.as_mut().is_some_and(|spool| spool.drop_answered(&self.queue, unreleased, kept))
    }

    /// Ends the segment that is appended to, if everything is answered and before `kept`.
    pub(super) fn seal_answered(&mut self, kept: Option<FramePosition>) -> bool {
        let unreleased = self.unreleased();
        self.spool.as_mut().is_some_and(|spool| spool.seal_answered(&self.queue, unreleased, kept))
    }

    /// The first batch that the server hasn't answered.
    pub(super) fn acked(&self) -> FramePosition {
        let acked = |spool: &Spool| spool.acked(&self.queue, self.unreleased());
        self.spool.as_ref().map_or(FramePosition::default(), acked)
    }

    /// When the first batch that the server hasn't answered was appended; `None`: there is none.
    pub(super) fn oldest_ns(&mut self) -> Option<u64> {
        let (acked, spool) = (self.acked(), self.spool.as_ref()?);
        let has_batch = acked < spool.end();
        has_batch.then(|| self.append_time.of(acked, &spool.snapshot())).flatten()
    }

    /// The events in the segment of [`Lane::acked`] before it, when the lane was opened.
    pub(super) fn answered_events(&self) -> u64 {
        self.spool.as_ref().map_or(0, |spool| spool.answered().1)
    }

    /// Where the released batches end.
    pub(super) fn end(&self) -> FramePosition {
        let end = |spool: &Spool| self.unreleased().unwrap_or_else(|| spool.end());
        self.spool.as_ref().map_or(FramePosition::default(), end)
    }

    /// The released batches; `None` without a spool.
    pub(super) fn view(&self) -> Option<LaneView> {
        Some(LaneView { log: self.spool.as_ref()?.snapshot(), end: self.end() })
    }

    /// The events of each segment.
    pub(super) fn segment_events(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spool.iter().flat_map(Spool::segment_events)
    }

    /// The events of each segment that was removed and isn't accounted for yet.
    pub(super) fn removed_events(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spool.iter().flat_map(Spool::removed_events)
    }

    /// Whether the disk keeps up with the batches.
    pub(super) fn has_room(&self) -> bool {
        let unsynced: usize = self.unsynced.iter().map(|(_, batch)| batch.len_bytes()).sum();
        self.unspooled.is_empty() && unsynced < self.queue_bytes
    }

    /// Takes a batch: to be appended to the spool, or to be sent.
    pub(super) fn push(&mut self, batch: EncodedBatch) {
        match self.spool {
            Some(_) => self.unspooled.push_back(batch),
            None => self.queue.push(QueuedBatch::encoded(&batch, self.epoch, None)),
        }
    }

    /// The next batch to append.
    pub(super) fn next_unspooled(&self) -> Option<&EncodedBatch> {
        self.unspooled.front()
    }

    /// Appends the next batch to the spool.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub(super) fn append(&mut self, receipt_ns: u64) -> io::Result<()> {
        let (Some(spool), Some(batch)) = (&mut self.spool, self.unspooled.front()) else {
            return Ok(());
        };
        let position = spool.append(batch, receipt_ns)?;
        self.unsynced.extend(self.unspooled.pop_front().map(|batch| (position, batch)));
        Ok(())
    }

    /// Releases the batches before a position: their events are accepted, and they are sent.
    /// Returns the events of batches before them that turned out to be lost.
    pub(super) fn release(
        &mut self,
        through: Option<FramePosition>,
        account: &EventAccount,
    ) -> Vec<Accounts> {
        let mut lost = Vec::new();
        let Some(spool) = &mut self.spool else { return lost };
        while let Some((position, batch)) = self.unsynced.front()
            && through.is_none_or(|through| *position < through)
        {
            account.settle(&batch.accounts);
            lost.extend(spool.release(batch, *position, &mut self.queue, self.queue_bytes));
            self.unsynced.pop_front();
        }
        lost
    }

    /// Takes the result of a sync; after an error, what wasn't synced is appended again.
    ///
    /// # Errors
    /// The error of the disk.
    pub(super) fn finish_sync(
        &mut self,
        sync: &PendingSync,
        result: io::Result<()>,
    ) -> io::Result<()> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        spool.finish_sync(sync, result).inspect_err(|_| {
            for (_, batch) in self.unsynced.drain(..).rev() {
                self.unspooled.push_front(batch);
            }
        })
    }

    /// The first batch in the spool that isn't released.
    fn unreleased(&self) -> Option<FramePosition> {
        self.unsynced.front().map(|(position, _)| *position)
    }

    /// Reads batches from the spool into the queue once half of it is free. Returns the events that
    /// turned out to be lost.
    pub(super) fn refill(&mut self) -> Option<Accounts> {
        let unreleased = self.unreleased();
        let spool = self.spool.as_mut().filter(|spool| spool.has_backlog())?;
        if self.queue.bytes() > self.queue_bytes / 2 {
            return None;
        }
        spool.refill(&mut self.queue, self.queue_bytes, unreleased)
    }

    /// Removes what the server has answered from the spool, up to `kept`, and notices what somebody
    /// deleted there. Returns the events that are lost.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub(super) fn maintain(&mut self, kept: Option<FramePosition>) -> io::Result<Option<Accounts>> {
        let unreleased = self.unreleased();
        let Some(spool) = &mut self.spool else { return Ok(None) };
        // First, since the position can't be noted in a folder that is gone.
        let lost = spool.check()?;
        spool.trim(&self.queue, unreleased, kept)?;
        Ok(lost)
    }

    /// Ends the lane. `kept`: as for [`Lane::maintain`]. Batches in the spool stay for the next
    /// process. Returns the batches that aren't in it.
    ///
    /// # Errors
    /// When the spool's position can't be noted.
    pub(super) fn close(
        &mut self,
        kept: Option<FramePosition>,
    ) -> (Vec<EncodedBatch>, io::Result<()>) {
        let unreleased = self.unreleased();
        let closed = self.spool.as_mut().map_or(Ok(()), |spool| {
            let trimmed = spool.trim(&self.queue, unreleased, kept);
            spool.close();
            trimmed
        });
        (self.unspooled.drain(..).collect(), closed)
    }
}
