//! Bounds of a lane.

use crate::matcher::order::LaneRole;
use crate::story::open_stories::{EvictionPolicy, StoryOptions};
use tapio_core::memory::MemoryLevel;

/// Bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Rules' keys with state; beyond it, the one with the nearest deadline is evicted.
    pub max_keys: usize,
    /// Stories open at once; beyond it, the one that ends next is evicted.
    pub max_stories: usize,
    /// Relevant events whose ids are remembered: one that comes again counts once.
    pub max_seen: usize,
    /// Bit n: the senders of the collector with this number choose the times of its events.
    pub given_times: u32,
    /// Records every match (`tapio replay --emit matches`).
    pub record_matches: bool,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            max_keys: 65_536,
            max_stories: 4_096,
            max_seen: 32_768,
            given_times: 0,
            record_matches: false,
        }
    }
}

impl LaneOptions {
    /// Keys whose usual values are learned; beyond it, the one seen least recently is evicted. Each
    /// takes as much memory as a few keys with state.
    pub(crate) fn max_baselines(&self) -> usize {
        self.max_keys / 4
    }

    /// The bounds at this level of memory.
    pub(crate) fn at(self, level: MemoryLevel) -> Self {
        Self {
            max_keys: level.bound(self.max_keys),
            max_stories: level.bound(self.max_stories),
            max_seen: level.bound(self.max_seen),
            ..self
        }
    }

    /// The options of the stories of a lane with this role.
    pub(crate) fn stories(self, role: LaneRole) -> StoryOptions {
        let (emit_open, eviction) = match role {
            LaneRole::Arrival => (true, EvictionPolicy::Drop),
            LaneRole::EventTime => (false, EvictionPolicy::Defer),
            LaneRole::Replay => (false, EvictionPolicy::Emit),
        };
        StoryOptions { max_stories: self.max_stories, emit_open, eviction }
    }
}
