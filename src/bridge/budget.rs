//! The room of the lanes' spools on disk. An eighth is reserved for the important lane.

use super::lanes::{IMPORTANT, LANES, ORDINARY};

/// The part of the budget (one over this) that is reserved for the important lane.
const RESERVE_DIVISOR: u64 = 8;
/// Segments of the important lane's reserve, and of the whole budget.
const RESERVE_SEGMENTS: u64 = 8;
const SEGMENTS: u64 = 32;

/// The room of the lanes on disk.
pub(super) struct Budget {
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    fn reserve_bytes(&self) -> u64 {
        self.bytes / RESERVE_DIVISOR
    }

    /// Size of a segment of a lane.
    pub(super) fn segment_bytes(&self, lane: usize) -> u64 {
        if lane == IMPORTANT {
            self.reserve_bytes() / RESERVE_SEGMENTS
        } else {
            self.bytes / SEGMENTS
        }
    }

    /// Whether there is no room for `next` more bytes of a lane, with `used` bytes of each lane.
    /// The ordinary lane never takes the reserve of the important one, which may take everything.
    pub(super) fn is_exceeded(&self, lane: usize, used: [u64; LANES], next: u64) -> bool {
        let important = match lane {
            ORDINARY => used[IMPORTANT].max(self.reserve_bytes()),
            _ => used[IMPORTANT],
        };
        important + used[ORDINARY] + next > self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_for_the_important_lane_alone() {
        let budget = Budget::new(800);
        assert!(!budget.is_exceeded(ORDINARY, [0, 690], 10));
        assert!(budget.is_exceeded(ORDINARY, [0, 691], 10));
        assert!(budget.is_exceeded(ORDINARY, [101, 690], 10));
        assert!(!budget.is_exceeded(IMPORTANT, [0, 700], 100));
        assert!(budget.is_exceeded(IMPORTANT, [1, 700], 100));
        assert!(!budget.is_exceeded(IMPORTANT, [790, 0], 10));
    }
}
