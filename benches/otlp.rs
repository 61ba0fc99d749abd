//! Requests of OTLP on one core: `cargo bench --bench otlp`.
//!
//! A request has 500 log records of 197 bytes with 8 attributes. `decode` reads them; `events`
//! builds their events, removes secrets, routes them by the built-in rules and writes them into a
//! ring; `pass` decides that none of them has to be an event, and writes them as they came.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "otlp/request.rs"]
mod request;

use std::hint::black_box;
use std::sync::{Arc, OnceLock};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapio_collectors::otlp::Requests;
use tapio_collectors::{Context, Site, StatusReport};
use tapio_core::event::Stage;
use tapio_core::ring::{Bell, Ledger, OnFull, Router, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::rules::{LiveRules, RuleSet, builtin};
use tapio_wire::{OtlpSignal, otlp_logs};

const RECORDS: u64 = 500;

fn otlp(c: &mut Criterion) {
    let request = request::request(RECORDS);
    let mut group = c.benchmark_group("otlp");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut seen = 0;
            otlp_logs(&request, |_, _, record| seen += black_box(record).time_ns & 1).unwrap();
            seen
        });
    });
    let rules = Arc::new(RuleSet::new(builtin().rules, "", 1));
    let live = LiveRules::new(Arc::clone(&rules));
    // Nothing is learned from the records.
    live.sampling().stop();
    let routers: [(&str, Arc<dyn Router>); 2] = [("events", rules), ("pass", Arc::new(live))];
    for (name, router) in routers {
        let mut ledger = Ledger::new(vec!["otlp".into()]);
        let (writer, mut reader) = ring(1 << 14);
        let shutdown = Shutdown::default();
        let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
        let stage = ledger.stage(Stage::Collect);
        let sink = Sink::new(0, OnFull::Drop, router, shards, stage, shutdown.clone());
        let mut context =
            Context::new(sink, shutdown, StatusReport::default(), Site::new("node", 7));
        let mut requests = Requests::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                assert_eq!(requests.process(OtlpSignal::Logs, &request, &mut context), Some(0));
                let mut events = 0;
                reader.drain(usize::MAX, |record| {
                    events += u64::from(record.events());
                    true
                });
                assert_eq!(events, RECORDS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, otlp);
criterion_main!(benches);
