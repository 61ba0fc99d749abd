//! Batches in memory that wait to be sent or acknowledged.

use std::collections::VecDeque;

use super::account::EventAccount;
use super::batch::QueuedBatch;
use crate::store::FramePosition;
use tapio_core::event::Reason;
use tapio_wire::proto::Ack;

/// Effect of an ack.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) batches: u64,
    pub(super) events: u64,
    pub(super) stories: u64,
    /// The events of each refused batch, and the server's cause.
    pub(super) refused: Vec<(u32, String)>,
}

/// Batches in the order in which they are sent: first those sent, then those to send. Batches of
/// earlier processes, from the spool, come before those of this one.
pub(super) struct SendQueue {
    batches: VecDeque<QueuedBatch>,
    sent: usize,
    bytes: usize,
    node: String,
    /// The epoch and the end of the last batch: what lies between it and the next one was dropped.
    end: Option<(u64, u64)>,
}

impl SendQueue {
    pub(super) fn new(node: String) -> Self {
        Self { batches: VecDeque::new(), sent: 0, bytes: 0, node, end: None }
    }

    pub(super) fn push(&mut self, batch: QueuedBatch) {
        let gap =
            self.end.filter(|(epoch, end)| *epoch == batch.epoch && *end < batch.first_sequence);
        if let Some((_, dropped_from)) = gap {
            self.push_back(batch.gap_before(dropped_from, &self.node));
        }
        self.end = Some((batch.epoch, batch.end_sequence()));
        self.push_back(batch);
    }

    fn push_back(&mut self, batch: QueuedBatch) {
        self.bytes += batch.len_bytes();
        self.batches.push_back(batch);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.sent
    }

    /// The place in the spool of the first batch; `None` if there is no batch.
    pub(super) fn first_position(&self) -> Option<FramePosition> {
        self.batches.front().and_then(|batch| batch.position)
    }

    /// The next batch to send.
    pub(super) fn unsent(&self) -> Option<&QueuedBatch> {
        self.batches.get(self.sent)
    }

    pub(super) fn mark_sent(&mut self) {
        self.sent = (self.sent + 1).min(self.batches.len());
    }

    /// Marks all batches as unsent after a lost connection. Returns how many were sent.
    pub(super) fn rewind(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Removes the batches that an ack covers.
    pub(super) fn acknowledge(&mut self, ack: &Ack, account: &EventAccount) -> Acknowledged {
        let mut done = Acknowledged::default();
        // An ack can only cover batches that were sent, whatever the server claims.
        let sent = self.batches.iter_mut().take(self.sent).filter(|b| !b.is_answered);
        for batch in sent.filter(|batch| batch.epoch == ack.epoch) {
            let is_refused = |r: &&tapio_wire::proto::Refusal| {
                (r.first_sequence, r.count) == (batch.first_sequence, batch.items)
            };
            if let Some(refusal) = ack.refused.iter().find(is_refused) {
                account.drop_events(&batch.accounts, Reason::ServerRefused);
                done.refused.push((batch.events, refusal.cause.clone()));
            } else if batch.end_sequence() <= ack.through {
                account.forward(&batch.accounts);
                done.batches += 1;
                done.events += u64::from(batch.events);
                done.stories += u64::from(batch.stories);
            } else {
                continue;
            }
            batch.is_answered = true;
        }
        while self.batches.front().is_some_and(|batch| batch.is_answered)
            && let Some(batch) = self.batches.pop_front()
        {
            self.sent -= 1;
            self.bytes -= batch.len_bytes();
        }
        done
    }

    /// Drops all batches. Returns the number of events.
    pub(super) fn abandon(&mut self, account: &EventAccount) -> u64 {
        self.sent = 0;
        self.bytes = 0;
        let unanswered = self.batches.drain(..).filter(|batch| !batch.is_answered);
        unanswered
            .map(|batch| {
                account.drop_events(&batch.accounts, Reason::Shutdown);
                u64::from(batch.events)
            })
            .sum()
    }
}
