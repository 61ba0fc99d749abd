//! Where finished batches go: into the spool, if there is one, and into the queue to the server.

use std::collections::VecDeque;
use std::io;

use super::account::EventAccount;
use super::batch::QueuedBatch;
use super::queue::SendQueue;
use super::spool::Spool;
use tapio_core::clock;
use tapio_core::event::Reason;
use tapio_wire::EncodedBatch;

/// The spool, the queue, and the accounts of the events in them.
pub(super) struct Outbox {
    pub(super) queue: SendQueue,
    pub(super) account: EventAccount,
    /// Bytes of batches kept in memory.
    queue_bytes: usize,
    epoch: u64,
    spool: Option<Spool>,
    /// Batches that the disk has refused; nothing more is read from the rings meanwhile.
    refused: VecDeque<EncodedBatch>,
    is_failing: bool,
}

impl Outbox {
    pub(super) fn new(
        account: EventAccount,
        queue_bytes: usize,
        node: &str,
        epoch: u64,
        spool: Option<Spool>,
    ) -> Self {
        let queue = SendQueue::new(node.to_owned());
        let refused = VecDeque::new();
        Self { queue, account, queue_bytes, epoch, spool, refused, is_failing: false }
    }

    pub(super) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Bytes in the spool.
    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Whether the disk refuses batches.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Whether there is room for another batch.
    pub(super) fn has_room(&self) -> bool {
        match self.spool {
            Some(_) => self.refused.is_empty(),
            None => self.queue.bytes() < self.queue_bytes,
        }
    }

    /// Whether the server has answered every batch.
    pub(super) fn is_empty(&self) -> bool {
        let has_backlog = self.spool.as_ref().is_some_and(Spool::has_backlog);
        self.queue.is_empty() && self.refused.is_empty() && !has_backlog
    }

    /// Takes a batch; its events are held from then on. Until then they count as in the rings.
    pub(super) fn push(&mut self, batch: EncodedBatch) {
        self.account.receive(&batch.accounts);
        if self.spool.is_none() {
            self.queue.push(QueuedBatch::encoded(&batch, self.epoch, None));
            return;
        }
        self.refused.push_back(batch);
        self.append();
    }

    /// Appends the batches to the spool that aren't in it yet.
    pub(super) fn append(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        while let Some(batch) = self.refused.front() {
            let now_ns = clock::wall_ns();
            match spool.append(batch, &mut self.queue, self.queue_bytes, now_ns) {
                Ok(dropped) => {
                    self.account.settle(&batch.accounts);
                    if let Some(dropped) = dropped {
                        self.account.drop_events(&dropped, Reason::SpoolFull);
                    }
                    self.refused.pop_front();
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("spool: batches are written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(
                            %error,
                            "spool: can't write a batch; sources are paused, kernel events are lost"
                        );
                    }
                    return;
                }
            }
        }
    }

    /// Reads batches from the spool into the queue once half of it is free.
    pub(super) fn refill(&mut self) {
        let Some(spool) = self.spool.as_mut().filter(|spool| spool.has_backlog()) else { return };
        if self.queue.bytes() > self.queue_bytes / 2 {
            return;
        }
        match spool.refill(&mut self.queue, self.queue_bytes) {
            None => {}
            Some(lost) => self.account.drop_events(&lost, Reason::SpoolLost),
        }
    }

    /// Removes what the server has answered from the spool, and notices what somebody deleted
    /// there.
    pub(super) fn maintain(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let trimmed = spool.trim(&self.queue);
        match trimmed.and_then(|()| spool.check()) {
            Ok(None) => {}
            Ok(Some(lost)) => self.account.drop_events(&lost, Reason::SpoolLost),
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "spool: can't be maintained");
                }
            }
        }
    }

    /// Ends the outbox. Batches in the spool stay for the next process; others are dropped. Returns
    /// the number of events dropped.
    pub(super) fn close(&mut self) -> io::Result<u64> {
        let mut dropped = 0;
        for batch in self.refused.drain(..) {
            self.account.drop_unspooled(&batch.accounts, Reason::Shutdown);
            dropped += u64::from(batch.events);
        }
        match &mut self.spool {
            Some(spool) => {
                spool.trim(&self.queue)?;
                spool.close();
            }
            None => dropped += self.queue.abandon(&self.account),
        }
        Ok(dropped)
    }
}
