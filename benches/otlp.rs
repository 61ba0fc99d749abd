//! Requests of OTLP on one core: `cargo bench --bench otlp`.
//!
//! A request has 500 log records of 197 bytes with 8 attributes. `decode` reads them; `events`
//! builds their events, removes secrets, routes them by the built-in rules and writes them into a
//! ring; `pass` decides that none of them has to be an event, and writes them as they came.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tapio_collectors::otlp::Requests;
use tapio_collectors::{Context, Site, StatusReport};
use tapio_core::event::Stage;
use tapio_core::ring::{Bell, Ledger, OnFull, Router, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::rules::{LiveRules, RuleSet, builtin};
use tapio_wire::{OtlpSignal, otlp_logs};

const RECORDS: u64 = 500;

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    pair(key, Value::StringValue(value))
}

fn number(key: &str, value: u64) -> KeyValue {
    pair(key, Value::IntValue(value as i64))
}

fn record(n: u64) -> LogRecord {
    let names = ["nginx", "postgres", "java", "kubelet", "python3", "envoy", "redis", "sshd"];
    let calls = ["openat", "read", "write", "connect", "accept4", "execve", "close", "fsync"];
    let one_of = |all: [&str; 8], at: u64| all[(at % 8) as usize].to_owned();
    // The golden ratio spreads the numbers.
    let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_001 + n,
        observed_time_unix_nano: 1_700_000_000_000_000_002 + n,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!("request {spread:016x} done"))),
        }),
        attributes: vec![
            text("comm", one_of(names, spread >> 8)),
            number("pid", spread >> 16 & 0x7fff),
            text("op", one_of(calls, spread >> 24)),
            text("path", format!("/var/lib/{:04x}", spread >> 32 & 0xffff)),
            number("ret", spread >> 40 & 0xff),
            number("dur_us", spread >> 44),
            text("pod", format!("pod-{:05}", spread % 200)),
            text("ns", format!("team-{}", spread % 16)),
        ],
        ..LogRecord::default()
    }
}

fn request() -> Bytes {
    let scope = InstrumentationScope {
        name: "bench".into(),
        version: "1".into(),
        ..InstrumentationScope::default()
    };
    let attributes = ["service.name", "host.name", "k8s.node.name"];
    let attributes = attributes.map(|key| text(key, "node-1".into())).to_vec();
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records: (0..RECORDS).map(record).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec().into()
}

fn otlp(c: &mut Criterion) {
    let request = request();
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
