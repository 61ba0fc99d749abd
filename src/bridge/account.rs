//! The bridge's accounts of the events in its batches.

use std::sync::Arc;

use super::batch::Accounts;
use tapio_core::event::Reason;
use tapio_core::ring::{MAX_ACCOUNTS, MAX_COLLECTORS, StageLedger};

/// Enters the events of batches into the ledger of the bridge.
///
/// Received, held, forwarded and dropped events are counted by collector only: a batch that comes
/// back from the spool doesn't have the generations of its events. They matter until an event is
/// settled, which it is before.
pub(super) struct EventAccount {
    ledger: Arc<StageLedger>,
    /// Whether events are accepted once they are in the spool; otherwise, once the server has them.
    has_spool: bool,
}

impl EventAccount {
    pub(super) fn new(ledger: Arc<StageLedger>, has_spool: bool) -> Self {
        Self { ledger, has_spool }
    }

    /// Counts events received from the rings; they are held.
    pub(super) fn receive(&self, events: &Accounts) {
        for (collector, n) in by_collector(events) {
            self.ledger.add_received(collector, n);
            self.ledger.add_held(collector, n);
        }
    }

    /// Counts events that the spool has.
    pub(super) fn settle(&self, events: &Accounts) {
        for (account, n) in (0u8..).zip(events).filter(|(_, n)| **n > 0) {
            self.ledger.add_settled(account, u64::from(*n));
        }
    }

    /// Counts held events that the server has stored.
    pub(super) fn forward(&self, events: &Accounts) {
        for (collector, n) in by_collector(events) {
            self.ledger.add_forwarded(collector, n);
            self.ledger.remove_held(collector, n);
        }
        self.settle_unspooled(events);
    }

    /// Counts held events that are dropped.
    pub(super) fn drop_events(&self, events: &Accounts, reason: Reason) {
        for (collector, n) in by_collector(events) {
            self.ledger.add_dropped(collector, reason, n);
            self.ledger.remove_held(collector, n);
        }
        self.settle_unspooled(events);
    }

    /// Counts held events that are dropped before the spool has them.
    pub(super) fn drop_unspooled(&self, events: &Accounts, reason: Reason) {
        self.drop_events(events, reason);
        if self.has_spool {
            self.settle(events);
        }
    }

    fn settle_unspooled(&self, events: &Accounts) {
        if !self.has_spool {
            self.settle(events);
        }
    }
}

fn by_collector(events: &Accounts) -> impl Iterator<Item = (u8, u64)> + '_ {
    let sum = |collector: usize| -> u64 {
        (collector..MAX_ACCOUNTS).step_by(MAX_COLLECTORS).map(|a| u64::from(events[a])).sum()
    };
    (0..MAX_COLLECTORS).map(move |c| (c as u8, sum(c))).filter(|(_, n)| *n > 0)
}
