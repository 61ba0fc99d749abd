//! Bounds of the state that shards and the assessor keep.

use tapio_core::memory::MemoryLevel;

/// Bounds of a shard's and the assessor's state.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entities of which a shard keeps the recent kinds.
    pub homes: usize,
    /// Entities of which a shard mines log templates.
    pub miners: usize,
    /// Entities of which the assessor keeps baselines, graph edges and faults.
    pub entities: usize,
    /// Buckets of ten seconds kept for each kind of an entity, from the newest one back.
    pub buckets: usize,
    /// Kinds kept for one entity, ranges of time kept for an edge, changes kept of a state, and
    /// events kept that start or end a fault.
    pub history: usize,
    /// Edges of one entity.
    pub edges: usize,
    /// Edges that a search of dependencies or dependents looks at.
    pub searched_edges: usize,
    /// Pairs of kinds that are learned.
    pub pairs: usize,
}

impl Bounds {
    /// The bounds at this level of memory: with fewer entities, each as detailed as before.
    #[must_use]
    pub fn at(self, level: MemoryLevel) -> Self {
        Self {
            homes: level.bound(self.homes),
            miners: level.bound(self.miners),
            entities: level.bound(self.entities),
            ..self
        }
    }

    /// Live: sufficient for a node, in a few megabytes.
    pub const LIVE: Self = Self {
        homes: 16_384,
        miners: 512,
        entities: 16_384,
        buckets: 192,
        history: 64,
        edges: 4_096,
        searched_edges: 8_192,
        pairs: 4_096,
    };
    /// Replay: large enough for all that the files hold, so that evictions don't affect the result.
    pub const REPLAY: Self = Self {
        homes: 1 << 20,
        miners: 1 << 16,
        entities: 1 << 20,
        buckets: 1 << 20,
        history: 1 << 20,
        edges: 1 << 20,
        searched_edges: 1 << 20,
        pairs: 1 << 16,
    };
}
