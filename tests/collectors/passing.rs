//! Log records that pass as they came become the same events as records that an agent decodes, and
//! none that a rule matches passes.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, OnceLock};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value as Json;
use tapio_collectors::otlp::Requests;
use tapio_collectors::{Context, Site, StatusReport};
use tapio_core::event::{EventId, Severity, Stage, names};
use tapio_core::ring::{Bell, Ledger, OnFull, RecordReader, Router, Sink, ring};
use tapio_core::shutdown::Shutdown;
use tapio_dataflow::rules::{LiveRules, Loaded, Outcomes, RuleSet, builtin};
use tapio_wire::{BatchEncoder, OtlpSignal, batch_json, log_ids};

const NODE: &str = "node-a";
const RULE: &str = "rule: slow-jobs
events:
  slow: { kind: otlp.log, attributes.job.seconds: { gt: 30 } }
count: { event: slow, within: 1m, at_least: 1 }
story: { pattern: slow-jobs }
---
rule: melted-disks
events:
  melted: { kind: otlp.log, message: { contains: disk melted } }
count: { event: melted, within: 1m, at_least: 1 }
story: { pattern: melted-disks }
---
rule: failed-jobs
events:
  failed: { kind: otlp.log, attributes.job.state: [failed, lost, 7] }
  nightly: { kind: otlp.log, attributes.job.name: { prefix: nightly- }, attributes.job.retried: true }
sequence: { within: 1m, steps: [{ event: failed }, { event: nightly }] }
story: { pattern: failed-jobs }
";

fn rules() -> Arc<RuleSet> {
    static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
        let mut loaded = Loaded::default();
        loaded.text("test.yaml", RULE);
        assert_eq!(loaded.errors, []);
        Arc::new(RuleSet::new([builtin().rules, loaded.rules].concat(), "", 1))
    });
    Arc::clone(&RULES)
}

/// The collector's side of a pipeline, and the rings behind it.
struct Door {
    requests: Requests,
    context: Context,
    ledger: Ledger,
    reader: RecordReader,
    encoder: BatchEncoder,
}

/// The result of a request.
struct Received {
    /// Its events, as a server has them.
    events: Vec<Json>,
    /// Ids of those that passed as they came.
    passed: HashSet<EventId>,
    /// Ids of those that a rule matches, or that are warnings.
    needed: HashSet<EventId>,
    rejected: Option<u64>,
}

impl Door {
    fn new(router: Arc<dyn Router>) -> Self {
        let mut ledger = Ledger::new(vec!["otlp".into()]);
        let (writer, reader) = ring(1 << 14);
        let shutdown = Shutdown::default();
        let shards = vec![(writer, Arc::new(Bell::new(OnceLock::new())))];
        let stage = ledger.stage(Stage::Collect);
        let sink = Sink::new(0, OnFull::Drop, router, shards, stage, shutdown.clone());
        let context = Context::new(sink, shutdown, StatusReport::default(), Site::new(NODE, 7));
        let encoder = BatchEncoder::new(NODE, 1, 1 << 20);
        Self { requests: Requests::default(), context, ledger, reader, encoder }
    }

    fn receive(&mut self, request: &[u8], rules: &RuleSet) -> Received {
        let before = self.ledger.snapshot().total.received;
        let rejected = self.requests.process(OtlpSignal::Logs, request, &mut self.context);
        let (mut passed, mut needed) = (HashSet::new(), HashSet::new());
        let (mut outcomes, mut events) = (Outcomes::default(), 0);
        let Self { reader, encoder, .. } = self;
        reader.drain(usize::MAX, |record| {
            events += u64::from(record.events());
            if let Some(block) = record.log_block() {
                passed.extend(log_ids(NODE, block).map(|(id, _)| id));
            }
            if let Some(event) = record.event() {
                rules.plan(names::OTLP_LOG).evaluate(event, &mut outcomes);
                if !outcomes.relevant.is_empty() || event.severity() >= Severity::WARN {
                    needed.insert(event.event_id());
                }
            }
            encoder.append(record);
            true
        });
        let received = self.ledger.snapshot().total.received - before;
        assert_eq!(received, events + rejected.unwrap_or(1));
        let batch = encoder.finish();
        let (items, broken) =
            batch.as_ref().map_or((Vec::new(), 0), |batch| batch_json(&batch.message()).unwrap());
        assert_eq!((broken, items.len() as u64), (0, events));
        if let Some(batch) = &batch {
            assert_eq!(u64::from(batch.events), events);
        }
        // When it was received differs from run to run.
        let events = items.into_iter().map(|(_, mut event)| {
            let has_own_time = event["time"].as_str().unwrap().starts_with("2026-01-15");
            let fields = event.as_object_mut().unwrap();
            fields.remove("observed");
            fields.retain(|name, _| has_own_time || name != "time");
            event
        });
        Received { events: events.collect(), passed, needed, rejected }
    }
}

/// A door at which every record becomes an event, and one at which records can pass.
fn doors() -> (Arc<RuleSet>, Door, Door) {
    let rules = rules();
    let live = LiveRules::new(Arc::clone(&rules));
    // Nothing is learned from the records.
    live.sampling().stop();
    (Arc::clone(&rules), Door::new(rules), Door::new(Arc::new(live)))
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn body(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text.into())) })
}

const TIME_NS: u64 = 1_768_471_200_123_456_789;

fn request(
    attributes: Vec<KeyValue>,
    scope: InstrumentationScope,
    logs: Vec<LogRecord>,
) -> Vec<u8> {
    let scope_logs =
        vec![ScopeLogs { scope: Some(scope), log_records: logs, ..ScopeLogs::default() }];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let of_resource = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![of_resource] }.encode_to_vec()
}

fn plain(n: u64) -> LogRecord {
    LogRecord {
        time_unix_nano: TIME_NS + n,
        observed_time_unix_nano: TIME_NS + n + 5,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: body(&format!("order {n} shipped")),
        attributes: vec![text("comm", "nginx"), pair("pid", Value::IntValue(n as i64))],
        ..LogRecord::default()
    }
}

#[test]
fn ordinary_records_pass_and_others_become_events() {
    let (rules, mut decoding, mut passing) = doors();
    let mut logs: Vec<LogRecord> = (0..200).map(plain).collect();
    logs[10].severity_number = 17;
    logs[20].body = body("sda1: disk melted");
    logs[30].attributes.push(pair("job.seconds", Value::IntValue(31)));
    logs[31].attributes.push(pair("job.seconds", Value::IntValue(30)));
    logs[32].attributes.push(text("job.seconds", "31"));
    logs[33].attributes.push(text("job.state", "done"));
    logs[34].attributes.push(text("job.name", "nightly-backup"));
    logs[100].attributes.push(text("job.state", "failed"));
    logs[110].attributes.push(pair("job.state", Value::DoubleValue(7.0)));
    logs[40].body = body("login with password=hunter2secret");
    logs[45].attributes.push(text("route", "/auth/token"));
    logs[50].attributes.push(text("access.key", "AKxyz123"));
    logs[60].attributes.push(text("k8s.pod.name", "web-1"));
    logs[70] = logs[69].clone();
    logs[80].attributes.push(text("note", "caf\u{e9}"));
    logs[90].body = body("caf\u{e9}");
    let others: Vec<usize> = (1..=7).map(|n| n * 10).chain([90, 100, 110]).collect();
    let resource = vec![text("service.name", "shop"), text("deployment.environment", "test")];
    let bytes = request(resource, InstrumentationScope::default(), logs);
    let (decoded, passed) = (decoding.receive(&bytes, &rules), passing.receive(&bytes, &rules));
    assert_eq!(decoded.events, passed.events);
    assert_eq!((decoded.rejected, passed.rejected), (Some(0), Some(0)));
    for (at, event) in passed.events.iter().enumerate() {
        let id: EventId = event["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(passed.passed.contains(&id), !others.contains(&at), "{at}: {event}");
    }
    assert_eq!(passed.passed.len(), 200 - others.len());
    let all = serde_json::to_string(&passed.events).unwrap();
    assert!(!all.contains("hunter2secret") && !all.contains("AKxyz123"));
    assert!(!decoded.needed.is_empty());
}

#[test]
fn resources_that_a_rule_names_become_events() {
    let (rules, _, mut passing) = doors();
    let logs: Vec<LogRecord> = (0..100).map(plain).collect();
    for (attributes, expected) in [
        (vec![text("service.name", "shop")], 100),
        // The job's duration is the resource's.
        (vec![text("service.name", "shop"), pair("job.seconds", Value::IntValue(31))], 0),
        (vec![text("service.name", "shop"), pair("job.seconds", Value::IntValue(30))], 100),
        (vec![text("service.name", "shop"), text("job.state", "lost")], 0),
        (vec![text("service.name", "shop"), text("db.password", "hunter2")], 0),
        (vec![text("k8s.pod.uid", "p-1")], 100),
    ] {
        let bytes = request(attributes.clone(), InstrumentationScope::default(), logs.clone());
        let received = passing.receive(&bytes, &rules);
        assert_eq!(
            (received.events.len(), received.passed.len()),
            (100, expected),
            "{attributes:?}"
        );
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z ]{0,30}",
        1 => "[a-zé\u{212a}]{0,8}",
        1 => prop::sample::select(vec!["failed", "lost", "nightly-", "nightly-x", "7", "true"])
            .prop_map(String::from),
        1 => prop::sample::select(vec![
            "sda1: disk melted",
            "dial tcp: lookup db.shop on 10.0.0.10:53: no such host",
            "pods is forbidden: User \"u\" cannot list resource \"pods\"",
            "x509: certificate has expired or is not yet valid",
            "[FATAL] plugin/loop: Loop (127.0.0.1:1 -> :53) detected for zone",
            "password=hunter2secret",
            "curl https://user:pass@host/",
            "Authorization: Bearer abcdef0123456789abcdef",
            "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHU0",
        ]).prop_map(String::from),
    ]
}

fn any_value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        4 => any_text().prop_map(|text| Some(Value::StringValue(text))),
        2 => any::<i64>().prop_map(|n| Some(Value::IntValue(n))),
        1 => (0..40i64).prop_map(|n| Some(Value::IntValue(n))),
        1 => Just(Some(Value::DoubleValue(7.0))),
        1 => (-1e6..1e6).prop_map(|n| Some(Value::DoubleValue(n))),
        1 => any::<bool>().prop_map(|b| Some(Value::BoolValue(b))),
        1 => any_text().prop_map(|text| {
            let values = vec![AnyValue { value: Some(Value::StringValue(text)) }];
            Some(Value::ArrayValue(ArrayValue { values }))
        }),
        1 => Just(None),
    ]
}

fn any_attributes(most: usize) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop::sample::select(vec![
        "comm",
        "pid",
        "path",
        "job.seconds",
        "job.state",
        "job.state",
        "job.name",
        "job.retried",
        "http.route",
        "k8s.pod.name",
        "service.name",
        "node",
        "access.key",
        "session.token",
        "process.command_line",
        "",
        "tapio.x",
        "exception.type",
    ]);
    let any = (key, any_value()).prop_map(|(key, value)| KeyValue {
        key: key.into(),
        value: value.map(|value| AnyValue { value: Some(value) }),
        ..KeyValue::default()
    });
    prop::collection::vec(any, 0..most)
}

fn any_log() -> impl Strategy<Value = LogRecord> {
    let time = || prop::sample::select(vec![0, TIME_NS, TIME_NS + 77, 1_768_471_200_000_000_000]);
    let shape = (time(), time(), 0..20i32, any::<bool>(), any_text(), any_attributes(3));
    let rare = (any_value(), 0..4u32, any::<bool>(), 0..30u8);
    (shape, rare).prop_map(|((time, observed, severity, has_text, message, more), rare)| {
        let (value, dropped, has_trace, which) = rare;
        let mut log = plain(time % 1000);
        log.time_unix_nano = time;
        log.observed_time_unix_nano = observed;
        if which < 10 {
            log.severity_number = severity;
        }
        if !has_text {
            log.severity_text.clear();
        }
        if which != 20 {
            log.body = body(&message);
        }
        match which {
            11 => log.body = value.map(|value| AnyValue { value: Some(value) }),
            12 => log.dropped_attributes_count = dropped,
            13 => log.event_name = "checkout".into(),
            14 => log.body = None,
            15 => log.flags = 1,
            16..20 => log.attributes.extend(more),
            _ => {}
        }
        if has_trace {
            log.trace_id = vec![0xab; 16];
            log.span_id = vec![0xcd; 8];
        }
        log
    })
}

fn any_scope() -> impl Strategy<Value = InstrumentationScope> {
    (any::<bool>(), any_attributes(3), 0..3u8).prop_map(|(is_named, attributes, which)| {
        InstrumentationScope {
            name: if is_named { "lib".into() } else { String::new() },
            version: if is_named { "1.2".into() } else { String::new() },
            attributes: if which == 0 { attributes } else { Vec::new() },
            dropped_attributes_count: u32::from(which == 1),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn passed_records_become_the_same_events(
        attributes in any_attributes(4),
        scope in any_scope(),
        mut logs in prop::collection::vec(any_log(), 60..120),
        repeated in prop::collection::vec(0..60usize, 0..4),
    ) {
        for at in repeated {
            let copy = logs[at].clone();
            logs.insert(at, copy);
        }
        let (rules, mut decoding, mut passing) = doors();
        let bytes = request(attributes, scope, logs);
        let (decoded, passed) = (decoding.receive(&bytes, &rules), passing.receive(&bytes, &rules));
        // Those without an id of their own are numbered as they arrive.
        prop_assert_eq!(decoded.events.len(), passed.events.len());
        for (decoded, passed) in decoded.events.iter().zip(&passed.events) {
            let (mut decoded, mut passed) = (decoded.clone(), passed.clone());
            let has_own_id = |event: &Json| !event["id"].as_str().unwrap().starts_with("0200000000000007");
            if !has_own_id(&decoded) {
                decoded.as_object_mut().unwrap().remove("id");
                passed.as_object_mut().unwrap().remove("id");
            }
            prop_assert_eq!(decoded, passed);
        }
        prop_assert!(decoded.needed.is_disjoint(&passed.passed));
    }
}
