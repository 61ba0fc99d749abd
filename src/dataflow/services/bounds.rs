//! Bounds of what is learned.

use super::connections::ConnectionBounds;
use tapio_core::memory::MemoryLevel;

/// The interval at which what is idle is forgotten: ten minutes.
pub(super) const FORGET_INTERVAL_STEPS: u32 = 60;

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceBounds {
    /// Operations of all instances.
    pub(crate) operations: usize,
    /// Features of all operations.
    pub(crate) features: usize,
    /// Instances, and texts of operations and templates.
    pub(crate) names: usize,
    /// Spans that await their callees, and connections that await what is known of their ends.
    pub(crate) spans: usize,
    /// Pairs of instances with connections.
    pub(crate) pairs: usize,
}

impl ServiceBounds {
    /// Live: thousands of operations in some tens of megabytes.
    pub(crate) const LIVE: Self =
        Self { operations: 32_768, features: 98_304, names: 65_536, spans: 131_072, pairs: 8_192 };
    /// Replay: enough for all that the files hold.
    pub(crate) const REPLAY: Self = Self {
        operations: 1 << 20,
        features: 1 << 22,
        names: 1 << 22,
        spans: 1 << 24,
        pairs: 1 << 18,
    };

    /// The bounds at this level of memory.
    pub(super) fn at(self, level: MemoryLevel) -> Self {
        Self {
            operations: level.bound(self.operations),
            features: level.bound(self.features),
            names: level.bound(self.names),
            spans: level.bound(self.spans),
            pairs: level.bound(self.pairs),
        }
    }

    pub(super) fn connections(self) -> ConnectionBounds {
        ConnectionBounds { pairs: self.pairs, held: self.spans / 2, names: self.names }
    }
}
