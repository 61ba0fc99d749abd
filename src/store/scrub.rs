//! Reads a log again and again, a little at a time, so that damage is found while there is still
//! somebody to ask, and not by the query that needs what is lost.

use super::snapshot::{LogSnapshot, SegmentFrames};

/// Reads the frames of a log in turn; damage is noted in the log's counts.
#[derive(Default)]
pub struct Scrubber {
    /// The segment that is being read. Its file is open.
    open: Option<OpenSegment>,
    /// The segment that was read last; 0 before the first one.
    done: u64,
}

struct OpenSegment {
    number: u64,
    frames: SegmentFrames,
    /// Offsets of the frames that aren't read yet, the last one first.
    unread: Vec<u64>,
}

impl Scrubber {
    /// Reads on until at least `bytes` are read or the log ends. Returns whether it ended: the next
    /// call begins with the oldest segment again.
    pub fn advance(&mut self, log: &LogSnapshot, bytes: u64) -> bool {
        let mut read = 0;
        while read < bytes {
            let Some(mut segment) = self.open.take().filter(|s| log.has_segment(s.number)) else {
                match log.segments().find(|number| *number > self.done) {
                    None => {
                        self.done = 0;
                        return true;
                    }
                    Some(number) => {
                        self.done = number;
                        log.restore_head(number);
                        self.open =
                            log.frames(number).map(|frames| OpenSegment::new(number, frames));
                        continue;
                    }
                }
            };
            let Some(offset) = segment.unread.pop() else { continue };
            read += segment.frames.payload(offset).map_or(1, |payload| payload.len() as u64 + 1);
            self.open = Some(segment);
        }
        false
    }
}

impl OpenSegment {
    fn new(number: u64, frames: SegmentFrames) -> Self {
        let unread = frames.offsets().rev().map(|(offset, _)| offset).collect();
        Self { number, frames, unread }
    }
}
