//! Renders the agent's page of metrics.

use std::sync::Arc;
use std::time::Duration;

use super::collectors::{COLLECTOR_COUNTERS, EBPF_EMITTED, EMITTED};
use super::definitions as define;
use super::definitions::{Names, metric_of};
use crate::export::SinkStats;
use crate::metrics::{Page, process_metrics};
use crate::runtime::status::Status;
use tapio_collectors::CollectorStatus;
use tapio_core::counters::{Kind, Reading};
use tapio_core::ring::Snapshot;
use tapio_wire::Access;

/// The metrics of `/metrics`.
pub(crate) fn page(status: &Status) -> Page {
    let mut page = Page::default();
    process_metrics(&mut page);
    let service: Vec<&str> = status.service.iter().map(String::as_str).collect();
    page.metric(&define::SERVICE_INFO).add(&service, 1u8);
    events(&mut page, &status.account());
    let collectors = status.collectors();
    collector_health(&mut page, &collectors);
    collector_counters(&mut page, &collectors);
    rules(&mut page, status);
    stories(&mut page, status);
    shards(&mut page, status);
    counters(&mut page, define::ASSESSOR_METRICS, status.assessor.readings());
    identity(&mut page, status);
    counters(&mut page, define::RECOVERY_METRICS, status.recovery());
    if let Some(memory) = &status.memory {
        counters(&mut page, define::MEMORY_METRICS, memory.stats.readings());
    }
    admin(&mut page, &status.access);
    page.value(&define::CONNECTED, u8::from(status.bridge.is_connected()));
    counters(&mut page, define::BRIDGE_METRICS, status.bridge.readings());
    sinks(&mut page, &status.sinks);
    page
}

/// The refusals of the admin pages' listener.
fn admin(page: &mut Page, access: &Access) {
    let failed = page.metric(&define::ADMIN_HANDSHAKES_FAILED);
    access.counts().handshakes_failed().for_each(|(reason, n)| failed.add(&[reason], n));
    let refused = page.metric(&define::ADMIN_REQUESTS_REFUSED);
    access.counts().requests_refused().for_each(|(reason, n)| refused.add(&[reason], n));
    page.value(&define::ADMIN_RELOAD_FAILURES, access.reload_failures());
}

/// CONS-1 by collector.
fn events(page: &mut Page, snapshot: &Snapshot) {
    let accounts = &snapshot.collectors;
    let received = page.metric(&define::RECEIVED);
    accounts.iter().for_each(|a| received.add(&[&a.name], a.received));
    let forwarded = page.metric(&define::FORWARDED);
    accounts.iter().for_each(|a| forwarded.add(&[&a.name], a.forwarded));
    let dropped = page.metric(&define::DROPPED);
    for account in accounts {
        for (stage, reason, events) in &account.dropped {
            dropped.add(&[&account.name, stage.as_str(), reason.as_str()], *events);
        }
    }
    let truncated = page.metric(&define::TRUNCATED);
    accounts.iter().for_each(|a| truncated.add(&[&a.name], a.truncated));
    let redacted = page.metric(&define::REDACTED);
    accounts.iter().for_each(|a| redacted.add(&[&a.name], a.redacted));
    let held = page.metric(&define::HELD);
    accounts.iter().for_each(|a| held.add(&[&a.name], a.held));
    let residual = page.metric(&define::RESIDUAL);
    accounts.iter().for_each(|a| residual.add(&[&a.name], a.residual));
}

fn collector_health(page: &mut Page, collectors: &[CollectorStatus]) {
    let up = page.metric(&define::COLLECTOR_UP);
    collectors.iter().for_each(|c| up.add(&[c.name], u8::from(c.health.is_running())));
    let restarts = page.metric(&define::COLLECTOR_RESTARTS);
    collectors.iter().for_each(|c| restarts.add(&[c.name], c.restarts));
    let age = page.metric(&define::HEARTBEAT_AGE);
    collectors.iter().for_each(|c| age.add(&[c.name], seconds(c.heartbeat_age)));
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The collectors' own counters. Those of a collector that is disabled are missing.
fn collector_counters(page: &mut Page, collectors: &[CollectorStatus]) {
    let emitted = page.metric(&EBPF_EMITTED);
    for (name, value) in collectors.iter().flat_map(|c| &c.counters) {
        if let Some(kind) = name.strip_prefix(EMITTED) {
            emitted.add(&[kind], *value);
        }
    }
    for rows in COLLECTOR_COUNTERS.chunk_by(|a, b| a.metric.name == b.metric.name) {
        let Some(first) = rows.first() else { continue };
        let samples = page.metric(&first.metric);
        for row in rows {
            let collector = collectors.iter().find(|c| c.name == row.collector);
            let counter =
                collector.and_then(|c| c.counters.iter().find(|(name, _)| name == row.counter));
            if let Some((_, value)) = counter {
                samples.add(row.label.as_slice(), *value);
            }
        }
    }
}

fn rules(page: &mut Page, status: &Status) {
    page.value(&define::RULES, status.rules.current().rules.len() as u64);
    page.value(&define::RULES_DISABLED, status.disabled_rules());
    let reloads = page.metric(&define::RELOADS);
    status.reloads.outcomes().for_each(|outcome| reloads.add(&[outcome.name], outcome.value));
}

fn stories(page: &mut Page, status: &Status) {
    let emitted = page.metric(&define::STORIES);
    for (pattern, severity, stories) in status.assessor.stories_emitted() {
        emitted.add(&[&pattern, severity], stories);
    }
}

fn shards(page: &mut Page, status: &Status) {
    let shards: Vec<Vec<Reading>> =
        status.shards.iter().map(|stats| stats.readings().collect()).collect();
    // All shards have the same counters in the same order.
    for (position, counter) in shards.first().into_iter().flatten().enumerate() {
        let Some(metric) = metric_of(counter, define::SHARD_METRICS, &["shard"]) else { continue };
        let samples = page.metric(&metric);
        for (number, readings) in shards.iter().enumerate() {
            samples.add(&[&number.to_string()], readings[position].value);
        }
    }
}

/// The sizes of the entity directory's tables, and its losses.
fn identity(page: &mut Page, status: &Status) {
    let (tables, losses): (Vec<_>, Vec<_>) =
        status.directory.readings().partition(|reading| reading.kind == Kind::Gauge);
    let entries = page.metric(&define::IDENTITY_ENTRIES);
    tables.iter().for_each(|table| entries.add(&[table.name], table.value));
    counters(page, define::IDENTITY_METRICS, losses.into_iter());
}

fn sinks(page: &mut Page, sinks: &[Arc<SinkStats>]) {
    for (position, counter) in SinkStats::default().readings().enumerate() {
        let Some(metric) = metric_of(&counter, define::SINK_METRICS, &["sink"]) else { continue };
        let samples = page.metric(&metric);
        for sink in sinks {
            let value = sink.readings().nth(position).map_or(0, |reading| reading.value);
            samples.add(&[&sink.name], value);
        }
    }
}

/// Writes a component's counters, each as its metric.
fn counters(page: &mut Page, names: Names, readings: impl Iterator<Item = Reading>) {
    for reading in readings {
        if let Some(metric) = metric_of(&reading, names, &[]) {
            page.value(&metric, reading.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bridge::BridgeStats;
    use crate::runtime::{MemoryStats, RecoveryLogStats};
    use tapio_core::identity::Directory;
    use tapio_dataflow::WorkerStats;
    use tapio_dataflow::evidence::AssessorStats;

    /// Checks that every counter has exactly one metric, whose name shows its kind.
    #[track_caller]
    fn assert_complete(names: Names, readings: impl Iterator<Item = Reading>) {
        let named: BTreeSet<&str> = names.iter().map(|(counter, _)| *counter).collect();
        assert_eq!(named.len(), names.len());
        let mut counters = BTreeSet::new();
        for reading in readings {
            let metric = metric_of(&reading, names, &[]).unwrap_or_else(|| panic!("{reading:?}"));
            assert_eq!(
                metric.name.ends_with("_total"),
                reading.kind == Kind::Counter,
                "{metric:?}"
            );
            assert!(reading.help.ends_with('.'), "{reading:?}");
            counters.insert(reading.name);
        }
        assert_eq!(named, counters);
    }

    #[test]
    fn every_counter_has_a_metric() {
        assert_complete(define::SHARD_METRICS, WorkerStats::default().readings());
        assert_complete(define::ASSESSOR_METRICS, AssessorStats::default().readings());
        assert_complete(define::RECOVERY_METRICS, RecoveryLogStats::default().readings());
        assert_complete(define::MEMORY_METRICS, MemoryStats::default().readings());
        assert_complete(define::SINK_METRICS, SinkStats::default().readings());
        assert_complete(define::BRIDGE_METRICS, BridgeStats::default().readings());
        let losses = Directory::default().readings().filter(|r| r.kind == Kind::Counter);
        assert_complete(define::IDENTITY_METRICS, losses);
    }

    #[test]
    fn a_metric_of_several_counters_is_written_once() {
        let names = COLLECTOR_COUNTERS.chunk_by(|a, b| a.metric.name == b.metric.name);
        let mut names: Vec<&str> = names.map(|rows| rows[0].metric.name).collect();
        let written = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), written, "rows of one metric follow each other");
    }
}
