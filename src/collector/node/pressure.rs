//! Stall times and shares of use between two looks.
//!
//! Stall: the kernel's pressure files (Documentation/accounting/psi.rst); `some` is the time in which at least
//! one task of the cgroup waited for the resource. Use: CPU time, anonymous memory and bytes to and from disks,
//! as a share of what the whole node used. Where the node hardly uses a resource, a share says nothing and is 0.

use std::collections::HashMap;
use std::time::Duration;

use super::cgroups::{Trees, field};
use tapio_core::identity::CgroupNames;

/// The resources, as their pressure files are called.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
/// A node that uses less than this part of its processors or memory, or moves fewer bytes a second, is idle.
const BUSY_PART: f64 = 0.1;
const BUSY_BYTES_PER_S: f64 = 1_048_576.0;

/// What a cgroup had used and waited at a look.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Microseconds of `some`, by resource.
    some_us: [Option<u64>; 3],
    /// CPU microseconds, bytes of memory, bytes moved.
    used: [Option<u64>; 3],
}

/// What the node had used.
#[derive(Clone, Copy, Default)]
struct Whole {
    cpu_us: u64,
    memory_bytes: u64,
    io_bytes: u64,
    memory_total_bytes: u64,
}

/// A cgroup's pressure and use of one resource since the last look.
pub(super) struct Found<'a> {
    pub(super) names: &'a CgroupNames,
    /// The number of its folder.
    pub(super) cgroup_id: u64,
    pub(super) resource: &'static str,
    /// How much of the time some task waited, 0 to 100.
    pub(super) some_percent: f64,
    /// How much of the node's use was its own, 0 to 1.
    pub(super) usage_share: f64,
}

/// The last look.
pub(super) struct Pressure {
    cgroups: HashMap<u64, (CgroupNames, Seen), ahash::RandomState>,
    whole: Whole,
}

impl Pressure {
    pub(super) fn new(trees: &Trees) -> Self {
        let mut pressure = Self { cgroups: HashMap::default(), whole: Whole::read() };
        for (id, names) in trees.units_and_pods() {
            let seen = Seen::read(trees, &names);
            pressure.cgroups.insert(id, (names, seen));
        }
        pressure
    }

    /// Cgroups looked at.
    pub(super) fn len(&self) -> usize {
        self.cgroups.len()
    }

    /// Looks again. A cgroup that is new since the last look has nothing to compare with yet.
    pub(super) fn look(&mut self, trees: &Trees, passed: Duration) -> Vec<Found<'_>> {
        let before = std::mem::replace(self, Self::new(trees));
        let node = before.whole.until(&self.whole, passed);
        let mut found = Vec::new();
        for (id, (names, now)) in &self.cgroups {
            let Some((_, then)) = before.cgroups.get(id) else { continue };
            for (i, resource) in RESOURCES.into_iter().enumerate() {
                let some_percent = some_percent(then.some_us[i], now.some_us[i], passed);
                let usage_share = match (then.used[i], now.used[i], node[i]) {
                    // Memory is held, the others are used up.
                    (_, Some(held), Some(whole)) if i == 1 => held as f64 / whole,
                    (Some(then), Some(now), Some(whole)) => now.saturating_sub(then) as f64 / whole,
                    _ => 0.0,
                };
                found.push(Found {
                    names,
                    cgroup_id: *id,
                    resource,
                    some_percent,
                    usage_share: usage_share.clamp(0.0, 1.0),
                });
            }
        }
        found
    }
}

fn some_percent(then: Option<u64>, now: Option<u64>, passed: Duration) -> f64 {
    match (then, now) {
        (Some(then), Some(now)) => {
            let part = now.saturating_sub(then) as f64 / passed.as_micros().max(1) as f64;
            (part * 100.0).clamp(0.0, 100.0)
        }
        _ => 0.0,
    }
}

/// The time of `some` in a pressure file, in microseconds.
fn some_us(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

impl Seen {
    fn read(trees: &Trees, names: &CgroupNames) -> Self {
        let some = |resource: &str| some_us(&trees.read(names, &format!("{resource}.pressure"))?);
        Self {
            some_us: RESOURCES.map(some),
            used: [trees.cpu_us(names), trees.memory_bytes(names), trees.io_bytes(names)],
        }
    }
}

impl Whole {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let kib = |key: &str| field(&memory, key).unwrap_or(0) * 1024;
        Self {
            cpu_us: cpu_us(&read("/proc/stat")),
            memory_bytes: kib("AnonPages"),
            io_bytes: io_bytes(&read("/proc/diskstats")),
            memory_total_bytes: kib("MemTotal"),
        }
    }

    /// What the node used until a later look, by resource; `None` where it was idle.
    fn until(&self, later: &Self, passed: Duration) -> [Option<f64>; 3] {
        let seconds = passed.as_secs_f64().max(1e-3);
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let cpu = later.cpu_us.saturating_sub(self.cpu_us) as f64;
        let io = later.io_bytes.saturating_sub(self.io_bytes) as f64;
        let (held, total) = (later.memory_bytes as f64, later.memory_total_bytes as f64);
        [
            (cpu >= BUSY_PART * processors * seconds * 1e6).then_some(cpu),
            (held >= BUSY_PART * total && held > 0.0).then_some(held),
            (io >= BUSY_BYTES_PER_S * seconds).then_some(io),
        ]
    }
}

/// The processors' busy time from `/proc/stat`, in microseconds: user, nice, system, irq, softirq, steal, in
/// hundredths of a second each.
fn cpu_us(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(|w| w.parse().unwrap_or(0)).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum::<u64>() * 10_000
}

/// Bytes moved from `/proc/diskstats`: sectors of 512 bytes of the devices that are no part of another and
/// lie on no other.
fn io_bytes(stats: &str) -> u64 {
    let moved = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.get(2)?;
        let other = ["loop", "ram", "zram", "dm-", "md"].iter().any(|p| name.starts_with(p));
        let is_part = name.ends_with(|c: char| c.is_ascii_digit())
            && (name.starts_with("sd") || name.starts_with("vd") || name.contains('p'));
        if other || is_part {
            return None;
        }
        let sectors = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some((sectors(5)? + sectors(9)?) * 512)
    };
    stats.lines().filter_map(moved).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let psi = "some avg10=1.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 total=7\n";
        assert_eq!(some_us(psi), Some(123_456));
        assert_eq!(some_us("full total=1"), None);
        assert_eq!(cpu_us("cpu  100 1 50 9999 7 2 3 4 0 0\ncpu0 1"), 1_600_000);
        let disks = " 8 0 sda 10 0 100 0 5 0 50 0 0 0 0\n 8 1 sda1 10 0 100 0 5 0 50 0 0\n\
                     259 0 nvme0n1 1 0 2 0 1 0 2 0 0\n 259 1 nvme0n1p1 1 0 2 0 1 0 2 0 0\n\
                     7 0 loop0 9 0 9 0 9 0 9 0 0\n";
        assert_eq!(io_bytes(disks), (150 + 4) * 512);
    }

    #[test]
    fn an_idle_node_has_no_hogs() {
        let then = Whole::default();
        let second = Duration::from_secs(1);
        let now = Whole { cpu_us: 1_000, memory_total_bytes: 1 << 30, ..then };
        assert_eq!(then.until(&now, second), [None, None, None]);
        let now = Whole {
            cpu_us: 64_000_000_000,
            memory_bytes: 1 << 29,
            io_bytes: 1 << 24,
            memory_total_bytes: 1 << 30,
        };
        assert!(then.until(&now, second).iter().all(Option::is_some));
    }

    #[test]
    fn a_part_of_the_time_is_a_percentage() {
        let second = Duration::from_secs(1);
        assert_eq!(some_percent(Some(0), Some(250_000), second), 25.0);
        assert_eq!(some_percent(Some(9), Some(3), second), 0.0);
        assert_eq!(some_percent(None, Some(3), second), 0.0);
    }
}
