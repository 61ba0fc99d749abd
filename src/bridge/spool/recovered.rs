//! Counts what earlier processes left in the spool.

use std::io;
use std::ops::ControlFlow;

use super::{Recovered, Spool};
use crate::bridge::batch::{Accounts, accounts_of, add};
use crate::bridge::checkpoint::Checkpoint;
use crate::bridge::spool_index::{subtract, total_of};
use crate::store::FramePosition;
use tapio_core::ring::{MAX_ACCOUNTS, MAX_COLLECTORS};
use tapio_wire::Batch;

impl Spool {
    /// Counts the events of earlier processes that wait, and those that waited at the checkpoint
    /// and don't any more.
    pub(super) fn count_recovered(&mut self, checkpoint: &Checkpoint) -> io::Result<Recovered> {
        let Some(from) = self.backlog else {
            let lost = checkpoint.waiting.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
            return Ok(Recovered { waiting: [0; MAX_ACCOUNTS], lost: self.as_recovered(lost) });
        };
        self.loaded = self.count_events(from.segment, from.offset)?;
        let mut lost: u64 = 0;
        for (segment, expected) in &checkpoint.waiting {
            let (is_first, is_last) =
                (from.segment == *segment, checkpoint.end.segment == *segment);
            if is_first || is_last {
                // What is damaged in it is counted here, not once more when it is read.
                let intact = self.count_events(*segment, u64::MAX)?;
                self.log.index_mut().set(*segment, intact);
            }
            let found = if is_last {
                // Later batches don't make up for earlier ones.
                total_of(&self.count_events(*segment, checkpoint.end.offset)?)
            } else {
                self.log.index().total(*segment)
            };
            let answered = if is_first { total_of(&self.loaded) } else { 0 };
            lost = lost.saturating_add(expected.saturating_sub(found.saturating_sub(answered)));
        }
        let mut waiting = [0; MAX_ACCOUNTS];
        let unanswered = self.log.index().segments.range(from.segment..);
        unanswered.for_each(|(_, accounts)| add(&mut waiting, accounts));
        subtract(&mut waiting, &self.loaded);
        Ok(Recovered { waiting, lost: self.as_recovered(lost) })
    }

    /// Counts the intact events in a segment before an offset.
    fn count_events(&self, segment: u64, end: u64) -> io::Result<Accounts> {
        let mut before = [0; MAX_ACCOUNTS];
        self.log.snapshot().oldest_first(FramePosition { segment, offset: 0 }, |frame| {
            if frame.position.segment > segment || frame.position.offset >= end {
                return ControlFlow::Break(());
            }
            if let Ok(batch) = Batch::parse(frame.payload) {
                add(&mut before, &accounts_of(&batch, self.own_epoch, self.recovered));
            }
            ControlFlow::Continue(())
        })?;
        Ok(before)
    }

    /// Events of an earlier process.
    fn as_recovered(&self, events: u64) -> Accounts {
        let mut accounts = [0; MAX_ACCOUNTS];
        accounts[usize::from(self.recovered) % MAX_COLLECTORS] =
            events.try_into().unwrap_or(u32::MAX);
        accounts
    }
}
