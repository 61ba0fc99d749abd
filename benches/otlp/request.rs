//! OTLP requests like those of a load generator.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

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

/// A request of log records of 197 bytes with 8 attributes each.
pub(crate) fn request(records: u64) -> Bytes {
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
                log_records: (0..records).map(record).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec().into()
}
