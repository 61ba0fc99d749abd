//! How much memory the agent's parts may keep. The agent's watch sets the level; shards, assessor
//! and sinks follow it.

mod allocator;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::event::Severity;

pub use allocator::{fix_thresholds, trim};

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryLevel(u8);

impl MemoryLevel {
    /// Memory is sufficient: the bounds are those of the configuration.
    pub const NORMAL: Self = Self(0);
    /// The smallest bounds with which the agent starts.
    const SMALLEST_START: Self = Self(4);
    /// The bounds are as small as they get.
    pub const SMALLEST: Self = Self(8);
    /// As [`MemoryLevel::SMALLEST`]. In addition, sources that can wait aren't read, and events
    /// below a warning aren't correlated.
    pub const PAUSED: Self = Self(9);
    /// As [`MemoryLevel::PAUSED`], and nothing is kept: an allocator can't return a page of which
    /// a part is in use.
    pub const EMPTY: Self = Self(10);

    /// The next level with smaller bounds; [`MemoryLevel::SMALLEST`] is the last.
    #[must_use]
    pub fn smaller(self) -> Self {
        self.max(Self(self.0 + 1).min(Self::SMALLEST))
    }

    /// The level with the largest bounds at which what takes `wanted_bytes` with those of the
    /// configuration fits into `available_bytes`.
    #[must_use]
    pub fn fitting(wanted_bytes: u64, available_bytes: u64) -> Self {
        let fits = |level: &u8| wanted_bytes >> level <= available_bytes;
        (0..Self::SMALLEST_START.0).find(fits).map_or(Self::SMALLEST_START, Self)
    }

    /// The next level with larger bounds.
    #[must_use]
    pub fn larger(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The rest of a bound: each level halves it.
    #[must_use]
    pub fn bound(self, configured: usize) -> usize {
        match self {
            Self::EMPTY => 1,
            level => (configured >> level.min(Self::SMALLEST).0).max(1),
        }
    }

    /// The divisor of the bounds.
    #[must_use]
    pub fn divisor(self) -> u64 {
        1 << self.min(Self::SMALLEST).0
    }

    /// Whether sources that can wait aren't read.
    #[must_use]
    pub fn is_paused(self) -> bool {
        self >= Self::PAUSED
    }

    /// The least severe events that are correlated.
    #[must_use]
    pub fn correlated_from(self) -> Severity {
        if self.is_paused() { Severity::WARN } else { Severity::default() }
    }
}

/// The level in force, and whether larger bounds are wanted. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct MemoryPressure(Arc<Shared>);

// Read with every event: nothing that other threads write often is on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shared {
    level: AtomicU8,
    wanted: AtomicBool,
}

impl MemoryPressure {
    /// The level in force.
    #[must_use]
    pub fn level(&self) -> MemoryLevel {
        // Relaxed, paired with the store in `set`: nothing else depends on it.
        MemoryLevel(self.0.level.load(Ordering::Relaxed))
    }

    /// Sets the level.
    pub fn set(&self, level: MemoryLevel) {
        self.0.level.store(level.0, Ordering::Relaxed);
    }

    /// Asks for larger bounds: something was evicted.
    pub fn want_more(&self) {
        // Relaxed, paired with the swap in `take_wanted`: only the flag itself matters.
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether larger bounds were asked for since the last call.
    #[must_use]
    pub fn take_wanted(&self) -> bool {
        self.0.wanted.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_halved_down_to_the_smallest() {
        let mut level = MemoryLevel::NORMAL;
        let mut bounds = Vec::new();
        for _ in 0..10 {
            bounds.push(level.bound(512));
            level = level.smaller();
        }
        assert_eq!(bounds, [512, 256, 128, 64, 32, 16, 8, 4, 2, 2]);
        assert_eq!((level, level.is_paused()), (MemoryLevel::SMALLEST, false));
        assert_eq!(level.bound(3), 1, "a bound is never 0");
        let paused = MemoryLevel::PAUSED;
        assert_eq!((paused.smaller(), paused.larger()), (paused, MemoryLevel::SMALLEST));
        assert_eq!((paused.bound(512), paused.divisor()), (2, 256));
        assert_eq!(MemoryLevel::NORMAL.larger(), MemoryLevel::NORMAL);
        let fitting = |available| MemoryLevel::fitting(64, available).bound(64);
        assert_eq!([64, 63, 32, 31, 4, 0].map(fitting), [64, 32, 32, 16, 4, 4]);
        assert_eq!((MemoryLevel::EMPTY.bound(64), MemoryLevel::EMPTY.is_paused()), (1, true));
        assert!(paused.correlated_from() > MemoryLevel::SMALLEST.correlated_from());
    }
}
