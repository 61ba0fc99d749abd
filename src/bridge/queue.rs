//! Batches that wait to be sent or acknowledged, and the accounts of their events.

use std::collections::VecDeque;
use std::sync::Arc;

use tapio_core::event::Reason;
use tapio_core::ring::{MAX_COLLECTORS, StageLedger};
use tapio_wire::EncodedBatch;
use tapio_wire::proto::Ack;

/// Enters the events of batches, counted by collector, into the ledger of the bridge.
pub(super) struct EventAccount(Arc<StageLedger>);

impl EventAccount {
    pub(super) fn new(ledger: Arc<StageLedger>) -> Self {
        Self(ledger)
    }

    /// Counts events received from the rings; they are held.
    pub(super) fn receive(&self, events: &[u32; MAX_COLLECTORS]) {
        for (collector, n) in nonzero(events) {
            self.0.add_received(collector, n);
            self.0.add_held(collector, n);
        }
    }

    /// Counts held events that the server has stored.
    pub(super) fn forward(&self, events: &[u32; MAX_COLLECTORS]) {
        for (collector, n) in nonzero(events) {
            self.0.add_forwarded(collector, n);
            self.0.remove_held(collector, n);
        }
    }

    /// Counts held events that are dropped.
    pub(super) fn drop_events(&self, events: &[u32; MAX_COLLECTORS], reason: Reason) {
        for (collector, n) in nonzero(events) {
            self.0.add_dropped(collector, reason, n);
            self.0.remove_held(collector, n);
        }
    }
}

fn nonzero(events: &[u32; MAX_COLLECTORS]) -> impl Iterator<Item = (u8, u64)> + '_ {
    (0u8..).zip(events).filter(|(_, n)| **n > 0).map(|(collector, n)| (collector, u64::from(*n)))
}

/// Effect of an ack.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) batches: u64,
    pub(super) events: u64,
    pub(super) stories: u64,
    /// The events of each refused batch, and the server's cause.
    pub(super) refused: Vec<(u32, String)>,
}

/// Batches in the order of their sequence numbers: first those sent, then those to send.
#[derive(Default)]
pub(super) struct SendQueue {
    batches: VecDeque<EncodedBatch>,
    sent: usize,
    bytes: usize,
}

impl SendQueue {
    pub(super) fn push(&mut self, batch: EncodedBatch) {
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

    /// The next batch to send.
    pub(super) fn unsent(&self) -> Option<&EncodedBatch> {
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
        for refusal in &ack.refused {
            let is_refused = |b: &EncodedBatch| {
                (b.first_sequence, b.items) == (refusal.first_sequence, refusal.count)
            };
            if let Some(at) = self.batches.iter().take(self.sent).position(is_refused) {
                self.sent -= 1;
                if let Some(batch) = self.batches.remove(at) {
                    self.bytes -= batch.len_bytes();
                    account.drop_events(&batch.collectors, Reason::ServerRefused);
                    done.refused.push((batch.events, refusal.cause.clone()));
                }
            }
        }
        // An ack can only cover batches that were sent, whatever the server claims.
        while self.sent > 0
            && self.batches.front().is_some_and(|b| b.end_sequence() <= ack.through)
            && let Some(batch) = self.batches.pop_front()
        {
            self.sent -= 1;
            self.bytes -= batch.len_bytes();
            account.forward(&batch.collectors);
            done.batches += 1;
            done.events += u64::from(batch.events);
            done.stories += u64::from(batch.stories);
        }
        done
    }

    /// Drops all batches. Returns the number of events.
    pub(super) fn abandon(&mut self, account: &EventAccount) -> u64 {
        self.sent = 0;
        self.bytes = 0;
        self.batches
            .drain(..)
            .map(|batch| {
                account.drop_events(&batch.collectors, Reason::Shutdown);
                u64::from(batch.events)
            })
            .sum()
    }
}
