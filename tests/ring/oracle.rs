//! Two rings in a row, as a collector, a shard and the bridge have them, against a queue of owned
//! copies.

use std::collections::VecDeque;

use proptest::prelude::*;
use tapio::event::{
    Event, EventId, Field, Group, GroupState, Impact, Member, Name, Severity, TraceId, Value, names,
};
use tapio::ring::{
    BLOCK_BYTES, Header, MAX_RECORD_BLOCKS, Membership, Record, RecordReader, RecordType,
    RecordWriter, WriteError, ring,
};

#[derive(Clone, Debug)]
enum OwnedValue {
    Plain(Value<'static>),
    Str(String),
    Json(String),
}

#[derive(Clone, Debug)]
struct OwnedEvent {
    head: Event<'static>,
    fields: Vec<(Name, OwnedValue)>,
    message: String,
}

impl OwnedEvent {
    fn fields(&self) -> Vec<Field<'_>> {
        self.fields
            .iter()
            .map(|(key, value)| Field {
                key: *key,
                value: match value {
                    OwnedValue::Plain(v) => *v,
                    OwnedValue::Str(s) => Value::Str(s),
                    OwnedValue::Json(s) => Value::Json(s),
                },
            })
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Expected {
    Event(Header, Box<OwnedEvent>, Vec<Membership>),
    Group(Header, Box<Group>),
    Watermark(u64, u64),
}

#[derive(Clone, Debug)]
enum Step {
    Write(Header, Box<OwnedEvent>),
    Group(bool, Box<Group>),
    Watermark(bool, u64, u64),
    /// Drain the first ring into the second, or back, so that records gather memberships on several
    /// hops: at most so many blocks, stop before that many records.
    Forward(bool, (usize, usize), Header, Vec<Membership>),
    /// Drain the second ring.
    Drain(usize, usize),
}

/// A text of this length with characters of one to four bytes, from a linear congruential sequence.
fn text(len: usize, mut seed: u64) -> String {
    const LETTERS: [char; 8] = ['a', 'Z', '0', ' ', '"', 'é', '€', '𝄞'];
    let mut out = String::with_capacity(len + 4);
    while out.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.push(LETTERS[(seed >> 61) as usize]);
    }
    out
}

fn a_text(most: usize) -> impl Strategy<Value = String> {
    (0..=most, any::<u64>()).prop_map(|(len, seed)| text(len, seed))
}

fn a_name() -> impl Strategy<Value = Name> {
    (0..names::KNOWN.len() as u16).prop_map(Name)
}

fn a_value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        1 => Just(OwnedValue::Plain(Value::Null)),
        1 => any::<bool>().prop_map(|b| OwnedValue::Plain(Value::Bool(b))),
        1 => any::<i64>().prop_map(|n| OwnedValue::Plain(Value::Int(n))),
        1 => any::<f64>().prop_map(|n| OwnedValue::Plain(Value::Float(n))),
        4 => a_text(3_000).prop_map(OwnedValue::Str),
        1 => a_text(200).prop_map(OwnedValue::Json),
    ]
}

fn some_fields() -> impl Strategy<Value = Vec<(Name, OwnedValue)>> {
    prop_oneof![
        20 => prop::collection::vec((a_name(), a_value()), 0..12),
        // More fields than any scratch memory of a fixed small size can serve.
        1 => (600..7_000usize, a_name())
            .prop_map(|(n, key)| vec![(key, OwnedValue::Plain(Value::Int(-1))); n]),
        // One text around the largest record's size.
        1 => (a_name(), a_text(80_000)).prop_map(|(key, s)| vec![(key, OwnedValue::Str(s))]),
    ]
}

prop_compose! {
    fn an_event()(
        id in any::<[u8; 16]>(),
        times in any::<(u64, u64)>(),
        kind in a_name(),
        source in a_name(),
        small in any::<(u8, u8, u8)>(),
        trace in any::<([u8; 16], [u8; 8])>(),
        fields in some_fields(),
        message in a_text(300),
    ) -> Box<OwnedEvent> {
        let head = Event {
            observed_ns: times.1,
            severity: Severity(small.0),
            clock: small.1,
            entities: small.2,
            trace_id: TraceId(trace.0),
            span_id: trace.1,
            ..Event::new(EventId(id), times.0, kind, source)
        };
        Box::new(OwnedEvent { head, fields, message })
    }
}

prop_compose! {
    fn a_header()(
        record in prop::sample::select(vec![
            RecordType::Event, RecordType::Group, RecordType::Watermark, RecordType::Skip,
        ]),
        collector in any::<u8>(),
        numbers in any::<(u64, u64, u64)>(),
        trace in any::<([u8; 16], [u8; 8])>(),
    ) -> Header {
        Header {
            record, collector, visits: numbers.0, order: numbers.1, time_ns: numbers.2,
            trace_id: TraceId(trace.0), span_id: trace.1,
        }
    }
}

prop_compose! {
    fn a_membership()(
        group in any::<[u8; 16]>(),
        names in (a_name(), a_name(), a_name()),
        related in any::<([u8; 16], [u8; 16])>(),
    ) -> Membership {
        Membership {
            group: TraceId(group), rule: names.0, pattern: names.1, role: names.2,
            related: [EventId(related.0), EventId(related.1)],
        }
    }
}

prop_compose! {
    fn a_group()(
        id in any::<[u8; 16]>(),
        texts in (a_text(40), a_text(2_000), a_text(40)),
        members in prop::collection::vec((any::<[u8; 16]>(), a_text(500), any::<u64>()), 0..30),
        last_ns in any::<u64>(),
        score in -5.0..5.0f64,
    ) -> Box<Group> {
        Box::new(Group {
            id: TraceId(id), trace_id: TraceId(id), rule: texts.0.clone(), pattern: texts.2,
            name: texts.1, intent: texts.0, state: GroupState::Updated, revision: 3,
            key: vec![("host.name".into(), "n1".into())],
            members: members.into_iter().map(|(id, summary, time_ns)| Member {
                id: EventId(id), label: String::new(), time_ns, kind: "k".into(),
                source: "s".into(), severity: Severity::WARN, role: "cause".into(),
                pattern: String::new(), summary,
            }).collect(),
            members_total: 99, first_ns: 1, last_ns, severity: Severity::ERROR, root_cause: vec![],
            impact: Impact { business: score, ..Impact::default() }, actions: vec!["look".into()],
            confidence: score, continues: None,
        })
    }
}

fn a_step() -> impl Strategy<Value = Step> {
    let limit = || prop_oneof![1..4_000usize, Just(usize::MAX)];
    let stop = || prop_oneof![0..6usize, Just(usize::MAX)];
    prop_oneof![
        8 => (a_header(), an_event()).prop_map(|(h, e)| Step::Write(h, e)),
        1 => (any::<bool>(), a_group()).prop_map(|(second, g)| Step::Group(second, g)),
        1 => (any::<bool>(), any::<u64>(), any::<u64>())
            .prop_map(|(second, order, time)| Step::Watermark(second, order, time)),
        3 => (
            prop::bool::weighted(0.3),
            (limit(), stop()),
            a_header(),
            prop::collection::vec(a_membership(), 0..40),
        )
            .prop_map(|(back, limits, h, m)| Step::Forward(back, limits, h, m)),
        2 => (limit(), stop()).prop_map(|(l, s)| Step::Drain(l, s)),
    ]
}

fn same_value(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

fn check_event(record: &Record<'_>, header: &Header, event: &OwnedEvent, more: &[Membership]) {
    assert_eq!(
        record.header(),
        &Header {
            record: RecordType::Event,
            ..*header
        }
    );
    assert_eq!(record.memberships().collect::<Vec<_>>(), more);
    assert!(record.group().is_none());
    let mut fields = Vec::new();
    let got = record.event().unwrap().borrowed(&mut fields);
    let head = &event.head;
    assert_eq!(
        (
            got.id,
            got.time_ns,
            got.observed_ns,
            got.kind,
            got.source,
            got.severity
        ),
        (
            head.id,
            head.time_ns,
            head.observed_ns,
            head.kind,
            head.source,
            head.severity
        )
    );
    assert_eq!(
        (
            got.clock,
            got.entities,
            got.trace_id,
            got.span_id,
            got.message
        ),
        (
            head.clock,
            head.entities,
            head.trace_id,
            head.span_id,
            event.message.as_str()
        )
    );
    let expected = event.fields();
    assert_eq!(got.fields.len(), expected.len());
    for (a, b) in got.fields.iter().zip(&expected) {
        assert!(
            a.key == b.key && same_value(&a.value, &b.value),
            "{a:?} {b:?}"
        );
    }
}

fn check(record: &Record<'_>, expected: &Expected) {
    match expected {
        Expected::Event(header, event, more) => check_event(record, header, event, more),
        Expected::Group(header, group) => {
            assert_eq!(
                record.header(),
                &Header {
                    record: RecordType::Group,
                    ..*header
                }
            );
            assert!(record.event().is_none());
            let archived = record.group().unwrap();
            let got = rkyv::deserialize::<Group, rkyv::rancor::Error>(archived).unwrap();
            assert_eq!(&got, &**group);
        }
        Expected::Watermark(order, time_ns) => {
            assert_eq!(record.header(), &Header::watermark(*order, *time_ns));
            assert!(record.event().is_none() && record.group().is_none());
        }
    }
}

/// A ring with the queue it must equal.
struct Pair {
    writer: RecordWriter,
    reader: RecordReader,
    queue: VecDeque<Expected>,
}

impl Pair {
    fn new() -> Self {
        // The smallest ring there is, so that it wraps often.
        let (writer, reader) = ring(0);
        Self {
            writer,
            reader,
            queue: VecDeque::new(),
        }
    }

    /// Holds a write's outcome against what it may be: `need` is the most it can take.
    fn wrote(&mut self, outcome: Result<(), WriteError>, free: usize, need: usize, then: Expected) {
        match outcome {
            Ok(()) => self.queue.push_back(then),
            Err(error) => {
                assert_eq!(
                    self.writer.free_blocks(),
                    free,
                    "{error} left something behind"
                );
                match error {
                    WriteError::Full => assert!(free < 2 * need, "full with {free} for {need}"),
                    WriteError::Oversize => assert!(need > MAX_RECORD_BLOCKS, "{need} refused"),
                }
            }
        }
    }

    fn write(&mut self, header: &Header, event: &OwnedEvent) {
        let fields = event.fields();
        let borrowed = Event {
            fields: &fields,
            message: &event.message,
            ..event.head
        };
        let need = 1 + borrowed.archive_bound_bytes().div_ceil(BLOCK_BYTES);
        let free = self.writer.free_blocks();
        let outcome = self.writer.write_event(header, &borrowed);
        assert_eq!(
            outcome == Err(WriteError::Oversize),
            need > MAX_RECORD_BLOCKS
        );
        let then = Expected::Event(*header, Box::new(event.clone()), vec![]);
        self.wrote(outcome, free, need, then);
    }

    fn write_group(&mut self, group: &Group) {
        let free = self.writer.free_blocks();
        let need = 1 + rkyv::to_bytes::<rkyv::rancor::Error>(group)
            .unwrap()
            .len()
            .div_ceil(BLOCK_BYTES);
        let outcome = self.writer.write_group(group);
        let header = Header::event(0, 0, group.last_ns);
        self.wrote(
            outcome,
            free,
            need,
            Expected::Group(header, Box::new(group.clone())),
        );
    }

    fn write_watermark(&mut self, order: u64, time_ns: u64) {
        let free = self.writer.free_blocks();
        let outcome = self.writer.write_watermark(order, time_ns);
        self.wrote(outcome, free, 1, Expected::Watermark(order, time_ns));
    }

    /// Drains, comparing each record with the queue's next.
    fn drain(&mut self, limit: usize, stop: usize) {
        let Self { reader, queue, .. } = self;
        let (mut seen, mut blocks) = (0, 0);
        let read = reader.drain(limit, |record| {
            assert!(blocks < limit);
            if seen == stop {
                return false;
            }
            check(record, &queue.pop_front().unwrap());
            seen += 1;
            blocks += record.len_blocks();
            true
        });
        assert_eq!(read, seen);
        if limit == usize::MAX && stop == usize::MAX {
            assert!(queue.is_empty() && reader.is_empty());
            assert_eq!(self.writer.free_blocks(), self.writer.capacity_blocks());
        }
    }

    /// Drains into another ring, as a shard does.
    fn forward(
        &mut self,
        to: &mut Self,
        (limit, stop): (usize, usize),
        header: &Header,
        more: &[Membership],
    ) {
        let Self { reader, queue, .. } = self;
        let mut seen = 0;
        reader.drain(limit, |record| {
            if seen == stop {
                return false;
            }
            let free = to.writer.free_blocks();
            let expected = queue.front().unwrap();
            check(record, expected);
            let then = match expected.clone() {
                Expected::Event(_, event, mut has) => {
                    has.extend(more);
                    has.truncate(255);
                    Expected::Event(*header, event, has)
                }
                Expected::Group(..) | Expected::Watermark(..) => {
                    return {
                        // A shard doesn't pass these on.
                        queue.pop_front();
                        seen += 1;
                        true
                    };
                }
            };
            let outcome = to.writer.forward(record, header, more);
            to.wrote(outcome, free, record.len_blocks() + more.len(), then);
            if outcome.is_ok() {
                queue.pop_front();
                seen += 1;
            }
            outcome.is_ok()
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rings_equal_queues(steps in prop::collection::vec(a_step(), 1..120)) {
        let (mut first, mut second) = (Pair::new(), Pair::new());
        for step in &steps {
            match step {
                Step::Write(header, event) => first.write(header, event),
                Step::Group(into_second, group) => {
                    (if *into_second { &mut second } else { &mut first }).write_group(group);
                }
                Step::Watermark(into_second, order, time_ns) => {
                    (if *into_second { &mut second } else { &mut first })
                        .write_watermark(*order, *time_ns);
                }
                Step::Forward(false, limits, header, more) => {
                    first.forward(&mut second, *limits, header, more);
                }
                Step::Forward(true, limits, header, more) => {
                    second.forward(&mut first, *limits, header, more);
                }
                Step::Drain(limit, stop) => second.drain(*limit, *stop),
            }
        }
        first.drain(usize::MAX, usize::MAX);
        second.drain(usize::MAX, usize::MAX);
    }
}

/// Passing on can't fail for its size: the largest event, with all memberships a record can carry.
#[test]
fn the_largest_record_is_passed_on_with_every_membership() {
    let (mut first, mut second) = (Pair::new(), Pair::new());
    let empty = Event::new(EventId([1; 16]), 1, names::K8S_EVENT, names::K8S);
    let room = (MAX_RECORD_BLOCKS - 1) * BLOCK_BYTES - empty.archive_bound_bytes();
    let event = OwnedEvent {
        head: empty,
        fields: vec![],
        message: "x".repeat(room),
    };
    let member = Membership {
        group: TraceId([2; 16]),
        rule: names::K8S,
        pattern: names::K8S,
        role: names::K8S,
        related: [EventId([3; 16]); 2],
    };
    for lap in 0..7 {
        let header = Header::event(3, 1, lap);
        first.write(&header, &event);
        assert_eq!(
            first.queue.len(),
            1,
            "an empty ring takes the largest event at any place"
        );
        first.forward(
            &mut second,
            (usize::MAX, usize::MAX),
            &header,
            &[member; 300],
        );
        assert_eq!(second.queue.len(), 1);
        second.drain(usize::MAX, usize::MAX);
    }
    let longer = OwnedEvent {
        message: "x".repeat(room + 1),
        ..event
    };
    first.write(&Header::event(3, 1, 1), &longer);
    assert!(first.queue.is_empty());
}
