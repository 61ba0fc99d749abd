//! Batches of a lane in memory that wait to be sent or acknowledged.

use std::collections::VecDeque;

use super::account::EventAccount;
use super::batch::{Accounts, QueuedBatch, add};
use super::split::split;
use crate::store::FramePosition;
use tapio_core::event::Reason;
use tapio_core::ring::MAX_ACCOUNTS;
use tapio_wire::proto::{Ack, Refusal};

/// Longest cause of a refusal that is kept: each refused item is quarantined with it.
const MAX_CAUSE_CHARS: usize = 512;

/// Effect of an ack.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Batches that are stored.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Story revisions in them.
    pub stories: u64,
    /// Whether the server has refused a batch.
    pub has_refused: bool,
}

impl Acknowledged {
    /// Adds the effect on another queue.
    pub(super) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.events += other.events;
        self.stories += other.stories;
        self.has_refused |= other.has_refused;
    }
}

/// Batches in the order in which they are sent: first those sent, then those to send. Batches of
/// earlier processes, from the spool, come before those of this one.
pub(super) struct SendQueue {
    batches: VecDeque<QueuedBatch>,
    /// Batches that were sent on this stream.
    sent: usize,
    /// Batches that were sent on some stream: the server may have them.
    attempted: usize,
    bytes: usize,
    /// Bytes of the batches that are sent and not answered.
    in_flight_bytes: usize,
    node: String,
    /// The epoch and the end of the last batch: what lies between it and the next one was dropped.
    end: Option<(u64, u64)>,
    /// The segment of the batch that was removed last, and the events removed from that segment.
    removed: (u64, u64),
}

impl SendQueue {
    /// `answered`: a segment of which an earlier process has removed this many events.
    pub(super) fn new(node: String, answered: (u64, u64)) -> Self {
        Self {
            batches: VecDeque::new(),
            sent: 0,
            attempted: 0,
            bytes: 0,
            in_flight_bytes: 0,
            node,
            end: None,
            removed: answered,
        }
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

    /// Batches that are sent and not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.sent
    }

    /// Bytes of these batches.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// The place in the spool of the first batch; `None` if there is no batch.
    pub(super) fn first_position(&self) -> Option<FramePosition> {
        self.batches.front().and_then(|batch| batch.position)
    }

    /// The next batch to send.
    pub(super) fn unsent(&self) -> Option<&QueuedBatch> {
        self.batches.range(self.sent..).find(|batch| !batch.is_answered)
    }

    /// Notes that [`SendQueue::unsent`] was sent.
    pub(super) fn mark_sent(&mut self) {
        while let Some(batch) = self.batches.get(self.sent) {
            self.sent += 1;
            self.attempted = self.attempted.max(self.sent);
            if !batch.is_answered {
                self.in_flight_bytes += batch.len_bytes();
                break;
            }
        }
    }

    /// Marks all batches as unsent after a lost connection. Returns how many were sent.
    pub(super) fn rewind(&mut self) -> usize {
        self.in_flight_bytes = 0;
        std::mem::take(&mut self.sent)
    }

    /// Takes an ack: removes the stored batches, and marks the refused ones.
    pub(super) fn acknowledge(&mut self, ack: &Ack, account: &EventAccount) -> Acknowledged {
        let mut done = Acknowledged::default();
        // An ack can only cover batches that were sent, whatever the server claims.
        let sent = self.batches.iter_mut().take(self.sent);
        for batch in sent.filter(|batch| !batch.is_answered && batch.epoch == ack.epoch) {
            let is_refused =
                |r: &&Refusal| (r.first_sequence, r.count) == (batch.first_sequence, batch.items);
            if let Some(refusal) = ack.refused.iter().find(is_refused) {
                batch.refusal = Some(refusal.cause.chars().take(MAX_CAUSE_CHARS).collect());
                done.has_refused = true;
            } else if batch.end_sequence() <= ack.through && batch.refusal.is_none() {
                account.forward(&batch.accounts);
                done.batches += 1;
                done.events += u64::from(batch.events);
                done.stories += u64::from(batch.stories);
                batch.is_answered = true;
                self.in_flight_bytes -= batch.len_bytes();
            }
        }
        self.remove_answered();
        done
    }

    /// Takes everything before a position as answered.
    pub(super) fn answer_before(
        &mut self,
        end: FramePosition,
        account: &EventAccount,
    ) -> Acknowledged {
        let mut done = Acknowledged::default();
        let is_before = |batch: &&mut QueuedBatch| batch.position.is_some_and(|at| at < end);
        for batch in self.batches.iter_mut().take_while(is_before).filter(|b| !b.is_answered) {
            account.forward(&batch.accounts);
            batch.is_answered = true;
            done.batches += 1;
            done.events += u64::from(batch.events);
            done.stories += u64::from(batch.stories);
        }
        self.remove_answered();
        done
    }

    fn remove_answered(&mut self) {
        while self.batches.front().is_some_and(|batch| batch.is_answered)
            && let Some(batch) = self.batches.pop_front()
        {
            self.sent = self.sent.saturating_sub(1);
            self.attempted = self.attempted.saturating_sub(1);
            self.bytes -= batch.len_bytes();
            if let Some(segment) = batch.segment() {
                if self.removed.0 != segment {
                    self.removed = (segment, 0);
                }
                self.removed.1 += u64::from(batch.events);
            }
        }
    }

    /// Events of a segment whose batches the server has answered, up to the first one that it
    /// hasn't.
    pub(super) fn answered_events(&self, segment: u64) -> u64 {
        if self.removed.0 == segment { self.removed.1 } else { 0 }
    }

    /// Counts the server's objection to the oldest batch, for which it has ended the stream.
    /// Returns how often it has.
    pub(super) fn object(&mut self) -> u32 {
        let oldest = self.batches.iter_mut().find(|batch| !batch.is_answered);
        oldest.map_or(0, |batch| {
            batch.objections += 1;
            batch.objections
        })
    }

    /// Marks the oldest batch as refused.
    pub(super) fn refuse_oldest(&mut self, cause: &str) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| !batch.is_answered) {
            batch.refusal = Some(cause.chars().take(MAX_CAUSE_CHARS).collect());
        }
    }

    /// The oldest batch that the server refuses.
    pub(super) fn next_refused(&self) -> Option<&QueuedBatch> {
        self.refused_at().and_then(|at| self.batches.get(at))
    }

    fn refused_at(&self) -> Option<usize> {
        self.batches.iter().position(|batch| batch.refusal.is_some())
    }

    /// Replaces the oldest refused batch by smaller ones. Everything is to be sent again then, on a
    /// new stream: on this one, the server has answered their items. Returns whether it could be
    /// divided.
    pub(super) fn split_refused(&mut self) -> bool {
        let Some(at) = self.refused_at() else { return false };
        let Some(pieces) = self.batches.get(at).and_then(split) else { return false };
        if let Some(whole) = self.batches.remove(at) {
            self.bytes -= whole.len_bytes();
        }
        self.rewind();
        self.attempted = self.attempted.saturating_sub(1);
        for piece in pieces.into_iter().rev() {
            self.bytes += piece.len_bytes();
            self.attempted += 1;
            self.batches.insert(at, piece);
        }
        true
    }

    /// Drops the oldest refused batch. Returns the number of its events.
    pub(super) fn drop_refused(&mut self, account: &EventAccount) -> u32 {
        let Some(batch) = self.refused_at().and_then(|at| self.batches.get_mut(at)) else {
            return 0;
        };
        account.drop_events(&batch.accounts, Reason::ServerRefused);
        batch.refusal = None;
        batch.is_answered = true;
        let (events, bytes) = (batch.events, batch.len_bytes());
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.remove_answered();
        events
    }

    /// The segment of the last batch that was sent, on whatever stream, and isn't answered.
    pub(super) fn attempted_segment(&self) -> Option<u64> {
        self.batches.range(..self.attempted).next_back().and_then(QueuedBatch::segment)
    }

    /// Drops the batches of a segment that is no longer in the spool, except for those that were
    /// sent: after a kill they would be lost without being counted. Returns their events.
    pub(super) fn drop_segment(&mut self, segment: u64) -> Accounts {
        let mut dropped = [0; MAX_ACCOUNTS];
        let is_dropped = |batch: &QueuedBatch| batch.segment() == Some(segment);
        let mut unsent = self.batches.range(self.attempted..);
        let Some(first) = unsent.find(|batch| is_dropped(batch)) else { return dropped };
        let before = self.batches.range(..self.attempted).next_back();
        self.end = Some(before.map_or((first.epoch, first.first_sequence), |batch| {
            (batch.epoch, batch.end_sequence())
        }));
        for batch in self.batches.split_off(self.attempted) {
            self.bytes -= batch.len_bytes();
            if !is_dropped(&batch) {
                // Says what was dropped before it.
                self.push(batch);
            } else if !batch.is_answered {
                add(&mut dropped, &batch.accounts);
            }
        }
        dropped
    }

    /// Drops all batches. Returns the number of events.
    pub(super) fn abandon(&mut self, account: &EventAccount) -> u64 {
        self.rewind();
        self.attempted = 0;
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
