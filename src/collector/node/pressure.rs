//! Stall times and shares of use between two samples.
//!
//! Stall times come from the kernel's pressure files (Documentation/accounting/psi.rst); `some` is
//! the time in which at least one task of the cgroup waited for the resource. Use is CPU time,
//! anonymous memory, and bytes read from and written to disks, as a share of the node's use. If the
//! node is idle in a resource, the share is meaningless and set to 0.

use std::collections::HashMap;
use std::time::Duration;

use super::cgroups::{CgroupMounts, field};
use tapio_core::identity::CgroupNames;

/// The resources, by the names of their pressure files.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
/// The resource whose use is an amount held, not a counter.
const MEMORY: usize = 1;
/// Part of the processors or memory below which a node is idle.
const BUSY_PART: f64 = 0.1;
/// Disk throughput below which a node is idle.
const BUSY_BYTES_PER_S: f64 = 1_048_576.0;

/// Counters of a cgroup at one time.
#[derive(Clone, Copy, Default)]
struct CgroupCounters {
    /// Microseconds of `some`, by resource.
    some_us: [Option<u64>; 3],
    /// CPU time in microseconds, bytes of memory, bytes transferred.
    used: [Option<u64>; 3],
}

/// Counters of the node at one time.
#[derive(Clone, Copy, Default)]
struct NodeCounters {
    cpu_us: u64,
    memory_bytes: u64,
    io_bytes: u64,
    memory_total_bytes: u64,
    processors: u64,
}

/// A cgroup's pressure and use of one resource since the previous sample.
pub(super) struct Sample<'a> {
    pub(super) names: &'a CgroupNames,
    /// Inode of the cgroup's folder.
    pub(super) cgroup_id: u64,
    pub(super) resource: &'static str,
    /// Time in which some task waited, 0 to 100.
    pub(super) some_percent: f64,
    /// The cgroup's share of the node's use, 0 to 1.
    pub(super) usage_share: f64,
}

/// Samples pressure and use; keeps the counters of the previous sample.
pub(super) struct PressureSampler {
    cgroups: HashMap<u64, (CgroupNames, CgroupCounters), ahash::RandomState>,
    node: NodeCounters,
}

impl PressureSampler {
    /// Reads the first counters.
    pub(super) fn new(mounts: &CgroupMounts) -> Self {
        let mut sampler = Self { cgroups: HashMap::default(), node: NodeCounters::read() };
        for (id, names) in mounts.units_and_pods() {
            let counters = CgroupCounters::read(mounts, &names);
            sampler.cgroups.insert(id, (names, counters));
        }
        sampler
    }

    /// Number of cgroups in the last sample.
    pub(super) fn len(&self) -> usize {
        self.cgroups.len()
    }

    /// Samples all cgroups. A cgroup that wasn't in the previous sample is skipped.
    pub(super) fn sample(&mut self, mounts: &CgroupMounts, passed: Duration) -> Vec<Sample<'_>> {
        let before = std::mem::replace(self, Self::new(mounts));
        let node_use = before.node.use_until(&self.node, passed);
        let mut samples = Vec::new();
        for (id, (names, now)) in &self.cgroups {
            let Some((_, then)) = before.cgroups.get(id) else { continue };
            for (i, resource) in RESOURCES.into_iter().enumerate() {
                let usage_share = match (then.used[i], now.used[i], node_use[i]) {
                    (_, Some(held), Some(node)) if i == MEMORY => held as f64 / node,
                    (Some(then), Some(now), Some(node)) => now.saturating_sub(then) as f64 / node,
                    _ => 0.0,
                };
                samples.push(Sample {
                    names,
                    cgroup_id: *id,
                    resource,
                    some_percent: some_percent(then.some_us[i], now.some_us[i], passed),
                    usage_share: usage_share.clamp(0.0, 1.0),
                });
            }
        }
        samples
    }
}

fn some_percent(then: Option<u64>, now: Option<u64>, passed: Duration) -> f64 {
    let (Some(then), Some(now)) = (then, now) else {
        return 0.0;
    };
    let part = now.saturating_sub(then) as f64 / passed.as_micros().max(1) as f64;
    (part * 100.0).clamp(0.0, 100.0)
}

/// The time of `some` in a pressure file, in microseconds.
fn some_us(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

impl CgroupCounters {
    fn read(mounts: &CgroupMounts, names: &CgroupNames) -> Self {
        let some = |resource: &str| some_us(&mounts.read(names, &format!("{resource}.pressure"))?);
        Self {
            some_us: RESOURCES.map(some),
            used: [mounts.cpu_us(names), mounts.memory_bytes(names), mounts.io_bytes(names)],
        }
    }
}

impl NodeCounters {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let kib = |key: &str| field(&memory, key).unwrap_or(0) * 1024;
        let stat = read("/proc/stat");
        Self {
            cpu_us: cpu_us(&stat),
            processors: processors(&stat),
            memory_bytes: kib("AnonPages"),
            io_bytes: io_bytes(&read("/proc/diskstats")),
            memory_total_bytes: kib("MemTotal"),
        }
    }

    /// The node's use between two times, by resource; `None` if it was idle.
    fn use_until(&self, later: &Self, passed: Duration) -> [Option<f64>; 3] {
        let seconds = passed.as_secs_f64().max(1e-3);
        let cpu = later.cpu_us.saturating_sub(self.cpu_us) as f64;
        let io = later.io_bytes.saturating_sub(self.io_bytes) as f64;
        let (held, total) = (later.memory_bytes as f64, later.memory_total_bytes as f64);
        [
            (cpu >= BUSY_PART * later.processors as f64 * seconds * 1e6).then_some(cpu),
            (held >= BUSY_PART * total && held > 0.0).then_some(held),
            (io >= BUSY_BYTES_PER_S * seconds).then_some(io),
        ]
    }
}

/// The processors' busy time from `/proc/stat`, in microseconds: user, nice, system, irq, softirq
/// and steal, which the file has in hundredths of a second.
fn cpu_us(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(|w| w.parse().unwrap_or(0)).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum::<u64>() * 10_000
}

/// The processors of the node that are online: the lines `cpuN` of `/proc/stat`. The affinity of
/// this thread doesn't matter.
fn processors(stat: &str) -> u64 {
    let is_one = |line: &&str| {
        let number = line.strip_prefix("cpu").unwrap_or_default();
        number.starts_with(|c: char| c.is_ascii_digit())
    };
    stat.lines().filter(is_one).count() as u64
}

/// Bytes read and written from `/proc/diskstats`: sectors of 512 bytes of the devices that are
/// neither partitions nor stacked on other devices.
fn io_bytes(stats: &str) -> u64 {
    let transferred = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.get(2)?;
        let is_stacked = ["loop", "ram", "zram", "dm-", "md"].iter().any(|p| name.starts_with(p));
        let is_partition = name.ends_with(|c: char| c.is_ascii_digit())
            && (name.starts_with("sd") || name.starts_with("vd") || name.contains('p'));
        if is_stacked || is_partition {
            return None;
        }
        let sectors = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some((sectors(5)? + sectors(9)?) * 512)
    };
    stats.lines().filter_map(transferred).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_parsed() {
        let psi = "some avg10=1.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 total=7\n";
        assert_eq!(some_us(psi), Some(123_456));
        assert_eq!(some_us("full total=1"), None);
        let stat = "cpu  100 1 50 9999 7 2 3 4 0 0\ncpu0 1\ncpu3 1\nintr 5\n";
        assert_eq!((cpu_us(stat), processors(stat)), (1_600_000, 2));
        let disks = " 8 0 sda 10 0 100 0 5 0 50 0 0 0 0\n 8 1 sda1 10 0 100 0 5 0 50 0 0\n\
                     259 0 nvme0n1 1 0 2 0 1 0 2 0 0\n 259 1 nvme0n1p1 1 0 2 0 1 0 2 0 0\n\
                     7 0 loop0 9 0 9 0 9 0 9 0 0\n";
        assert_eq!(io_bytes(disks), (150 + 4) * 512);
    }

    #[test]
    fn idle_node_has_no_use_to_share() {
        let then = NodeCounters::default();
        let second = Duration::from_secs(1);
        let now =
            NodeCounters { cpu_us: 1_000, memory_total_bytes: 1 << 30, processors: 1, ..then };
        assert_eq!(then.use_until(&now, second), [None, None, None]);
        let now = NodeCounters {
            cpu_us: 64_000_000_000,
            memory_bytes: 1 << 29,
            io_bytes: 1 << 24,
            memory_total_bytes: 1 << 30,
            processors: 1,
        };
        assert!(then.use_until(&now, second).iter().all(Option::is_some));
    }

    #[test]
    fn stall_time_is_a_percentage_of_interval() {
        let second = Duration::from_secs(1);
        assert_eq!(some_percent(Some(0), Some(250_000), second), 25.0);
        assert_eq!(some_percent(Some(9), Some(3), second), 0.0);
        assert_eq!(some_percent(None, Some(3), second), 0.0);
    }
}
