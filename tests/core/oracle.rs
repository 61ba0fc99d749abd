//! Two rings in a row, like those between collector, shard and bridge, against queues of owned
//! copies.

use std::collections::VecDeque;

use crate::generators::{OwnedEvent, Step, a_step};
use proptest::prelude::*;
use tapio_core::event::{Event, EventId, Story, TraceId, Value, names};
use tapio_core::ring::{
    BLOCK_BYTES, Header, MAX_RECORD_BLOCKS, Membership, Record, RecordReader, RecordType,
    RecordWriter, WriteError, ring,
};

#[derive(Clone, Debug)]
enum Expected {
    Event(Header, Box<OwnedEvent>, Vec<Membership>),
    Story(Header, Box<Story>),
    Watermark(u64),
}

fn same_value(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

fn check_event(record: &Record<'_>, header: &Header, event: &OwnedEvent, more: &[Membership]) {
    assert_eq!(record.header(), &Header { record: RecordType::Event, ..*header });
    assert_eq!(record.memberships().collect::<Vec<_>>(), more);
    assert!(record.story().is_none());
    let mut fields = Vec::new();
    let got = record.event().unwrap().borrowed(&mut fields);
    let head = &event.head;
    assert_eq!(
        (got.id, got.time_ns, got.observed_ns, got.kind, got.source, got.severity),
        (head.id, head.time_ns, head.observed_ns, head.kind, head.source, head.severity)
    );
    assert_eq!(
        (got.clock, got.entities, got.trace_id, got.span_id, got.message),
        (head.clock, head.entities, head.trace_id, head.span_id, event.message.as_str())
    );
    let expected = event.fields();
    assert_eq!(got.fields.len(), expected.len());
    for (a, b) in got.fields.iter().zip(&expected) {
        assert!(a.key == b.key && same_value(&a.value, &b.value), "{a:?} {b:?}");
    }
}

fn check(record: &Record<'_>, expected: &Expected) {
    match expected {
        Expected::Event(header, event, more) => check_event(record, header, event, more),
        Expected::Story(header, story) => {
            assert_eq!(record.header(), &Header { record: RecordType::Story, ..*header });
            assert!(record.event().is_none());
            let archived = record.story().unwrap();
            let got = rkyv::deserialize::<Story, rkyv::rancor::Error>(archived).unwrap();
            assert_eq!(&got, &**story);
        }
        Expected::Watermark(order) => {
            assert_eq!(record.header(), &Header::watermark(*order));
            assert!(record.event().is_none() && record.story().is_none());
        }
    }
}

/// A ring and its model.
struct ModelledRing {
    writer: RecordWriter,
    reader: RecordReader,
    queue: VecDeque<Expected>,
}

impl ModelledRing {
    /// The smallest ring, so that it wraps often.
    fn new() -> Self {
        Self::with_blocks(0)
    }

    fn with_blocks(blocks: usize) -> Self {
        let (writer, reader) = ring(blocks);
        Self { writer, reader, queue: VecDeque::new() }
    }

    /// Checks the outcome of a write of at most `need` blocks and adds the record to the model.
    fn check_write(
        &mut self,
        outcome: Result<(), WriteError>,
        free: usize,
        need: usize,
        then: Expected,
    ) {
        match outcome {
            Ok(()) => self.queue.push_back(then),
            Err(error) => {
                assert_eq!(self.writer.free_blocks(), free, "{error} left something behind");
                match error {
                    WriteError::Full => assert!(free < 2 * need, "full with {free} for {need}"),
                    WriteError::Oversize => assert!(need > MAX_RECORD_BLOCKS, "{need} refused"),
                }
            }
        }
    }

    fn write(&mut self, header: &Header, event: &OwnedEvent) {
        let fields = event.fields();
        let borrowed = Event { fields: &fields, message: &event.message, ..event.head };
        let need = 1 + borrowed.archive_bound_bytes().div_ceil(BLOCK_BYTES);
        let free = self.writer.free_blocks();
        let outcome = self.writer.write_event(header, &borrowed);
        assert_eq!(outcome == Err(WriteError::Oversize), need > MAX_RECORD_BLOCKS);
        let then = Expected::Event(*header, Box::new(event.clone()), vec![]);
        self.check_write(outcome, free, need, then);
    }

    fn write_story(&mut self, story: &Story) {
        let free = self.writer.free_blocks();
        let need =
            1 + rkyv::to_bytes::<rkyv::rancor::Error>(story).unwrap().len().div_ceil(BLOCK_BYTES);
        let outcome = self.writer.write_story(story);
        let header = Header::event(0, 0, story.last_ns);
        self.check_write(outcome, free, need, Expected::Story(header, Box::new(story.clone())));
    }

    fn write_watermark(&mut self, order: u64) {
        let free = self.writer.free_blocks();
        let outcome = self.writer.write_watermark(order);
        self.check_write(outcome, free, 1, Expected::Watermark(order));
    }

    /// Drains the ring and compares each record with the next of the model.
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

    /// Forwards records into another ring, as a shard does.
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
                Expected::Story(..) | Expected::Watermark(..) => {
                    return {
                        // A shard doesn't forward these.
                        queue.pop_front();
                        seen += 1;
                        true
                    };
                }
            };
            let outcome = to.writer.forward(record, header, more);
            to.check_write(outcome, free, record.len_blocks() + more.len(), then);
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
        let (mut first, mut second) = (ModelledRing::new(), ModelledRing::new());
        for step in &steps {
            match step {
                Step::Write(header, event) => first.write(header, event),
                Step::Story(into_second, story) => {
                    (if *into_second { &mut second } else { &mut first }).write_story(story);
                }
                Step::Watermark(into_second, order) => {
                    (if *into_second { &mut second } else { &mut first })
                        .write_watermark(*order);
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

/// Several times as large as the part that a ring begins with.
const LARGE_RING_BLOCKS: usize = 40_000;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 24,
        ..ProptestConfig::default()
    })]

    /// The ring is filled and drained in part, again and again.
    #[test]
    fn ring_that_grows_equals_a_queue(
        steps in prop::collection::vec((0usize..200, 1usize..60_000, 0usize..40_000), 1..40),
    ) {
        let mut ring = ModelledRing::with_blocks(LARGE_RING_BLOCKS);
        prop_assert!(ring.writer.capacity_blocks() >= LARGE_RING_BLOCKS);
        let head = Event::new(EventId([1; 16]), 1, names::K8S_EVENT, names::K8S);
        let mut written = 0;
        for (records, bytes, drained_blocks) in steps {
            let event = OwnedEvent { head, fields: vec![], message: "x".repeat(bytes) };
            for _ in 0..records {
                written += 1;
                ring.write(&Header::event(3, 1, written), &event);
            }
            ring.write_watermark(written);
            ring.drain(drained_blocks, usize::MAX);
        }
        ring.drain(usize::MAX, usize::MAX);
    }
}

/// Forwarding never fails because of the size, even of the largest event with all memberships.
#[test]
fn largest_record_is_forwarded_with_all_memberships() {
    let (mut first, mut second) = (ModelledRing::new(), ModelledRing::new());
    let empty = Event::new(EventId([1; 16]), 1, names::K8S_EVENT, names::K8S);
    let room = (MAX_RECORD_BLOCKS - 1) * BLOCK_BYTES - empty.archive_bound_bytes();
    let event = OwnedEvent { head: empty, fields: vec![], message: "x".repeat(room) };
    let member = Membership {
        story: TraceId([2; 16]),
        rule: names::K8S,
        pattern: names::K8S,
        role: names::K8S,
        rank: 0,
        related: [EventId([3; 16]); 2],
    };
    for lap in 0..7 {
        let header = Header::event(3, 1, lap);
        first.write(&header, &event);
        assert_eq!(first.queue.len(), 1, "an empty ring accepts the largest event at any offset");
        first.forward(&mut second, (usize::MAX, usize::MAX), &header, &[member; 300]);
        assert_eq!(second.queue.len(), 1);
        second.drain(usize::MAX, usize::MAX);
    }
    let longer = OwnedEvent { message: "x".repeat(room + 1), ..event };
    first.write(&Header::event(3, 1, 1), &longer);
    assert!(first.queue.is_empty());
}
