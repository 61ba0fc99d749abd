//! Keeps the agent's memory below `memory_limit`: measures it and sets the level that bounds
//! shards, assessor and sinks.
//!
//! | file | purpose |
//! | --- | --- |
//! | `mod.rs` | [`MemoryWatch`]: the thread |
//! | `limit.rs` | [`MemoryLimit`]: the setting |
//! | `usage.rs` | the memory of the process, the limit of its cgroup |
//! | `control.rs` | use over time → level |
//! | `start.rs` | returns what only the start needed |

mod control;
mod limit;
mod start;
mod usage;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use control::{Control, Step};
pub use limit::MemoryLimit;
pub(crate) use start::release_start_memory;
use tapio_core::clock;
use tapio_core::memory::{self, MemoryLevel, MemoryPressure};
use tapio_core::shutdown::Shutdown;
pub(super) use usage::used_bytes;

/// The time between two samples. In it a flood takes up some megabytes.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Memory of the agent without keys and stories: rings, rules, buffers, threads.
const FIXED_BYTES: u64 = 72 << 20;
/// Memory of a key with all that comes with it under a flood: records, its share of stories,
/// lifecycles and evidence. Measured: perf/runs/2026-11-28-delivery.md.
const KEY_BYTES: u64 = 4 << 10;
/// A pause that lasts this long, and again as long, is reported: it doesn't end by itself.
const LONG_PAUSE_NS: u64 = 10_000_000_000;

tapio_core::counters! {
    /// The memory that may be used and is.
    pub struct MemoryStats {
        limit_bytes: Gauge = "The memory limit in force, in bytes.",
        used_bytes: Gauge = "Memory that the kernel cannot take back, in bytes.",
        bounds_divisor: Gauge =
            "Divisor of the bounds on keys, stories and evidence; 1 while memory suffices.",
        paused: Gauge = "1 while sources that can wait are not read for lack of memory.",
        pauses: Counter = "How often sources were paused for lack of memory.",
    }
}

impl MemoryStats {
    /// Memory that the kernel can't take back, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.get()
    }
}

/// The memory of an agent that has a limit.
#[derive(Debug)]
pub struct LimitedMemory {
    /// The counters.
    pub stats: Arc<MemoryStats>,
    limit: Arc<AtomicU64>,
}

impl LimitedMemory {
    /// Takes over another limit, within a sample's time. Returns whether it could: a running agent
    /// can't give up its limit.
    pub(super) fn reload(&self, limit: MemoryLimit) -> bool {
        let bytes = limit.bytes(usage::cgroup_limit_bytes());
        if let Some(bytes) = bytes {
            self.limit.store(bytes, Ordering::Relaxed);
        }
        bytes.is_some()
    }
}

/// The level at which keys of this size fit into a limit.
fn fitting(keys_bytes: u64, limit_bytes: u64) -> MemoryLevel {
    let available_bytes = (limit_bytes / 100 * 70).saturating_sub(FIXED_BYTES);
    MemoryLevel::fitting(keys_bytes, available_bytes)
}

/// The thread that measures.
pub(super) struct MemoryWatch {
    pressure: MemoryPressure,
    stats: Arc<MemoryStats>,
    control: Control,
    level: MemoryLevel,
    /// The limit that a reload has set.
    limit: Arc<AtomicU64>,
    /// The bound of all keys, in bytes.
    keys_bytes: u64,
    is_short: bool,
    /// Since when the pause has been reported; 0: there is none.
    paused_ns: u64,
}

impl MemoryWatch {
    /// Starts the thread, if there is a limit. It ends when shutdown is requested. `keys`: the
    /// configured bound of all shards.
    ///
    /// # Errors
    /// When it can't be started.
    pub(super) fn start(
        limit: MemoryLimit,
        keys: usize,
        pressure: MemoryPressure,
        shutdown: Shutdown,
    ) -> io::Result<Option<LimitedMemory>> {
        let Some(limit_bytes) = limit.bytes(usage::cgroup_limit_bytes()) else { return Ok(None) };
        let stats = Arc::new(MemoryStats::default());
        let limit = Arc::new(AtomicU64::new(limit_bytes));
        let keys_bytes = keys as u64 * KEY_BYTES;
        let level = fitting(keys_bytes, limit_bytes);
        let mut watch = Self {
            pressure,
            stats: Arc::clone(&stats),
            control: Control::new(limit_bytes, level),
            level,
            limit: Arc::clone(&limit),
            keys_bytes,
            is_short: false,
            paused_ns: 0,
        };
        watch.set_limit(limit_bytes);
        let thread = std::thread::Builder::new().name("memory".into());
        thread.spawn(move || watch.run(&shutdown.untracked()))?;
        Ok(Some(LimitedMemory { stats, limit }))
    }

    /// Begins anew with a limit.
    fn set_limit(&mut self, limit_bytes: u64) {
        self.level = fitting(self.keys_bytes, limit_bytes);
        self.control = Control::new(limit_bytes, self.level);
        self.pressure.set(self.level);
        self.stats.limit_bytes.set(limit_bytes);
        let bounds_divisor = self.level.divisor();
        tracing::info!(limit_bytes, bounds_divisor, "memory is limited");
    }

    fn run(mut self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            // Relaxed, paired with the store in `LimitedMemory::reload`: nothing else depends on
            // it.
            let limit_bytes = self.limit.load(Ordering::Relaxed);
            if limit_bytes != self.stats.limit_bytes.get() {
                self.set_limit(limit_bytes);
            }
            // A sample that can't be read leaves the level as it is.
            if let Some(used_bytes) = usage::used_bytes() {
                self.sample(clock::monotonic_ns(), used_bytes);
            }
            shutdown.sleep(SAMPLE_INTERVAL);
        }
    }

    fn sample(&mut self, now_ns: u64, used_bytes: u64) {
        let step = self.control.sample(now_ns, used_bytes, self.pressure.take_wanted());
        self.pressure.set(step.level);
        if step.trims {
            memory::trim();
        }
        self.stats.used_bytes.set(used_bytes);
        self.stats.bounds_divisor.set(step.level.divisor());
        self.stats.paused.set(u64::from(step.level.is_paused()));
        self.report(step, now_ns, used_bytes);
        (self.level, self.is_short) = (step.level, step.is_short);
    }

    fn report(&mut self, step: Step, now_ns: u64, used_bytes: u64) {
        let Step { level, is_short, .. } = step;
        let limit_bytes = self.stats.limit_bytes.get();
        let was_paused = self.level.is_paused();
        if level.is_paused() && !was_paused {
            self.stats.pauses.add(1);
            self.paused_ns = now_ns;
            tracing::warn!(
                used_bytes,
                limit_bytes,
                "memory is at its limit: sources that can wait do so, events below a warning \
                 aren't correlated"
            );
        } else if level.is_paused() && now_ns.saturating_sub(self.paused_ns) >= LONG_PAUSE_NS {
            self.paused_ns = now_ns;
            tracing::error!(
                used_bytes,
                limit_bytes,
                "memory stays at its limit although nothing is kept any more: raise memory_limit"
            );
        } else if was_paused && !level.is_paused() {
            tracing::info!(used_bytes, limit_bytes, "sources are read again");
        } else if is_short && !self.is_short {
            tracing::warn!(
                used_bytes,
                limit_bytes,
                "memory is short: fewer keys, stories and facts are kept"
            );
        } else if self.is_short && !is_short {
            tracing::info!(used_bytes, limit_bytes, "memory suffices again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_limit_is_in_force_for_the_next_sample() {
        let (pressure, shutdown) = (MemoryPressure::default(), Shutdown::default());
        let start = |limit| MemoryWatch::start(limit, 1 << 20, pressure.clone(), shutdown.clone());
        assert!(start(MemoryLimit::None).unwrap().is_none());
        let memory = start(MemoryLimit::Bytes(8 << 30)).unwrap().unwrap();
        assert_eq!(memory.stats.bounds_divisor.get().max(1), 1);
        assert!(memory.reload(MemoryLimit::Bytes(256 << 20)));
        // Twice the interval of samples, and as long as it takes on a busy machine.
        while memory.stats.limit_bytes.get() != 256 << 20 || memory.stats.bounds_divisor.get() < 2 {
            std::thread::sleep(SAMPLE_INTERVAL);
        }
        assert!(!memory.reload(MemoryLimit::None), "it stays as it is");
        assert_eq!(memory.stats.limit_bytes.get(), 256 << 20);
        shutdown.request();
    }
}
