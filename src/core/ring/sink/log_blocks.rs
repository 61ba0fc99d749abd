//! The entry of log records that pass as they came: a block of them is one record of a ring.

use super::super::block::Header;
use super::super::route::LogPass;
use super::{FullRing, Sink};
use crate::event::{Event, LogBlock, Reason};

impl Sink {
    /// Decides which log records pass as they came, of a resource with these entity keys and
    /// attributes; `None`: each of them has to be an event.
    #[must_use]
    pub fn log_pass(&self, shared: &Event<'_>) -> Option<LogPass> {
        let filter = self.router.log_filter(shared)?;
        let redactor = self.redactor.clone();
        let has_secret =
            redactor.as_ref().is_some_and(|r| r.event(shared, |_, is_redacted| is_redacted));
        (!has_secret).then(|| LogPass::new(filter, redactor))
    }

    /// Receives log records that pass as they came, and writes them into a ring. They are accounted
    /// for in any case.
    ///
    /// # Errors
    /// The reason why all of them were dropped; they are already counted.
    pub fn offer_logs(&mut self, block: &LogBlock<'_>) -> Result<(), Reason> {
        self.writing = block.records;
        let home = self.router.home(&block.shared).min(self.shards.len() - 1);
        let header = Header {
            order: self.offered + 1,
            generation: self.parity(),
            ..Header::event(self.collector, 1 << home, block.shared.time_ns)
        };
        self.offered += u64::from(block.records);
        let reserve_blocks = self.reserve_blocks(home, block.shared.severity);
        let outcome = loop {
            let is_paused = self.is_paused() && !self.shutdown.is_requested();
            let written = match is_paused {
                true => Err(FullRing(home)),
                false => {
                    let writer = &mut self.shards[home].0;
                    let written = writer.write_log_block(&header, block, reserve_blocks);
                    self.outcome(home, written)
                }
            };
            match written {
                Ok(outcome) => break outcome,
                Err(FullRing(_)) => self.pause(),
            }
        };
        self.writing = 0;
        match outcome {
            Ok(()) => self.accept(block.records),
            Err(reason) => self.refuse(reason, block.records.into()),
        }
        outcome
    }
}
