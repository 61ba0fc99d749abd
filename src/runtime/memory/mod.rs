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
use std::time::Duration;

use control::{Control, Step};
pub use limit::MemoryLimit;
pub(crate) use start::release_start_memory;
use tapio_core::clock;
use tapio_core::memory::{self, MemoryLevel, MemoryPressure};
use tapio_core::shutdown::Shutdown;

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

/// The thread that measures.
pub(super) struct MemoryWatch {
    pressure: MemoryPressure,
    stats: Arc<MemoryStats>,
    control: Control,
    level: MemoryLevel,
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
    ) -> io::Result<Option<Arc<MemoryStats>>> {
        let Some(limit_bytes) = limit.bytes(usage::cgroup_limit_bytes()) else { return Ok(None) };
        let available_bytes = (limit_bytes / 100 * 70).saturating_sub(FIXED_BYTES);
        let level = MemoryLevel::fitting(keys as u64 * KEY_BYTES, available_bytes);
        pressure.set(level);
        tracing::info!(limit_bytes, bounds_divisor = level.divisor(), "memory is limited");
        let stats = Arc::new(MemoryStats::default());
        stats.limit_bytes.set(limit_bytes);
        let watch = Self {
            pressure,
            stats: Arc::clone(&stats),
            control: Control::new(limit_bytes, level),
            level,
            is_short: false,
            paused_ns: 0,
        };
        let thread = std::thread::Builder::new().name("memory".into());
        thread.spawn(move || watch.run(&shutdown.untracked()))?;
        Ok(Some(stats))
    }

    fn run(mut self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
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
