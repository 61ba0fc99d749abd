//! The age of the oldest batch in a lane's spool.

use std::ops::ControlFlow;

use crate::store::{FramePosition, LogSnapshot};

/// Reads when a batch was appended; once for each batch.
#[derive(Default)]
pub(super) struct AppendTime {
    /// The position that was read last, and the time.
    read: Option<(FramePosition, u64)>,
}

impl AppendTime {
    /// When the batch at a position, or the first one behind it, was appended, nanoseconds since
    /// the Unix epoch; `None`: there is none, or it can't be read.
    pub(super) fn of(&mut self, at: FramePosition, log: &LogSnapshot) -> Option<u64> {
        if let Some((_, time_ns)) = self.read.filter(|(read, _)| *read == at) {
            return Some(time_ns);
        }
        let mut time_ns = None;
        let read = log.oldest_first(at, |frame| {
            time_ns = Some(frame.receipt_ns);
            ControlFlow::Break(())
        });
        self.read = time_ns.filter(|_| read.is_ok()).map(|time_ns| (at, time_ns));
        self.read.map(|(_, time_ns)| time_ns)
    }
}
