//! Requests that are built once and patched for each send, so that the generator's cost is small
//! beside the measured pipeline's.

use std::sync::{Mutex, PoisonError};

use bytes::BufMut;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

/// A record's `observed_time_unix_nano` is this plus its sequence number: a time long ago, which
/// no other record has.
pub(super) const SEQUENCE_BASE: u64 = 1_700_000_000_000_000_000;
/// Values of the patched fields in the built request, which occur nowhere else in it.
const TIME_MARK: u64 = 0x7469_6d65_f1f2_f3f4;
const SEQUENCE_MARK: u64 = 0x7365_7175_f5f6_f7f8;
/// Templates, sent in turn: over all of them the share of relevant records is exact.
const TEMPLATES: usize = 16;
/// The attribute that the generated rules ask for.
pub const STEP_ATTRIBUTE: &str = "app.step";
/// The attribute that joins the generated rules' steps.
pub const KEY_ATTRIBUTE: &str = "app.instance";
/// Number of distinct values of [`STEP_ATTRIBUTE`] that are relevant to generated rules.
pub const STEPS: usize = 100;

/// The contents of the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TemplateConfig {
    /// Records per request.
    pub(super) records: usize,
    /// The share of records that are relevant to a rule, 0 to 1.
    pub(super) match_share: f64,
    /// Number of distinct values of [`KEY_ATTRIBUTE`].
    pub(super) keys: u64,
}

/// A request to patch.
pub(super) struct Template {
    /// Offsets of the patched fields, by record: time and sequence.
    offsets: Box<[(usize, usize)]>,
    /// The request as it was sent last. One thread sends, so the lock is never waited for.
    bytes: Mutex<Vec<u8>>,
}

impl Template {
    /// Records in the request.
    pub(super) fn records(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// Size of the request.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Writes the request of records from `sequence` on, all due at `time_ns` (wall clock).
    pub(super) fn write(&self, time_ns: u64, sequence: u64, to: &mut impl BufMut) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let time = time_ns.to_le_bytes();
        for (number, &(at_time, at_sequence)) in (SEQUENCE_BASE + sequence..).zip(&self.offsets) {
            bytes[at_time..at_time + 8].copy_from_slice(&time);
            bytes[at_sequence..at_sequence + 8].copy_from_slice(&number.to_le_bytes());
        }
        to.put_slice(&bytes);
    }
}

/// Builds the templates, to be sent in turn.
pub(super) fn templates(config: &TemplateConfig) -> Vec<Template> {
    let mut builder =
        Builder { config: *config, due: 0.0, steps: 0, random: 0x9e37_79b9_7f4a_7c15 };
    (0..TEMPLATES).map(|_| builder.template()).collect()
}

struct Builder {
    config: TemplateConfig,
    /// Relevant records that are due.
    due: f64,
    /// Relevant records built.
    steps: usize,
    random: u64,
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, Value::StringValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

impl Builder {
    /// A pseudo-random number (xorshift64), the same in every run.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The next value of [`STEP_ATTRIBUTE`]: relevant ones in their share, evenly distributed.
    fn step(&mut self) -> String {
        self.due += self.config.match_share;
        if self.due < 1.0 - 1e-9 {
            return "none".into();
        }
        self.due -= 1.0;
        self.steps += 1;
        format!("s{:03}", (self.steps - 1) % STEPS)
    }

    fn record(&mut self) -> LogRecord {
        let random = self.next();
        let number =
            |shift: u32, mask: u64| Value::IntValue((random >> shift & mask).cast_signed());
        let routes = ["/cart", "/item", "/user", "/auth"];
        let methods = ["GET", "PUT"];
        let key = self.next() % self.config.keys.max(1);
        let attributes = vec![
            text(STEP_ATTRIBUTE, self.step()),
            text(KEY_ATTRIBUTE, format!("i-{key:06}")),
            text("method", methods[(random & 1) as usize].into()),
            text("route", routes[(random >> 1 & 3) as usize].into()),
            attribute("status", Value::IntValue(200)),
            attribute("bytes", number(8, 0x3fff)),
            attribute("usec", number(24, 0xf_ffff)),
            attribute("worker", number(48, 0x7f)),
        ];
        LogRecord {
            time_unix_nano: TIME_MARK,
            observed_time_unix_nano: SEQUENCE_MARK,
            severity_number: 9,
            severity_text: "INFO".into(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(format!("handled {:016x}", self.next()))),
            }),
            attributes,
            ..LogRecord::default()
        }
    }

    fn template(&mut self) -> Template {
        let log_records = (0..self.config.records).map(|_| self.record()).collect();
        let scope =
            InstrumentationScope { name: "bench".into(), ..InstrumentationScope::default() };
        let scope = ScopeLogs { scope: Some(scope), log_records, schema_url: String::new() };
        let resource = Resource {
            attributes: vec![
                text("service.name", "bench".into()),
                text("host.name", "bench".into()),
            ],
            ..Resource::default()
        };
        let logs = ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![scope],
            ..Default::default()
        };
        let bytes = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
        let (times, sequences) = (places(&bytes, TIME_MARK), places(&bytes, SEQUENCE_MARK));
        Template { offsets: times.into_iter().zip(sequences).collect(), bytes: Mutex::new(bytes) }
    }
}

/// The offsets of a fixed64 field with this value.
fn places(bytes: &[u8], mark: u64) -> Vec<usize> {
    let mark = mark.to_le_bytes();
    let found = bytes.windows(8).enumerate().filter(|(_, window)| *window == mark);
    found.map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patched_request_decodes_to_the_patched_values() {
        let config = TemplateConfig { records: 50, match_share: 0.1, keys: 7 };
        let mut relevant = 0;
        for (i, template) in templates(&config).iter().enumerate() {
            assert_eq!(template.records(), 50);
            let first = 1_000 + 50 * i as u64;
            let mut bytes = Vec::new();
            // A request is patched again after it was sent.
            template.write(1, 2, &mut Vec::new());
            template.write(123_456_789, first, &mut bytes);
            assert_eq!(bytes.len(), template.len_bytes());
            let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
            let records = &request.resource_logs[0].scope_logs[0].log_records;
            assert_eq!(records.len(), 50);
            for (sequence, record) in (first..).zip(records) {
                assert_eq!(record.time_unix_nano, 123_456_789);
                assert_eq!(record.observed_time_unix_nano, SEQUENCE_BASE + sequence);
                assert_eq!(record.attributes.len(), 8);
                let step = record.attributes.iter().find(|a| a.key == STEP_ATTRIBUTE).unwrap();
                relevant += u32::from(format!("{step:?}").contains("\"s0"));
            }
        }
        assert_eq!(relevant, 80, "a tenth of 16 × 50");
    }

    #[test]
    fn record_has_the_size_of_the_reference_measurements() {
        let config = TemplateConfig { records: 500, match_share: 0.01, keys: 1_000 };
        for template in templates(&config) {
            let bytes_per_record = template.len_bytes() as f64 / 500.0;
            assert!((bytes_per_record - 197.0).abs() < 1.0, "{bytes_per_record}");
        }
    }
}
