//! Somebody makes up keys: each event opens one that was never seen. What a shard holds stays
//! bounded, and what made room is counted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tapio_core::event::{Event, EventId, Field, Name, TraceId, Value, names};
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::{Loaded, RuleSet};
use tapio_dataflow::{Found, LaneOptions, Shard, ShardStats};

/// Counts the bytes this process holds.
struct Counting;

// Relaxed: only this file's one thread at work is compared with itself.
static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `at` came from `alloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BOUND: usize = 2_000;
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

const SEQUENCE: &str = "rule: pair
events: { a: { kind: t.a }, b: { kind: t.b } }
sequence: { by: [attributes.k], within: 60s, steps: [{ event: a }, { event: b }] }
story: { pattern: p }
";

const OPENS: &str = "rule: opens
events: { a: { kind: t.a } }
count: { event: a, by: [attributes.k], within: 60s, at_least: 1 }
story: { pattern: p }
";

struct Flood {
    shard: Shard,
    writer: RecordWriter,
    reader: RecordReader,
    notes: Vec<EvidenceMessage>,
    assessor: Assessor,
    /// Stories that were told and haven't ended.
    open: HashSet<TraceId>,
    sent: u64,
    told: u64,
    ended: u64,
}

impl Flood {
    fn new(rules: &str) -> Self {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", rules);
        assert_eq!(loaded.errors, []);
        let rules = Arc::new(RuleSet::new(loaded.rules, "", 1));
        let options =
            LaneOptions { max_keys: BOUND, max_stories: BOUND / 2, ..LaneOptions::default() };
        let (writer, reader) = ring(1 << 14);
        Self {
            shard: Shard::new(rules, 0, options, true),
            writer,
            reader,
            notes: Vec::new(),
            assessor: Assessor::new(Bounds::LIVE),
            open: HashSet::new(),
            sent: 0,
            told: 0,
            ended: 0,
        }
    }

    /// Shows events, a microsecond apart, each with a key of its own; where `pods`, as a pod.
    fn send(&mut self, events: u64, pods: bool) {
        let kind = Name::intern("t.a").unwrap();
        let key = if pods { names::K8S_POD_UID } else { Name::intern("k").unwrap() };
        let mut found = Found::default();
        for n in self.sent..self.sent + events {
            let text = format!("{n:032x}");
            let fields = [Field { key, value: Value::Str(&text) }];
            let time_ns = BEGIN_NS + n * 1_000;
            let id = EventId::from_sequence(1, 1, n);
            let event = Event::new(id, time_ns, kind, names::EBPF);
            let event = Event { fields: &fields, entities: u8::from(pods), ..event };
            self.writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
            self.reader.drain(usize::MAX, |record| {
                self.shard.step(record, time_ns, &mut found);
                true
            });
            if n % 1000 == 0 {
                self.shard.advance(time_ns, time_ns);
            }
            self.listen();
        }
        self.sent += events;
    }

    fn listen(&mut self) {
        self.shard.take_notes(&mut self.notes, false);
        for note in self.notes.drain(..) {
            let Some(story) = self.assessor.process(note) else { continue };
            self.told += 1;
            if story.state.is_end() {
                self.ended += 1;
                self.open.remove(&story.id);
            } else {
                self.open.insert(story.id);
            }
        }
    }

    fn finish(&mut self) {
        self.shard.finish(false, BEGIN_NS + self.sent * 1_000);
        self.listen();
    }

    /// Bytes more that are held after four times as many events as it takes to fill every table.
    fn grows_by(&mut self, fill: u64, pods: bool) -> (i64, ShardStats) {
        self.send(fill, pods);
        let before = HELD.load(Ordering::Relaxed) as i64;
        self.send(4 * fill, pods);
        (HELD.load(Ordering::Relaxed) as i64 - before, self.shard.stats())
    }
}

/// One test, so that no other one's memory is counted.
#[test]
fn a_flood_of_keys_stories_or_pods_stays_within_its_bounds() {
    // Of what a table holds when it is full, a tenth may come and go.
    let mut keys = Flood::new(SEQUENCE);
    let (grown, stats) = keys.grows_by(10 * BOUND as u64, false);
    assert!(grown < BOUND as i64 * 100, "{grown} bytes more");
    assert_eq!(stats.lane.keys, BOUND as u64);
    assert_eq!(stats.lane.evicted, keys.sent - BOUND as u64);
    assert_eq!(stats.lane.opened, 0);

    let mut stories = Flood::new(OPENS);
    let (grown, stats) = stories.grows_by(20 * BOUND as u64, false);
    assert!(grown < BOUND as i64 * 500, "{grown} bytes more");
    assert_eq!((stats.lane.keys, stats.lane.open), (BOUND as u64, BOUND as u64 / 2));
    assert_eq!((stats.lane.opened, stats.lane.matches), (stories.sent, stories.sent));
    assert_eq!(stats.lane.evicted, stories.sent - BOUND as u64);
    assert_eq!(stats.lane.expired, stories.sent - BOUND as u64 / 2, "every story ends, counted");
    // A story that a flood washes away before anybody was told of it is counted; what was told also ends.
    assert!(stories.told < stories.sent / 2, "{} of {} told", stories.told, stories.sent);
    assert!(stats.settled.untold > stories.sent / 2, "{stats:?}");
    assert!(stories.ended > 0 && stories.open.len() <= BOUND, "{} told", stories.ended);
    stories.finish();
    assert_eq!(stories.open.len(), 0, "stories that were told and didn't end");

    let mut pods = Flood::new(SEQUENCE);
    let (grown, stats) = pods.grows_by(80_000, true);
    assert!(grown < 4 << 20, "{grown} bytes more");
    assert_eq!(stats.lives, 65_536);
    assert_eq!((stats.lives_opened, stats.lives_evicted), (pods.sent, pods.sent - 65_536));
    assert_eq!(pods.told, 0, "lives that end in peace and for room are no stories");
}
