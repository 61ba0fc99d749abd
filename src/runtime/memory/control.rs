//! The level of memory as a function of its use over time.
//!
//! # States
//!
//! ## start → bounds that fit
//! By an estimate: those of the configuration, or down to a sixteenth of them.
//!
//! ## larger bounds → smaller bounds
//! 80 % of the limit are in use. Every 300 ms the bounds are halved, down to 1/256.
//!
//! ## any → paused
//! 90 % of the limit are in use.
//!
//! ## paused → empty
//! A second later 80 % are still in use.
//!
//! ## paused, empty → the smallest bounds
//! Less than 80 % are in use.
//!
//! ## smaller bounds → larger bounds
//! Less than 70 % are in use, and something was evicted. Every five seconds the bounds are doubled,
//! up to those of the configuration.

use tapio_core::memory::MemoryLevel;

const MS: u64 = 1_000_000;
/// The time that shards, assessor and allocator have to follow a level.
const SETTLE_NS: u64 = 300 * MS;
/// How long a pause may last before everything goes.
const PAUSE_NS: u64 = 1_000 * MS;
/// How long memory has to suffice before the bounds grow.
const GROW_NS: u64 = 5_000 * MS;
/// How often freed memory is returned to the kernel while the bounds are smaller.
const TRIM_NS: u64 = 1_000 * MS;

/// The consequence of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) level: MemoryLevel,
    /// Whether memory has been short since 80 % of the limit were in use, until less than 70 % are.
    pub(super) is_short: bool,
    /// Whether freed memory is to be returned to the kernel.
    pub(super) trims: bool,
}

/// Decides on the level.
#[derive(Debug)]
pub(super) struct Control {
    limit_bytes: u64,
    level: MemoryLevel,
    changed_ns: u64,
    trimmed_ns: u64,
    is_short: bool,
    /// Whether something was evicted since the level changed.
    is_wanted: bool,
}

impl Control {
    pub(super) fn new(limit_bytes: u64, level: MemoryLevel) -> Self {
        Self { limit_bytes, level, changed_ns: 0, trimmed_ns: 0, is_short: false, is_wanted: false }
    }

    /// Takes a sample. `now_ns`: a monotonic clock; `wanted`: whether something was evicted since
    /// the last sample.
    pub(super) fn sample(&mut self, now_ns: u64, used_bytes: u64, wanted: bool) -> Step {
        self.is_wanted |= wanted;
        let exceeds = |percent: u64| used_bytes >= self.limit_bytes / 100 * percent;
        let unchanged_ns = now_ns.saturating_sub(self.changed_ns);
        let next = match self.level {
            level if level.is_paused() && !exceeds(80) => MemoryLevel::SMALLEST,
            MemoryLevel::PAUSED if unchanged_ns >= PAUSE_NS => MemoryLevel::EMPTY,
            level if level.is_paused() => level,
            _ if exceeds(90) => MemoryLevel::PAUSED,
            level if exceeds(80) && unchanged_ns >= SETTLE_NS => level.smaller(),
            level if !exceeds(70) && self.is_wanted && unchanged_ns >= GROW_NS => level.larger(),
            level => level,
        };
        if next != self.level {
            (self.level, self.changed_ns, self.is_wanted) = (next, now_ns, false);
        }
        self.is_short = exceeds(if self.is_short { 70 } else { 80 });
        let interval_ns = if next.is_paused() { SETTLE_NS } else { TRIM_NS };
        let trims = self.is_short && now_ns.saturating_sub(self.trimmed_ns) >= interval_ns;
        if trims {
            self.trimmed_ns = now_ns;
        }
        Step { level: next, is_short: self.is_short, trims }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE_NS: u64 = 100 * MS;
    const START: MemoryLevel = MemoryLevel::NORMAL;

    /// The levels for these uses in percent of the limit, a sample each 100 ms, while something is
    /// always evicted.
    fn levels(start: MemoryLevel, used: impl IntoIterator<Item = u64>) -> Vec<MemoryLevel> {
        let mut control = Control::new(1_000_000, start);
        let samples = (100..).zip(used);
        samples.map(|(n, used)| control.sample(n * SAMPLE_NS, used * 10_000, true).level).collect()
    }

    #[test]
    fn bounds_shrink_step_by_step_and_grow_slowly() {
        let mut smaller = levels(START, [85; 22]);
        assert_eq!(smaller.last(), Some(&MemoryLevel::SMALLEST));
        smaller.dedup();
        assert_eq!(smaller.len(), 8, "300 ms for each step");
        let after = |calm: usize| {
            let used = [&[85; 22][..], &vec![60; calm]].concat();
            levels(START, used).last().copied().unwrap()
        };
        assert_eq!(after(49), MemoryLevel::SMALLEST, "five seconds");
        assert!(after(50) < after(49));
        assert_eq!(after(400), MemoryLevel::NORMAL);
        let between = [&[85][..], &[75; 500]].concat();
        assert_eq!(levels(START, between).last(), Some(&START.smaller()));
    }

    #[test]
    fn bounds_grow_only_where_something_was_evicted() {
        let mut control = Control::new(1_000_000, MemoryLevel::SMALLEST);
        let mut after = |from: u64, wanted: bool| {
            let samples = from..from + 100;
            samples.map(|n| control.sample(n * SAMPLE_NS, 0, wanted).level).last().unwrap()
        };
        assert_eq!(after(100, false), MemoryLevel::SMALLEST);
        assert!(after(200, true) < MemoryLevel::SMALLEST);
    }

    #[test]
    fn pause_begins_at_once_and_ends_below_where_it_began() {
        assert_eq!(levels(START, [0, 95]).last(), Some(&MemoryLevel::PAUSED));
        assert_eq!(levels(START, [95, 85, 85, 85]).last(), Some(&MemoryLevel::PAUSED));
        assert_eq!(levels(START, [95, 79]).last(), Some(&MemoryLevel::SMALLEST));
    }

    #[test]
    fn everything_goes_when_a_pause_does_not_help() {
        let mut used = vec![95; 10];
        assert_eq!(levels(START, used.clone()).last(), Some(&MemoryLevel::PAUSED));
        used.push(81);
        assert_eq!(levels(START, used.clone()).last(), Some(&MemoryLevel::EMPTY));
        used.extend([81; 100]);
        assert_eq!(levels(START, used.clone()).last(), Some(&MemoryLevel::EMPTY));
        used.push(79);
        assert_eq!(levels(START, used).last(), Some(&MemoryLevel::SMALLEST));
    }

    #[test]
    fn memory_is_returned_while_it_is_short_only() {
        let mut control = Control::new(1_000_000, START);
        let mut trims = |used: u64, from: u64| {
            let samples =
                (from..from + 30).map(|n| control.sample(n * SAMPLE_NS, used * 10_000, true));
            samples.filter(|step| step.trims).count()
        };
        assert_eq!(trims(75, 1), 0);
        assert_eq!(trims(85, 100), 3, "every second");
        assert_eq!(trims(95, 200), 10, "every 300 ms");
        assert_eq!(trims(75, 300), 3);
        assert_eq!(trims(65, 400), 0);
    }

    proptest! {
        #[test]
        fn level_follows_use(used in prop::collection::vec(0u64..120, 1..200)) {
            let levels = levels(START, used.iter().copied());
            let mut before = START;
            for (used, level) in used.iter().zip(&levels) {
                prop_assert!(*used < 90 || level.is_paused());
                prop_assert!(!level.is_paused() || *used >= 80);
                prop_assert!(*level <= before || *used >= 80);
                prop_assert!(*level >= before || *used < 80);
                before = *level;
            }
        }
    }
}
