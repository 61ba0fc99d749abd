//! A batch whose blocks are taken apart: an event for each of their records, the same as an agent
//! makes that decodes them itself.

use std::collections::HashMap;

use bytes::Bytes;

use crate::decode::{Batch, Item, MAX_BATCH_BYTES};
use crate::otlp::{OtlpAttributes, OtlpRecord, OtlpScope, OtlpValue};
use crate::otlp_raw::{OtlpRawLogs, otlp_block};
use crate::proto;
use crate::proto_vec::ProtoVec;
use crate::raw_log_block::{LogBlockView, RawLogBlock};
use crate::reader::{WireCause, WireError};
use tapio_core::event::{
    ArchivedLogBlock, ClockQuality, EventId, Severity, Value, names, stable_hash,
};

/// The batch with an event for each record of its blocks; `None` if it has no block.
///
/// # Errors
/// When a block isn't valid, or the events would be larger than a batch may be.
pub fn expanded(batch: &Batch<'_>) -> Result<Option<Bytes>, WireError> {
    if batch.log_blocks == 0 {
        return Ok(None);
    }
    let mut expansion = Expansion {
        out: ProtoVec::default(),
        node: batch.head.node,
        names: Names::of(batch.names()),
    };
    for item in batch.items() {
        match item {
            Item::Event(event) => expansion.out.delimited(6, event.reader().rest()),
            Item::Story(bytes) => expansion.out.delimited(7, bytes),
            Item::LogBlock(block) => expansion.block(block)?,
        }
    }
    let Expansion { mut out, names, .. } = expansion;
    names.texts.iter().for_each(|name| out.delimited(5, name.as_bytes()));
    let head = proto::EventBatch {
        first_sequence: batch.head.first_sequence,
        count: batch.head.count,
        node: batch.head.node.to_owned(),
        epoch: batch.head.epoch,
        collector_events: batch.collector_events().collect(),
        ..Default::default()
    };
    let mut bytes = prost::Message::encode_to_vec(&head);
    bytes.append(&mut out.0);
    Ok(Some(bytes.into()))
}

/// The id of the event of a log record, which it has wherever it is sent again. `repeats`: how
/// often the same record came just before in its request.
#[must_use]
pub fn log_id(node: &str, resource_digest: &[u8], record: &[u8], repeats: u32) -> EventId {
    let parts = [b"otlp", node.as_bytes(), resource_digest, record, &repeats.to_le_bytes()];
    EventId(stable_hash(&parts))
}

/// The ids of the events of a block, and its records, each as field 2.
pub fn log_ids<'a>(
    node: &'a str,
    block: &'a ArchivedLogBlock<'_>,
) -> impl Iterator<Item = (EventId, &'a [u8])> {
    let mut records = OtlpRawLogs::of(&block.encoded);
    std::iter::from_fn(move || {
        let record = records.next_log().ok()??;
        Some((log_id(node, &block.resource_digest, record.encoded, 0), record.framed))
    })
}

/// The names of a batch, with those that are added.
struct Names<'a> {
    texts: Vec<&'a str>,
    indexes: HashMap<&'a str, u64, ahash::RandomState>,
}

impl<'a> Names<'a> {
    fn of(texts: &[&'a str]) -> Self {
        let mut names = Self { texts: texts.to_vec(), indexes: HashMap::default() };
        for (index, text) in (0..).zip(texts) {
            names.indexes.entry(text).or_insert(index);
        }
        names
    }

    fn index(&mut self, text: &'a str) -> u64 {
        *self.indexes.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64 - 1
        })
    }
}

struct Expansion<'a> {
    out: ProtoVec,
    node: &'a str,
    names: Names<'a>,
}

impl<'a> Expansion<'a> {
    fn block(&mut self, raw: RawLogBlock<'a>) -> Result<(), WireError> {
        let block = raw.read()?;
        let error = |cause| raw.reader().error(cause);
        let (mut found, mut is_too_large) = (0, false);
        let invalid = otlp_block(block.scope, block.encoded, |scope, record| {
            found += 1;
            if self.out.0.len() < MAX_BATCH_BYTES {
                self.event(&block, scope, record);
            } else {
                is_too_large = true;
            }
        })?;
        if is_too_large || self.out.0.len() > MAX_BATCH_BYTES {
            return Err(error(WireCause::TooMany("bytes in the events of log records")));
        }
        if invalid > 0 || found != block.records {
            return Err(error(WireCause::Count { count: block.records, found }));
        }
        Ok(())
    }

    fn event(&mut self, block: &LogBlockView<'a>, scope: &OtlpScope<'a>, record: &OtlpRecord<'a>) {
        let id = log_id(self.node, block.resource_digest, record.encoded, 0);
        let Self { out, names, .. } = self;
        out.message(6, |out| {
            let times = [record.time_ns, record.observed_ns, block.observed_ns];
            out.fixed64(1, times.into_iter().find(|t| *t > 0).unwrap_or(0));
            out.fixed64(2, block.observed_ns);
            out.delimited(3, &id.0);
            out.any_number(4, names.index(names::OTLP_LOG.text()));
            out.any_number(5, names.index(names::OTLP.text()));
            let severity = if record.severity > 0 { record.severity } else { Severity::INFO.0 };
            out.number(6, severity.min(24).into());
            out.number(7, ClockQuality::Micros as u64);
            trace_context(out, block, record, id);
            if let OtlpValue::Text(text) = record.body {
                out.bytes(10, text.as_bytes());
            }
            block.entities.iter().for_each(|(key, value)| field(out, 11, *key, value));
            attributes(out, names, block, (scope, record));
        });
    }
}

/// Writes the trace of the entity's lifecycle, or the one that the record came with; and the latter
/// where it was replaced.
fn trace_context(
    out: &mut ProtoVec,
    block: &LogBlockView<'_>,
    record: &OtlpRecord<'_>,
    id: EventId,
) {
    let has_own = record.trace_id != [0; 16];
    if block.trace != [0; 16] {
        out.delimited(8, &block.trace);
        out.delimited(9, &id.span());
        if has_own && record.trace_id != block.trace {
            out.delimited(14, &record.trace_id);
            if record.span_id != [0; 8] {
                out.delimited(15, &record.span_id);
            }
        }
        return;
    }
    if has_own {
        out.delimited(8, &record.trace_id);
    }
    if record.span_id != [0; 8] {
        out.delimited(9, &record.span_id);
    }
}

/// Writes the attributes of a record: its own ones, those of its scope, those of its resource.
fn attributes<'a>(
    out: &mut ProtoVec,
    names: &mut Names<'a>,
    block: &LogBlockView<'a>,
    (scope, record): (&OtlpScope<'a>, &OtlpRecord<'a>),
) {
    let mut number = 0u64;
    let mut write = |out: &mut ProtoVec, names: &mut Names<'a>, key: &'a str, value: Value<'_>| {
        field(out, 12, names.index(key), &value);
        number += 1;
    };
    let own = [
        (names::OTEL_EVENT_NAME, record.name),
        (names::OTEL_SCOPE_NAME, scope.name),
        (names::OTEL_SCOPE_VERSION, scope.version),
    ];
    for (at, (key, text)) in own.into_iter().enumerate() {
        if !text.is_empty() {
            write(out, names, key.text(), Value::Str(text));
        }
        if at == 0 && record.observed_ns > 0 {
            let observed_ns = i64::try_from(record.observed_ns).unwrap_or(i64::MAX);
            write(out, names, names::OTEL_OBSERVED_TIME_NS.text(), Value::Int(observed_ns));
        }
    }
    for (key, value) in record.attributes.list.iter().chain(&scope.attributes.list) {
        let json;
        let value = match value {
            OtlpValue::Empty | OtlpValue::Text("") => continue,
            OtlpValue::Text(text) => Value::Str(text),
            OtlpValue::Bool(b) => Value::Bool(*b),
            OtlpValue::Int(n) => Value::Int(*n),
            OtlpValue::Float(n) => Value::Float(*n),
            OtlpValue::Nested(_) => {
                json = value.json().to_string();
                Value::Json(&json)
            }
        };
        write(out, names, key, value);
    }
    let of_resource = number;
    block.attributes.iter().for_each(|(key, value)| field(out, 12, *key, value));
    let dropped = [&record.attributes, &scope.attributes].map(OtlpAttributes::dropped);
    let dropped = dropped.into_iter().sum::<u64>() + block.dropped_attributes;
    if dropped > 0 {
        let key = names.index(names::OTEL_DROPPED_ATTRIBUTES_COUNT.text());
        let dropped = dropped.min(u32::MAX.into()) as i64;
        field(out, 12, key, &Value::Int(dropped));
    }
    if !block.attributes.is_empty() {
        let range = [of_resource, block.attributes.len() as u64].map(|n| n.min(0xff));
        out.number(16, range[0] << 8 | range[1]);
    }
}

/// Writes a `Field`.
fn field(out: &mut ProtoVec, number: u32, key: u64, value: &Value<'_>) {
    out.message(number, |out| {
        out.any_number(1, key);
        match *value {
            Value::Str(text) => out.delimited(2, text.as_bytes()),
            Value::Int(n) => out.any_number(3, ((n << 1) ^ (n >> 63)) as u64),
            Value::Float(n) => out.double(4, n),
            Value::Bool(b) => out.any_number(5, b.into()),
            Value::Json(text) => out.delimited(6, text.as_bytes()),
            Value::Null => out.any_number(7, 1),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log record with this body.
    fn record(body: &str) -> Vec<u8> {
        let mut out = ProtoVec::default();
        out.message(2, |out| {
            out.fixed64(1, 1_768_471_200_000_000_001);
            out.message(5, |out| out.delimited(1, body.as_bytes()));
        });
        out.0
    }

    fn block(records: u32, log_records: Vec<u8>) -> proto::LogBlock {
        let field = |key, text: &str| proto::Field {
            key,
            value: Some(proto::field::Value::StringValue(text.into())),
        };
        proto::LogBlock {
            records,
            observed_unix_nano: 7,
            resource_digest: vec![1; 16],
            log_records,
            entity: vec![field(0, "n")],
            attributes: vec![field(1, "x")],
            ..Default::default()
        }
    }

    fn batch(blocks: Vec<proto::LogBlock>) -> Vec<u8> {
        let event = proto::Event { id: vec![9; 16], ..Default::default() };
        let count = blocks.iter().map(|block| block.records).sum::<u32>() + 2;
        let batch = proto::EventBatch {
            first_sequence: 100,
            count,
            node: "n".into(),
            epoch: 3,
            names: vec!["host.name".into(), "deployment".into()],
            events: vec![event],
            stories: vec![proto::Story::default()],
            collector_events: vec![count - 1],
            log_blocks: blocks,
            ..Default::default()
        };
        prost::Message::encode_to_vec(&batch)
    }

    fn expand(bytes: &[u8]) -> Result<Bytes, WireError> {
        let batch = Batch::parse(bytes).map_err(|(_, error)| error)?;
        Ok(expanded(&batch)?.unwrap())
    }

    #[test]
    fn batch_with_blocks_becomes_one_with_as_many_events() {
        let bytes = batch(vec![block(2, [record("a"), record("b")].concat()), block(0, vec![])]);
        let whole = Batch::parse(&bytes).unwrap();
        let events = expand(&bytes).unwrap();
        let parts = Batch::parse(&events).unwrap();
        assert_eq!((parts.head, parts.log_blocks), (whole.head, 0));
        assert_eq!((parts.events, parts.stories), (whole.events, whole.stories));
        assert_eq!(parts.collector_events().collect::<Vec<_>>(), [3]);
        let mut decoder = parts.decoder();
        let raw = parts.items().filter_map(|item| match item {
            Item::Event(raw) => Some(raw),
            _ => None,
        });
        let messages: Vec<(String, u64)> = raw
            .skip(1)
            .map(|raw| {
                let event = decoder.event(raw).unwrap().event;
                (event.message.to_owned(), event.observed_ns)
            })
            .collect();
        assert_eq!(messages, [("a".to_owned(), 7), ("b".to_owned(), 7)]);
        assert_eq!(expanded(&parts).unwrap(), None);
    }

    #[test]
    fn invalid_block_is_an_error() {
        let two = [record("a"), record("b")].concat();
        for (blocks, cause) in [
            (vec![block(3, two.clone())], WireCause::Count { count: 3, found: 2 }),
            (vec![block(1, two.clone())], WireCause::Count { count: 1, found: 2 }),
            (vec![block(2, two[..two.len() - 1].to_vec())], WireCause::Truncated),
            (vec![block(1, vec![2 << 3 | 2, 1, 0xff])], WireCause::Count { count: 1, found: 0 }),
        ] {
            assert_eq!(expand(&batch(blocks)).unwrap_err().cause, cause);
        }
    }

    #[test]
    fn events_of_a_block_are_bounded() {
        // Each record of 2 bytes becomes an event with a text of 10 KB.
        let mut many = block(10_000, [2 << 3 | 2, 0].repeat(10_000));
        many.entity[0].value = Some(proto::field::Value::StringValue("x".repeat(10_000)));
        let cause = WireCause::TooMany("bytes in the events of log records");
        assert_eq!(expand(&batch(vec![many])).unwrap_err().cause, cause);
    }
}
