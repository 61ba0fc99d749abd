//! Makes room on disk. What costs least goes first: what is answered and what every exporter has
//! read, then what is answered, then the oldest.

use super::budget::Budget;
use super::exports::Exports;
use super::lane::Lane;
use super::lanes::{IMPORTANT, LANES, ORDINARY};
use crate::store::FramePosition;

/// The lanes, their room on disk, and the exporters that read them.
pub(super) struct Room<'a> {
    pub(super) lanes: &'a mut [Lane; LANES],
    pub(super) budget: Option<&'a Budget>,
    pub(super) exports: Option<&'a Exports>,
}

impl Room<'_> {
    /// Makes room within the budget for a lane's next batch. The ordinary lane never takes the
    /// reserve of the important one, which may take everything.
    pub(super) fn make(&mut self, lane: usize, next_bytes: u64) {
        let Some(budget) = self.budget else { return };
        let from = if lane == IMPORTANT { &[ORDINARY, IMPORTANT][..] } else { &[ORDINARY] };
        while budget.is_exceeded(lane, self.lanes.each_ref().map(Lane::spool_bytes), next_bytes)
            && (self.drop_answered(from) || self.drop_oldest(from))
        {}
    }

    /// Drops the oldest segment that is answered in one of the lanes, the one that is appended to
    /// included. Returns whether there was one.
    pub(super) fn drop_any_answered(&mut self, lanes: &[usize]) -> bool {
        self.drop_answered(lanes)
            || lanes.iter().any(|lane| {
                let kept = self.kept(*lane);
                let lane = &mut self.lanes[*lane];
                lane.seal_answered(kept) && lane.drop_answered(kept)
            })
    }

    /// Drops the oldest full segment that is answered in one of the lanes: first one that every
    /// exporter has read, which costs nothing but the ids by which its events are known when they
    /// come again; then one that the server has, and an exporter loses.
    fn drop_answered(&mut self, lanes: &[usize]) -> bool {
        let kept: [_; LANES] = std::array::from_fn(|lane| self.kept(lane));
        lanes.iter().any(|lane| self.lanes[*lane].drop_answered(kept[*lane]))
            || lanes.iter().any(|lane| self.lanes[*lane].drop_answered(None))
    }

    /// Drops the oldest segment of the first of these lanes that has one to drop. Returns whether
    /// there was one.
    pub(super) fn drop_oldest(&mut self, lanes: &[usize]) -> bool {
        lanes.iter().any(|lane| {
            let attempted = self.exports.map_or(0, |exports| exports.attempted_segment(*lane));
            self.lanes[*lane].drop_oldest(attempted)
        })
    }

    fn kept(&self, lane: usize) -> Option<FramePosition> {
        self.exports?.kept(lane)
    }
}
