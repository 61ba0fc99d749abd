//! Renders the agent's page of metrics.

use std::time::Duration;

use super::collectors::{COLLECTOR_COUNTERS, EBPF_EMITTED, EMITTED};
use super::definitions as define;
use super::definitions::Counter;
use crate::metrics::{Page, process_metrics};
use crate::runtime::status::Status;
use tapio_collectors::{CollectorStatus, Health};
use tapio_core::ring::Snapshot;

/// The text of `/metrics`.
pub(crate) fn page(status: &Status) -> String {
    let mut page = Page::default();
    process_metrics(&mut page);
    let service: Vec<&str> = status.service.iter().map(String::as_str).collect();
    page.metric(&define::SERVICE_INFO).add(&service, 1);
    events(&mut page, &status.account());
    let collectors = status.collectors();
    collector_health(&mut page, &collectors);
    collector_counters(&mut page, &collectors);
    rules(&mut page, status);
    stories(&mut page, status);
    shards(&mut page, status);
    counters(&mut page, define::ASSESSOR_COUNTERS, status.assessor.get());
    identity(&mut page, status);
    counters(&mut page, define::RECOVERY_COUNTERS, status.recovery());
    bridge(&mut page, status);
    page.into_text()
}

/// CONS-1 by collector.
fn events(page: &mut Page, snapshot: &Snapshot) {
    let accounts = &snapshot.collectors;
    let mut received = page.metric(&define::RECEIVED);
    accounts.iter().for_each(|a| received.add(&[&a.name], a.received));
    let mut forwarded = page.metric(&define::FORWARDED);
    accounts.iter().for_each(|a| forwarded.add(&[&a.name], a.forwarded));
    let mut dropped = page.metric(&define::DROPPED);
    for account in accounts {
        for (stage, reason, events) in &account.dropped {
            dropped.add(&[&account.name, stage.as_str(), reason.as_str()], events);
        }
    }
    let mut held = page.metric(&define::HELD);
    accounts.iter().for_each(|a| held.add(&[&a.name], a.held));
    let mut residual = page.metric(&define::RESIDUAL);
    accounts.iter().for_each(|a| residual.add(&[&a.name], a.residual));
}

fn collector_health(page: &mut Page, collectors: &[CollectorStatus]) {
    let mut up = page.metric(&define::COLLECTOR_UP);
    collectors.iter().for_each(|c| up.add(&[c.name], u8::from(c.health == Health::Running)));
    let mut restarts = page.metric(&define::COLLECTOR_RESTARTS);
    collectors.iter().for_each(|c| restarts.add(&[c.name], c.restarts));
    let mut age = page.metric(&define::HEARTBEAT_AGE);
    collectors.iter().for_each(|c| age.add(&[c.name], seconds(c.silence)));
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The collectors' own counters. Those of a collector that is disabled are missing.
fn collector_counters(page: &mut Page, collectors: &[CollectorStatus]) {
    let mut emitted = page.metric(&EBPF_EMITTED);
    for (name, value) in collectors.iter().flat_map(|c| &c.counters) {
        if let Some(kind) = name.strip_prefix(EMITTED) {
            emitted.add(&[kind], value);
        }
    }
    for rows in COLLECTOR_COUNTERS.chunk_by(|a, b| a.metric.name == b.metric.name) {
        let Some(first) = rows.first() else { continue };
        let mut samples = page.metric(&first.metric);
        for row in rows {
            let collector = collectors.iter().find(|c| c.name == row.collector);
            let counter =
                collector.and_then(|c| c.counters.iter().find(|(name, _)| name == row.counter));
            if let Some((_, value)) = counter {
                samples.add(row.label.as_slice(), value);
            }
        }
    }
}

fn rules(page: &mut Page, status: &Status) {
    page.value(&define::RULES, status.rules.rules());
    let (done, refused) = status.rules.reloads();
    let mut reloads = page.metric(&define::RELOADS);
    reloads.add(&["done"], done);
    reloads.add(&["refused"], refused);
}

fn stories(page: &mut Page, status: &Status) {
    let mut emitted = page.metric(&define::STORIES);
    for (pattern, severity, stories) in status.assessor.stories_emitted() {
        emitted.add(&[&pattern, severity], stories);
    }
}

fn shards(page: &mut Page, status: &Status) {
    let all: Vec<Vec<(&str, u64)>> =
        status.shards.iter().map(|s| s.readings().map(|r| (r.name, r.value)).collect()).collect();
    for counter in define::SHARD_COUNTERS {
        let mut samples = page.metric(&counter.metric);
        for (number, counters) in all.iter().enumerate() {
            if let Some((_, value)) = counters.iter().find(|(name, _)| *name == counter.counter) {
                samples.add(&[&number.to_string()], value);
            }
        }
    }
}

fn identity(page: &mut Page, status: &Status) {
    let values = status.directory.counters();
    let mut entries = page.metric(&define::IDENTITY_ENTRIES);
    for (name, value) in values.iter().filter(|(n, _)| define::IDENTITY_TABLES.contains(n)) {
        entries.add(&[name], value);
    }
    counters(page, define::IDENTITY_COUNTERS, values.into_iter());
}

/// Writes a component's counters, each as its metric.
fn counters(
    page: &mut Page,
    definitions: &[Counter],
    values: impl Iterator<Item = (&'static str, u64)>,
) {
    for (name, value) in values {
        if let Some(counter) = definitions.iter().find(|c| c.counter == name) {
            page.value(&counter.metric, value);
        }
    }
}

fn bridge(page: &mut Page, status: &Status) {
    let bridge = status.bridge.status();
    page.value(&define::CONNECTED, u8::from(bridge.connected));
    for (metric, value) in [
        (&define::CONNECTIONS, bridge.connects),
        (&define::CONNECTION_FAILURES, bridge.failed_connects),
        (&define::BATCHES_SENT, bridge.batches_sent),
        (&define::BATCHES_RESENT, bridge.batches_resent),
        (&define::BATCHES_ACKED, bridge.batches_acked),
        (&define::BYTES_SENT, bridge.bytes_sent),
        (&define::EVENTS_ACKED, bridge.events_acked),
        (&define::STORIES_ACKED, bridge.stories_acked),
        (&define::EVENTS_REFUSED, bridge.events_refused),
        (&define::QUEUE_BYTES, bridge.queue_bytes),
    ] {
        page.value(metric, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use tapio_core::identity::Directory;
    use tapio_dataflow::WorkerStats;
    use tapio_dataflow::evidence::AssessorStats;

    /// Every counter has exactly one metric, so that none is missing from the page.
    #[track_caller]
    fn assert_defined<'a>(definitions: &[Counter], counters: impl Iterator<Item = &'a str>) {
        let defined: BTreeSet<&str> = definitions.iter().map(|c| c.counter).collect();
        assert_eq!(defined, counters.collect::<BTreeSet<_>>());
    }

    #[test]
    fn every_counter_has_a_metric() {
        assert_defined(define::SHARD_COUNTERS, WorkerStats::default().readings().map(|r| r.name));
        assert_defined(define::ASSESSOR_COUNTERS, AssessorStats::default().get().map(|(n, _)| n));
        let recovery = crate::runtime::RecoveryLogStats::default();
        assert_defined(define::RECOVERY_COUNTERS, recovery.get().map(|(n, _)| n));
        let directory = Directory::default().counters();
        let (tables, others): (Vec<_>, Vec<_>) =
            directory.iter().map(|(n, _)| *n).partition(|n| define::IDENTITY_TABLES.contains(n));
        assert_eq!(tables, define::IDENTITY_TABLES);
        assert_defined(define::IDENTITY_COUNTERS, others.into_iter());
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
