//! One measured run of a pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::group::{CpuTime, pause};
use super::harness::Harness;
use super::subject::{Running, Subject, is_drained};
use crate::load::otlp::{Counts, GENERATOR_THREAD, Latency, OtlpLoad, Progress, SINK_THREAD, Sent};
use tapio_core::clock;

/// How long the last records may take after the generator's end.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which the drain is observed.
pub(super) const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// A folder below the system's for temporary files, removed at the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Self> {
        let name = format!("tapio-bench-{}-{}", std::process::id(), clock::monotonic_ns());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it: the folder is in the one for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// CPU seconds per million records.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct CpuPerMillion {
    pub(super) generator: f64,
    pub(super) sink: f64,
    pub(super) pipeline: f64,
    /// The pipeline's threads by name.
    pub(super) threads: BTreeMap<String, f64>,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Run {
    /// Distinct records that arrived at the sink in the measured time, per second.
    pub(super) records_per_second: f64,
    pub(super) cpu_seconds_per_million: CpuPerMillion,
    /// Delays of the records that were due in the measured time, from that moment to the arrival.
    pub(super) latency_ns: Latency,
    pub(super) peak_rss_bytes: u64,
    /// Records of accepted requests that didn't arrive.
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    #[serde(flatten)]
    pub(super) sent: Sent,
    /// Whether CONS-1 holds at the end; `None` for pipelines that have no such account.
    pub(super) cons1_holds: Option<bool>,
    /// tapio's account.
    pub(super) account: Option<Json>,
}

/// The state at a moment.
struct Snapshot {
    progress: Progress,
    harness: CpuTime,
    pipeline: CpuTime,
}

fn snapshot(harness: &mut Harness, running: &Running) -> anyhow::Result<Snapshot> {
    Ok(Snapshot {
        progress: harness.progress()?,
        harness: harness.cpu_time(),
        pipeline: running.group.as_ref().map(|group| group.cpu_time()).unwrap_or_default(),
    })
}

/// Pauses until a time.
///
/// # Errors
/// When the benchmark is interrupted meanwhile.
pub(super) fn pause_until(wall_ns: u64) -> anyhow::Result<()> {
    pause(Duration::from_nanos(wall_ns.saturating_sub(clock::wall_ns())))
}

/// Starts a pipeline, measures one load and ends the pipeline.
pub(super) fn run_once(subject: &Subject, load: &OtlpLoad) -> anyhow::Result<Run> {
    let scratch = Scratch::new()?;
    let mut harness = Harness::start()?;
    let mut running = subject.start(scratch.path(), harness.sink_port())?;
    let run = measure(&mut harness, &mut running, load).with_context(|| subject.name())?;
    running.end()?;
    Ok(run)
}

/// Measures one load on a pipeline that runs.
pub(super) fn measure(
    harness: &mut Harness,
    running: &mut Running,
    load: &OtlpLoad,
) -> anyhow::Result<Run> {
    let load = OtlpLoad { port: running.port, ..load.clone() };
    let times = harness.load(&load)?;
    pause_until(times.from_ns)?;
    let before = snapshot(harness, running)?;
    pause_until(times.to_ns)?;
    let after = snapshot(harness, running)?;
    let sent = harness.finish()?;
    let (counts, status) = drain(harness, running, &sent)?;
    let peak_rss_bytes = running.group.as_ref().map_or(0, |group| group.peak_rss_bytes());
    let account = status.map(|status| status["cons1"].clone());
    Ok(Run {
        records_per_second: rate(before.progress, after.progress),
        cpu_seconds_per_million: cpu_per_million(&before, &after),
        latency_ns: counts.latency,
        peak_rss_bytes,
        lost: counts.missing.saturating_sub(sent.rejected),
        duplicates: counts.arrived - counts.unique,
        cons1_holds: account.as_ref().map(|account| account["holds"] == json!(true)),
        account: account.map(|account| account["total"].clone()),
        sent,
    })
}

/// Waits until every accepted record has arrived and tapio holds none, or for [`DRAIN_TIMEOUT`].
pub(super) fn drain(
    harness: &mut Harness,
    running: &mut Running,
    sent: &Sent,
) -> anyhow::Result<(Counts, Option<Json>)> {
    let until = clock::instant() + DRAIN_TIMEOUT;
    loop {
        if let Some(group) = &mut running.group {
            group.check()?;
        }
        let (counts, status) = (harness.counts()?, running.status()?);
        let is_complete = counts.missing <= sent.rejected && status.as_ref().is_none_or(is_drained);
        if is_complete || clock::instant() > until {
            return Ok((counts, status));
        }
        pause(DRAIN_INTERVAL)?;
    }
}

fn rate(before: Progress, after: Progress) -> f64 {
    let seconds = after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
    (after.unique - before.unique) as f64 / seconds.max(1e-9)
}

fn cpu_per_million(before: &Snapshot, after: &Snapshot) -> CpuPerMillion {
    let records = after.progress.unique - before.progress.unique;
    let millions = (records as f64 / 1e6).max(1e-9);
    let harness = after.harness.since(&before.harness);
    let pipeline = after.pipeline.since(&before.pipeline);
    CpuPerMillion {
        generator: harness.thread(GENERATOR_THREAD) / millions,
        sink: harness.thread(SINK_THREAD) / millions,
        pipeline: pipeline.total / millions,
        threads: pipeline
            .threads
            .into_iter()
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(name, seconds)| (name, seconds / millions))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_that_of_the_measured_time() {
        let at = |at_ns, unique, seconds: f64| {
            let threads = BTreeMap::from([
                (GENERATOR_THREAD.to_owned(), seconds),
                (SINK_THREAD.to_owned(), 2.0 * seconds),
            ]);
            let pipeline = CpuTime {
                total: 10.0 * seconds,
                threads: BTreeMap::from([("busy".to_owned(), 9.0 * seconds), ("idle".into(), 7.0)]),
            };
            let harness = CpuTime { total: 3.0 * seconds, threads };
            Snapshot { progress: Progress { at_ns, unique }, harness, pipeline }
        };
        let (before, after) = (at(1_000_000_000, 500_000, 1.0), at(3_000_000_000, 2_500_000, 1.5));
        assert_eq!(rate(before.progress, after.progress), 1e6);
        let cpu = cpu_per_million(&before, &after);
        assert_eq!((cpu.generator, cpu.sink, cpu.pipeline), (0.25, 0.5, 2.5));
        assert_eq!(cpu.threads, BTreeMap::from([("busy".to_owned(), 2.25)]));
    }
}
