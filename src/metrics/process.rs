//! The standard process metrics
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>) and the build
//! information, read from /proc at each scrape. What can't be read is missing from the page.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::page::{Metric, Page};
use super::telemetry::telemetry;

const BUILD_INFO: Metric =
    Metric::gauge("tapio_build_info", &["version"], "Version of tapio; the value is always 1.");
const CPU_SECONDS: Metric = Metric::counter(
    "process_cpu_seconds_total",
    &[],
    "User and system CPU time of the process, in seconds.",
);
const RESIDENT_BYTES: Metric =
    Metric::gauge("process_resident_memory_bytes", &[], "Resident memory, in bytes.");
const VIRTUAL_BYTES: Metric =
    Metric::gauge("process_virtual_memory_bytes", &[], "Virtual memory, in bytes.");
const OPEN_FDS: Metric = Metric::gauge("process_open_fds", &[], "Open file descriptors.");
const MAX_FDS: Metric = Metric::gauge("process_max_fds", &[], "Limit of open file descriptors.");
const THREADS: Metric = Metric::gauge("process_threads", &[], "Threads of the process.");
const START_SECONDS: Metric = Metric::gauge(
    "process_start_time_seconds",
    &[],
    "Start of the process, in seconds since the Unix epoch.",
);

/// The fields of `/proc/PID/stat` that are exported (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    /// `utime` and `stime`, in clock ticks.
    cpu_ticks: u64,
    threads: u64,
    /// Ticks from boot to the start of the process.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may contain anything; field 3 follows the last `)`.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The node's boot, in seconds since the Unix epoch.
fn boot_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Adds the build information, the process metrics and those of its telemetry.
pub(crate) fn process_metrics(page: &mut Page) {
    page.metric(&BUILD_INFO).add(&[env!("CARGO_PKG_VERSION")], 1u8);
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|t| Stat::parse(&t)) {
        page.value(&CPU_SECONDS, stat.cpu_ticks as f64 / ticks_per_second);
        page.value(&RESIDENT_BYTES, stat.resident_pages * rustix::param::page_size() as u64);
        page.value(&VIRTUAL_BYTES, stat.virtual_bytes);
        page.value(&THREADS, stat.threads);
        if let Some(boot) = boot_seconds() {
            page.value(&START_SECONDS, boot as f64 + stat.start_ticks as f64 / ticks_per_second);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them reads the folder.
        page.value(&OPEN_FDS, entries.count().saturating_sub(1));
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        page.value(&MAX_FDS, limit);
    }
    telemetry().metrics(page);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_behind_a_name_with_parentheses() {
        let text = "42 (a b) c) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 7 0 1234 8192 3 4";
        let expected = Stat {
            cpu_ticks: 200,
            threads: 7,
            start_ticks: 1234,
            virtual_bytes: 8192,
            resident_pages: 3,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn every_process_metric_is_on_the_page() {
        let mut page = Page::default();
        process_metrics(&mut page);
        let text = page.text();
        for metric in [
            &BUILD_INFO,
            &CPU_SECONDS,
            &RESIDENT_BYTES,
            &VIRTUAL_BYTES,
            &OPEN_FDS,
            &MAX_FDS,
            &THREADS,
            &START_SECONDS,
        ] {
            assert!(text.contains(&format!("\n{}", metric.name)), "{}", metric.name);
        }
    }
}
