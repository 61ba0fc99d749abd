//! The events in each segment of a lane's spool.

use std::collections::BTreeMap;

use super::batch::{Accounts, accounts_of, add};
use crate::store::{Frame, SealedIndex, SegmentIndex};
use tapio_core::ring::MAX_ACCOUNTS;
use tapio_wire::Batch;

/// Events by account and segment.
pub(super) struct SpoolIndex {
    own_epoch: u64,
    recovered: u8,
    /// The counts of the batch that is being appended, to save parsing it.
    pub(super) next: Option<Accounts>,
    pub(super) segments: BTreeMap<u64, Accounts>,
    /// Segments that were removed to stay within the budget.
    pub(super) removed: Vec<(u64, Accounts)>,
    /// Events of the segment that is appended to.
    open: Option<u64>,
}

impl SpoolIndex {
    pub(super) fn new(own_epoch: u64, recovered: u8) -> Self {
        Self {
            own_epoch,
            recovered,
            next: None,
            segments: BTreeMap::new(),
            removed: Vec::new(),
            open: None,
        }
    }

    /// Events in a segment.
    pub(super) fn total(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, total_of)
    }

    /// Sets the events of a segment that was read.
    pub(super) fn set(&mut self, segment: u64, events: Accounts) {
        self.segments.insert(segment, events);
    }

    /// Notes that events of a segment turned out to be lost.
    pub(super) fn remove(&mut self, segment: u64, lost: &Accounts) {
        if let Some(accounts) = self.segments.get_mut(&segment) {
            subtract(accounts, lost);
        }
    }

    fn add(&mut self, segment: u64, accounts: &Accounts) {
        add(self.segments.entry(segment).or_insert([0; MAX_ACCOUNTS]), accounts);
    }
}

/// The events of all accounts.
pub(super) fn total_of(accounts: &Accounts) -> u64 {
    accounts.iter().map(|n| u64::from(*n)).sum()
}

/// Takes events out of a sum.
pub(super) fn subtract(sum: &mut Accounts, accounts: &Accounts) {
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
        let events: u64 = accounts.map_or(0, total_of);
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
