//! A rate limit that a reload of the configuration changes while a collector runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// A rate and a burst; none until the first change.
#[derive(Debug)]
pub struct LiveRate(AtomicU64);

/// No change: the collector's own configuration applies. It isn't a rate: none is so large.
const UNCHANGED: u64 = u64::MAX;

impl Default for LiveRate {
    fn default() -> Self {
        Self(AtomicU64::new(UNCHANGED))
    }
}

impl LiveRate {
    /// Changes the limit: events per second, and events at once after a pause.
    pub fn set(&self, per_second: u32, burst: u32) {
        // Relaxed, paired with the load in `get`: both numbers are one word, and nothing else
        // depends on them.
        self.0.store(u64::from(per_second) << 32 | u64::from(burst), Ordering::Relaxed);
    }

    /// The limit, if it was changed.
    pub(crate) fn get(&self) -> Option<(u32, u32)> {
        let word = self.0.load(Ordering::Relaxed);
        (word != UNCHANGED).then_some(((word >> 32) as u32, word as u32))
    }
}
