//! The only place that reads a clock: everything else is given the time, so that replay and tests
//! run the production code.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Now, for measuring durations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock `bpf_ktime_get_ns` reads.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Nanoseconds of CLOCK_BOOTTIME since boot, the clock `/proc/PID/stat` counts start times in.
#[must_use]
pub fn boottime_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Wall time minus monotonic time: add it to a kernel time stamp to place it in the day. Taken
/// from the closest of several readings, since the two clocks can't be read at once.
#[must_use]
pub fn monotonic_to_wall_ns() -> u64 {
    let reading = || {
        let before = monotonic_ns();
        let wall = wall_ns();
        let after = monotonic_ns();
        (after - before, wall.wrapping_sub(before + (after - before) / 2))
    };
    (0..5).map(|_| reading()).min().map_or(0, |(_, offset)| offset)
}

/// CPU time this process has used, all threads.
#[must_use]
pub fn process_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}
