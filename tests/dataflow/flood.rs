//! A flood of keys: each event has one that was never seen. A shard's memory stays bounded, and
//! evictions are counted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/counting.rs"]
mod counting;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use counting::HELD;
use tapio_core::event::{Event, EventId, Field, Name, TraceId, Value, names};
use tapio_core::memory::MemoryLevel;
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::{Loaded, RuleSet};
use tapio_dataflow::{LaneOptions, Order, Shard, ShardStats, StepOutput};

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

const DEVIATES: &str = "rule: deviates
events: { a: { kind: t.a } }
count: { event: a, by: [attributes.k], within: 1ms, condition: { deviation: { gt: 6 } } }
story: { pattern: p }
";

struct Flood {
    shard: Shard,
    writer: RecordWriter,
    reader: RecordReader,
    messages: Vec<EvidenceMessage>,
    assessor: Assessor,
    /// Stories that were emitted and haven't ended.
    open: HashSet<TraceId>,
    sent: u64,
    emitted: u64,
    ended: u64,
}

impl Flood {
    fn new(rules: &str) -> Self {
        let mut loaded = Loaded::default();
        loaded.text("r.yaml", rules);
        assert_eq!(loaded.errors, []);
        let rules = Arc::new(RuleSet::new(loaded.rules, "", 1));
        let options = LaneOptions {
            max_keys: BOUND,
            max_stories: BOUND / 2,
            max_seen: BOUND / 4,
            ..LaneOptions::default()
        };
        let (writer, reader) = ring(1 << 14);
        Self {
            shard: Shard::new(rules, 0, Order::Arrival, options),
            writer,
            reader,
            messages: Vec::new(),
            assessor: Assessor::new(Bounds::LIVE),
            open: HashSet::new(),
            sent: 0,
            emitted: 0,
            ended: 0,
        }
    }

    /// Processes events, a microsecond apart, each with its own key; with `pods`, as pods.
    fn send(&mut self, events: u64, pods: bool) {
        let kind = Name::intern("t.a").unwrap();
        let key = if pods { names::K8S_POD_UID } else { Name::intern("k").unwrap() };
        let mut output = StepOutput::default();
        for n in self.sent..self.sent + events {
            let text = format!("{n:032x}");
            let fields = [Field { key, value: Value::Str(&text) }];
            let time_ns = BEGIN_NS + n * 1_000;
            let id = EventId::from_sequence(1, 1, n);
            let event = Event::new(id, time_ns, kind, names::EBPF);
            let event = Event { fields: &fields, entities: u8::from(pods), ..event };
            self.writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
            self.reader.drain(usize::MAX, |record| {
                self.shard.step(record, time_ns, &mut output);
                true
            });
            if n % 1000 == 0 {
                self.shard.advance(time_ns, time_ns);
            }
            self.receive();
        }
        self.sent += events;
    }

    fn receive(&mut self) {
        self.shard.take_messages(&mut self.messages, false);
        for message in self.messages.drain(..) {
            let Some(story) = self.assessor.process(message) else { continue };
            self.emitted += 1;
            if story.state.is_end() {
                self.ended += 1;
                self.open.remove(&story.id);
            } else {
                self.open.insert(story.id);
            }
        }
    }

    /// Bounds shard and assessor to a level of memory. Returns the bytes that this frees.
    fn limit(&mut self, level: MemoryLevel) -> i64 {
        let before = HELD.load(Ordering::Relaxed) as i64;
        self.shard.limit(level, BEGIN_NS + self.sent * 1_000);
        self.receive();
        self.assessor.limit(Bounds::LIVE.at(level));
        before - HELD.load(Ordering::Relaxed) as i64
    }

    fn finish(&mut self) {
        self.shard.finish(false, BEGIN_NS + self.sent * 1_000);
        self.receive();
    }

    /// The growth in bytes by four times as many events as it takes to fill every table.
    fn grows_by(&mut self, fill: u64, pods: bool) -> (i64, ShardStats) {
        self.send(fill, pods);
        let before = HELD.load(Ordering::Relaxed) as i64;
        self.send(4 * fill, pods);
        (HELD.load(Ordering::Relaxed) as i64 - before, self.shard.stats())
    }
}

/// One test, so that the memory of no other is counted.
#[test]
fn flood_of_keys_stories_or_pods_stays_within_bounds() {
    // A tenth of what a full table holds may vary.
    let mut keys = Flood::new(SEQUENCE);
    let (grown, stats) = keys.grows_by(10 * BOUND as u64, false);
    assert!(grown < BOUND as i64 * 100, "{grown} bytes more");
    assert_eq!(stats.lane.keys, BOUND as u64);
    assert_eq!(stats.lane.keys_evicted, keys.sent - BOUND as u64);
    assert_eq!(stats.lane.stories_opened, 0);

    let mut stories = Flood::new(OPENS);
    let (grown, stats) = stories.grows_by(20 * BOUND as u64, false);
    assert!(grown < BOUND as i64 * 500, "{grown} bytes more");
    assert_eq!((stats.lane.keys, stats.lane.stories_open), (BOUND as u64, BOUND as u64 / 2));
    assert_eq!((stats.lane.stories_opened, stats.lane.matches), (stories.sent, stories.sent));
    assert_eq!(stats.lane.keys_evicted, stories.sent - BOUND as u64);
    assert_eq!(
        stats.lane.stories_expired,
        stories.sent - BOUND as u64 / 2,
        "every story ends, counted"
    );
    // Stories evicted before they were emitted are counted; emitted ones end.
    assert!(stories.emitted < stories.sent / 2, "{} of {} emitted", stories.emitted, stories.sent);
    assert!(stats.event_time.dropped_unemitted > stories.sent / 2, "{stats:?}");
    assert!(stories.ended > 0 && stories.open.len() <= BOUND, "{} emitted", stories.ended);
    let freed = stories.limit(MemoryLevel::SMALLEST);
    assert!(freed > BOUND as i64 * 1_000, "{freed} bytes");
    let stats = stories.shard.stats();
    assert_eq!((stats.lane.keys, stats.lane.stories_open), (BOUND as u64 / 256, 3));
    assert!(stories.open.len() <= BOUND / 256, "{} emitted stories are left", stories.open.len());
    stories.send(BOUND as u64, false);
    assert_eq!(stories.shard.stats().lane.keys, BOUND as u64 / 256);
    stories.limit(MemoryLevel::EMPTY);
    assert_eq!(stories.shard.stats().event_time.waiting, 1);
    stories.limit(MemoryLevel::NORMAL);
    stories.send(2 * BOUND as u64, false);
    let stats = stories.shard.stats();
    assert_eq!((stats.lane.keys, stats.lane.stories_open), (BOUND as u64, BOUND as u64 / 2));
    assert_eq!(stats.uncorrelated, 0);
    stories.finish();
    assert_eq!(stories.open.len(), 0, "emitted stories that didn't end");

    let mut baselines = Flood::new(DEVIATES);
    let (grown, stats) = baselines.grows_by(10 * BOUND as u64, false);
    assert!(grown < BOUND as i64 * 100, "{grown} bytes more");
    assert_eq!(stats.lane.baselines, BOUND as u64 / 4);
    assert_eq!(stats.lane.baselines_evicted, baselines.sent - BOUND as u64 / 4);
    baselines.limit(MemoryLevel::SMALLEST);
    assert_eq!(baselines.shard.stats().lane.baselines, BOUND as u64 / 4 / 256);

    let mut pods = Flood::new(SEQUENCE);
    let (grown, stats) = pods.grows_by(80_000, true);
    assert!(grown < 4 << 20, "{grown} bytes more");
    assert_eq!(stats.lifecycles, 65_536);
    assert_eq!(
        (stats.lifecycles_opened, stats.lifecycles_evicted),
        (pods.sent, pods.sent - 65_536)
    );
    assert_eq!(pods.emitted, 0, "evicted lifecycles without an error are no stories");
}
