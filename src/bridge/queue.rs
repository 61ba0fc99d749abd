//! Batches that wait to be sent or acknowledged, and what the ledger says of their events.

use std::collections::VecDeque;
use std::sync::Arc;

use tapio_core::event::Reason;
use tapio_core::ring::{MAX_COLLECTORS, StageLedger};
use tapio_wire::EncodedBatch;
use tapio_wire::proto::Ack;

/// The bridge's account of events by collector.
pub(super) struct Account {
    ledger: Arc<StageLedger>,
    held: [u64; MAX_COLLECTORS],
}

impl Account {
    pub(super) fn new(ledger: Arc<StageLedger>) -> Self {
        Self { ledger, held: [0; MAX_COLLECTORS] }
    }

    /// Events were taken out of the rings.
    pub(super) fn take(&mut self, taken: &[u32; MAX_COLLECTORS]) {
        for (collector, &n) in taken.iter().enumerate().filter(|(_, n)| **n > 0) {
            self.held[collector] += u64::from(n);
            self.ledger.take(collector as u8, u64::from(n));
            self.ledger.hold(collector as u8, self.held[collector]);
        }
    }

    /// Events left: stored by the server, or lost for a reason.
    pub(super) fn settle(&mut self, left: &[u32; MAX_COLLECTORS], lost: Option<Reason>) {
        for (collector, &n) in left.iter().enumerate().filter(|(_, n)| **n > 0) {
            self.held[collector] -= u64::from(n);
            let number = collector as u8;
            match lost {
                None => self.ledger.pass(number, u64::from(n)),
                Some(reason) => self.ledger.lose(number, reason, u64::from(n)),
            }
            self.ledger.hold(number, self.held[collector]);
        }
    }
}

/// What an ack did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) batches: u64,
    pub(super) events: u64,
    pub(super) stories: u64,
    /// Events the server refused, and why.
    pub(super) refused: Vec<(u32, String)>,
}

/// Batches in the order of their sequence numbers: first those sent, then those to be sent.
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

    /// The line is gone: all of it must be sent again. Returns how many batches that concerns.
    pub(super) fn rewind(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Lets go of what the server has settled.
    pub(super) fn acknowledge(&mut self, ack: &Ack, account: &mut Account) -> Settlement {
        let mut done = Settlement::default();
        for refusal in &ack.refused {
            let meant = |b: &EncodedBatch| {
                (b.first_sequence, b.items) == (refusal.first_sequence, refusal.count)
            };
            if let Some(at) = self.batches.iter().take(self.sent).position(meant) {
                self.sent -= 1;
                if let Some(batch) = self.batches.remove(at) {
                    self.bytes -= batch.len_bytes();
                    account.settle(&batch.collectors, Some(Reason::ServerRefused));
                    done.refused.push((batch.events, refusal.cause.clone()));
                }
            }
        }
        // Only what was sent can be settled, whatever a server says.
        while self.sent > 0
            && self.batches.front().is_some_and(|b| b.end_sequence() <= ack.through)
            && let Some(batch) = self.batches.pop_front()
        {
            self.sent -= 1;
            self.bytes -= batch.len_bytes();
            account.settle(&batch.collectors, None);
            done.batches += 1;
            done.events += u64::from(batch.events);
            done.stories += u64::from(batch.stories);
        }
        done
    }

    /// Gives everything up. Returns the events lost.
    pub(super) fn abandon(&mut self, account: &mut Account) -> u64 {
        self.sent = 0;
        self.bytes = 0;
        self.batches
            .drain(..)
            .map(|batch| {
                account.settle(&batch.collectors, Some(Reason::Shutdown));
                u64::from(batch.events)
            })
            .sum()
    }
}
