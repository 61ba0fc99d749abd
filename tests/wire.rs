//! The hand-written codec against prost, with every content of an event, and against hostile bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as the test does")]

use proptest::prelude::*;
use prost::Message;
use tapio_core::event::{Event, EventId, Field, Name, Severity, TraceId, Value, names};
use tapio_core::ring::{Header, Membership, RecordReader, RecordWriter, ring};
use tapio_wire::proto::field::Value as ProtoValue;
use tapio_wire::{
    Appended, Batch, BatchEncoder, Decoded, EncodedBatch, Item, WireCause, batch_json,
    decoded_json, kernel_time, proto,
};

#[derive(Clone, Debug)]
enum Owned {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Json(String),
}

#[derive(Clone, Debug)]
struct Sample {
    id: [u8; 16],
    times: (u64, u64),
    kind: Name,
    severity: u8,
    clock: u8,
    /// The trace context that the event arrives with.
    incoming: ([u8; 16], [u8; 8]),
    /// The trace context that a shard assigns.
    assigned: ([u8; 16], [u8; 8]),
    message: String,
    entities: Vec<(Name, Owned)>,
    attributes: Vec<(Name, Owned)>,
    memberships: Vec<Membership>,
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        (0..60u16).prop_map(Name),
        (0..400u32).prop_map(|n| Name::intern(&format!("test.key.{n}")).unwrap()),
    ]
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        Just(Owned::Null),
        any::<bool>().prop_map(Owned::Bool),
        any::<i64>().prop_map(Owned::Int),
        any::<f64>().prop_map(Owned::Float),
        ".{0,40}".prop_map(Owned::Str),
        "[a-z]{100,300}".prop_map(Owned::Str),
        Just(Owned::Json("[1,{\"a\":\"ä\"}]".into())),
    ]
}

fn membership() -> impl Strategy<Value = Membership> {
    let ids = prop_oneof![Just([[0; 16]; 2]), any::<[[u8; 16]; 2]>()];
    (any::<[u8; 16]>(), name(), name(), name(), ids).prop_map(
        |(story, rule, pattern, role, ids)| Membership {
            story: TraceId(story),
            rule,
            pattern,
            role,
            // Not on the wire.
            rank: 0,
            related: ids.map(EventId),
        },
    )
}

fn sample() -> impl Strategy<Value = Sample> {
    let context = || prop_oneof![Just(([0; 16], [0; 8])), any::<([u8; 16], [u8; 8])>(),];
    let fields = |most| prop::collection::vec((name(), value()), 0..most);
    (
        (any::<[u8; 16]>(), any::<(u64, u64)>(), name(), 0..=24u8, 0..=2u8),
        (context(), context(), ".{0,80}"),
        (fields(8), fields(20), prop::collection::vec(membership(), 0..5)),
    )
        .prop_map(
            |((id, times, kind, severity, clock), (incoming, assigned, message), fields)| {
                let (entities, attributes, memberships) = fields;
                Sample {
                    id,
                    times,
                    kind,
                    severity,
                    clock,
                    incoming,
                    assigned,
                    message,
                    entities,
                    attributes,
                    memberships,
                }
            },
        )
}

impl Sample {
    fn with<T>(&self, then: impl FnOnce(&Event<'_>) -> T) -> T {
        let fields: Vec<Field<'_>> = self
            .entities
            .iter()
            .chain(&self.attributes)
            .map(|(key, value)| Field {
                key: *key,
                value: match value {
                    Owned::Null => Value::Null,
                    Owned::Bool(b) => Value::Bool(*b),
                    Owned::Int(n) => Value::Int(*n),
                    Owned::Float(n) => Value::Float(*n),
                    Owned::Str(s) => Value::Str(s),
                    Owned::Json(s) => Value::Json(s),
                },
            })
            .collect();
        then(&Event {
            observed_ns: self.times.1,
            severity: Severity(self.severity),
            clock: self.clock,
            entities: self.entities.len() as u8,
            trace_id: TraceId(self.incoming.0),
            span_id: self.incoming.1,
            fields: &fields,
            message: &self.message,
            ..Event::new(EventId(self.id), self.times.0, self.kind, names::KERNEL_PROCESS_EXEC)
        })
    }

    /// The memberships as they are sent: first the one whose story gave the event its trace.
    fn sent_memberships(&self) -> Vec<Membership> {
        let mut sent = self.memberships.clone();
        let first = (0..sent.len()).min_by_key(|at| (sent[*at].rank, sent[*at].story));
        if let Some(first) = first {
            sent[..=first].rotate_right(1);
        }
        sent
    }

    /// Writes the event as a collector does, and forwards it with the memberships as a shard does.
    fn forward(&self, first: &mut (RecordWriter, RecordReader), to: &mut RecordWriter) {
        let header = Header::event(3, 0, self.times.0);
        self.with(|event| first.0.write_event(&header, event).unwrap());
        first.1.drain(usize::MAX, |record| {
            let header = Header {
                trace_id: TraceId(self.assigned.0),
                span_id: self.assigned.1,
                ..*record.header()
            };
            to.forward(record, &header, &self.memberships).unwrap();
            true
        });
    }

    fn has_assigned(&self) -> bool {
        self.assigned.0 != [0; 16]
    }
}

fn encode(samples: &[Sample]) -> EncodedBatch {
    let mut encoder = BatchEncoder::new("node-1", 7, 64 * 1024 * 1024 / 16);
    let (mut first, mut second) = (ring(1), ring(1));
    for sample in samples {
        sample.forward(&mut first, &mut second.0);
        second.1.drain(usize::MAX, |record| {
            assert_eq!(encoder.append(record), Appended::Event);
            true
        });
    }
    encoder.finish().unwrap()
}

fn same_value(proto: &ProtoValue, own: &Owned) -> bool {
    match (proto, own) {
        (ProtoValue::NullValue(true), Owned::Null) => true,
        (ProtoValue::BoolValue(a), Owned::Bool(b)) => a == b,
        (ProtoValue::IntValue(a), Owned::Int(b)) => a == b,
        (ProtoValue::DoubleValue(a), Owned::Float(b)) => a.to_bits() == b.to_bits(),
        (ProtoValue::StringValue(a), Owned::Str(b))
        | (ProtoValue::JsonValue(a), Owned::Json(b)) => a == b,
        _ => false,
    }
}

fn check_proto(batch: &proto::EventBatch, event: &proto::Event, sample: &Sample) {
    let name = |index: u32| batch.names[index as usize].as_str();
    let bytes = |id: &[u8]| {
        if id.iter().all(|b| *b == 0) { Vec::new() } else { id.to_vec() }
    };
    assert_eq!((event.time_unix_nano, event.observed_unix_nano), sample.times);
    assert_eq!(event.id, sample.id);
    assert_eq!(name(event.kind), sample.kind.text());
    assert_eq!(name(event.source), "kernel.process.exec");
    assert_eq!((event.severity, event.clock), (sample.severity.into(), sample.clock.into()));
    assert_eq!(event.message, sample.message);
    let (trace, span) = if sample.has_assigned() { sample.assigned } else { sample.incoming };
    assert_eq!((&event.trace_id, &event.span_id), (&bytes(&trace), &bytes(&span)));
    if sample.has_assigned()
        && sample.incoming.0 != [0; 16]
        && sample.incoming.0 != sample.assigned.0
    {
        assert_eq!(event.incoming_trace_id, sample.incoming.0);
        assert_eq!(event.incoming_span_id, bytes(&sample.incoming.1));
    } else {
        assert!(event.incoming_trace_id.is_empty());
    }
    for (fields, own) in
        [(&event.entity, &sample.entities), (&event.attributes, &sample.attributes)]
    {
        assert_eq!(fields.len(), own.len());
        for (field, (key, value)) in fields.iter().zip(own) {
            assert_eq!(name(field.key), key.text());
            assert!(same_value(field.value.as_ref().unwrap(), value), "{field:?} {value:?}");
        }
    }
    assert_eq!(event.correlations.len(), sample.memberships.len());
    for (correlation, m) in event.correlations.iter().zip(&sample.sent_memberships()) {
        assert_eq!(correlation.story_id, m.story.0);
        let names = [correlation.rule, correlation.pattern, correlation.role].map(name);
        assert_eq!(names, [m.rule.text(), m.pattern.text(), m.role.text()]);
        let related: Vec<_> =
            m.related.iter().filter(|id| id.0 != [0; 16]).map(|id| id.0.to_vec()).collect();
        assert_eq!(correlation.related, related);
    }
}

fn check_decoded(decoded: &Decoded<'_>, sample: &Sample) {
    let (trace, span) = if sample.has_assigned() { sample.assigned } else { sample.incoming };
    sample.with(|event| {
        let expected = Event { trace_id: TraceId(trace), span_id: span, ..*event };
        // In debug text a NaN equals itself.
        assert_eq!(format!("{:?}", decoded.event), format!("{expected:?}"));
    });
    assert_eq!(decoded.correlations, sample.sent_memberships());
    // An incoming span without a trace is no context and isn't restored.
    if sample.incoming.0 != [0; 16] {
        assert_eq!(decoded.as_received().trace_id.0, sample.incoming.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn prost_and_decoder_agree_with_the_encoder(
        samples in prop::collection::vec(sample(), 1..6),
    ) {
        let encoded = encode(&samples);
        let message = encoded.message();
        let by_prost = proto::EventBatch::decode(message.clone()).unwrap();
        prop_assert_eq!((by_prost.first_sequence, by_prost.count as usize), (0, samples.len()));
        prop_assert_eq!((by_prost.node.as_str(), by_prost.epoch), ("node-1", 7));
        prop_assert_eq!(encoded.accounts[3] as usize, samples.len());
        for (event, sample) in by_prost.events.iter().zip(&samples) {
            check_proto(&by_prost, event, sample);
        }
        // The encoding of prost, with its own order of fields, decodes to the same.
        for bytes in [message.to_vec(), by_prost.encode_to_vec()] {
            let batch = Batch::parse(&bytes).unwrap();
            prop_assert_eq!(batch.events as usize, samples.len());
            let mut decoder = batch.decoder();
            for (item, sample) in batch.items().zip(&samples) {
                let Item::Event(raw) = item else { panic!("an event became a story") };
                let expected_time = (sample.clock == 0 && sample.times.0 != 0).then_some(sample.times.0);
                prop_assert_eq!(kernel_time(raw), expected_time);
                let decoded = decoder.event(raw).unwrap();
                check_decoded(&decoded, sample);
                prop_assert!(decoded_json(&batch, &decoded).is_object());
            }
        }
    }

    #[test]
    fn corrupted_bytes_are_an_error_or_an_event(
        samples in prop::collection::vec(sample(), 1..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&samples).message().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        decode_all(&bytes);
        decode_all(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_batch(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }
}

/// Decodes bytes in every way; the position of an error must be within them.
fn decode_all(bytes: &[u8]) {
    let check = |at: usize| assert!(at <= bytes.len());
    let batch = match Batch::parse(bytes) {
        Ok(batch) => batch,
        Err((_, error)) => return check(error.at),
    };
    let mut decoder = batch.decoder();
    for item in batch.items() {
        if let Item::Event(raw) = item {
            let _ = (kernel_time(raw), raw.kind_index(), raw.roles().count());
            if let Err(error) = decoder.event(raw) {
                check(error.at);
            }
        }
    }
    let _ = batch_json(bytes);
}

fn one_event() -> proto::EventBatch {
    proto::EventBatch {
        count: 1,
        names: vec!["a.kind".into(), "a.key".into()],
        events: vec![proto::Event {
            entity: vec![proto::Field { key: 1, value: None }],
            ..proto::Event::default()
        }],
        ..proto::EventBatch::default()
    }
}

fn event_error(batch: &proto::EventBatch) -> WireCause {
    let bytes = batch.encode_to_vec();
    let batch = Batch::parse(&bytes).unwrap();
    let Some(Item::Event(raw)) = batch.items().next() else { panic!("no event") };
    batch.decoder().event(raw).unwrap_err().cause
}

#[test]
fn each_violated_bound_has_its_own_error() {
    let mut batch = one_event();
    batch.count = 2;
    let bytes = batch.encode_to_vec();
    let (_, error) = Batch::parse(&bytes).unwrap_err();
    assert_eq!(error.cause, WireCause::Count { count: 2, found: 1 });

    let change = |change: fn(&mut proto::Event)| {
        let mut batch = one_event();
        change(&mut batch.events[0]);
        event_error(&batch)
    };
    let id = WireCause::IdLength { expected: 16, found: 3 };
    assert_eq!(change(|e| e.id = vec![1, 2, 3]), id);
    assert_eq!(change(|e| e.kind = 2), WireCause::NoSuchName { index: 2, names: 2 });
    assert_eq!(change(|e| e.severity = 25), WireCause::OutOfRange(6));
    assert_eq!(change(|e| e.clock = 3), WireCause::OutOfRange(7));
    assert_eq!(
        change(|e| e.entity = vec![proto::Field { key: 1, value: None }; 256]),
        WireCause::TooMany("entity keys")
    );
    assert_eq!(
        change(|e| e.attributes = vec![proto::Field { key: 1, value: None }; 1024]),
        WireCause::TooMany("fields")
    );

    let mut long = one_event();
    long.names.push("x".repeat(1000));
    assert!(Batch::parse(&long.encode_to_vec()).is_err());
}

#[test]
fn only_an_empty_batch_reports_dropped_items() {
    let gap = proto::EventBatch { first_sequence: 9, dropped_from: Some(4), ..Default::default() };
    assert_eq!(Batch::parse(&gap.encode_to_vec()).unwrap().dropped_from, Some(4));
    let wrong = [
        proto::EventBatch { dropped_from: Some(10), ..gap.clone() },
        proto::EventBatch { first_sequence: 9, dropped_from: Some(4), ..one_event() },
    ];
    for batch in wrong {
        let (_, error) = Batch::parse(&batch.encode_to_vec()).unwrap_err();
        assert_eq!(error.cause, WireCause::OutOfRange(10));
    }
}

#[test]
fn entities_precede_attributes_in_any_order_of_arrival() {
    // 12 (attribute "b"), 11 (entity "a") in one event.
    let event = [0x62, 2, 0x08, 1, 0x5a, 2, 0x08, 0];
    let mut bytes = vec![0x15, 1, 0, 0, 0, 0x2a, 1, b'a', 0x2a, 1, b'b', 0x32, event.len() as u8];
    bytes.extend_from_slice(&event);
    let batch = Batch::parse(&bytes).unwrap();
    let Some(Item::Event(raw)) = batch.items().next() else { panic!("no event") };
    let mut decoder = batch.decoder();
    let decoded = decoder.event(raw).unwrap();
    assert_eq!(decoded.event.entity_fields()[0].key.text(), "a");
    assert_eq!(decoded.event.attributes()[0].key.text(), "b");
}

#[test]
fn full_batch_is_reported_and_the_next_one_continues() {
    let sample = Sample {
        id: [1; 16],
        times: (5, 6),
        kind: names::KERNEL_PROCESS_EXEC,
        severity: 9,
        clock: 0,
        incoming: ([0; 16], [0; 8]),
        assigned: ([9; 16], [8; 8]),
        message: "m".repeat(5_000),
        entities: Vec::new(),
        attributes: Vec::new(),
        memberships: Vec::new(),
    };
    let mut encoder = BatchEncoder::new("n", 1, 32 * 1024);
    let (mut first, mut second) = (ring(1), ring(1));
    let (mut next, mut batches) = (0, 0);
    for _ in 0..50 {
        sample.forward(&mut first, &mut second.0);
        second.1.drain(usize::MAX, |record| {
            if encoder.append(record) == Appended::Full {
                let batch = encoder.finish().unwrap();
                assert_eq!(batch.first_sequence, next);
                next = batch.end_sequence();
                batches += 1;
                assert_eq!(encoder.append(record), Appended::Event);
            }
            true
        });
    }
    assert!(batches > 5);
    assert_eq!(encoder.finish().unwrap().end_sequence(), 50);
}
