//! Realistic rules and a stream of events for them, processed by a shard as its worker does.

use std::fmt::Write as _;
use std::sync::Arc;

use tapio_core::event::{Event, EventId, Field, Name, Severity, Value, names};
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Bounds, EvidenceMessage};
use tapio_dataflow::rules::{Loaded, RuleSet};
use tapio_dataflow::{LaneOptions, Order, Shard, ShardStats, StepOutput};

use crate::meter::Meter;

/// Events written before they are processed: a usual drain of a ring.
const CHUNK: u64 = 1024;
/// Time between two events: 2 million a second, so that a window of a minute holds them all.
const STEP_NS: u64 = 500;
/// The interval at which a worker advances time.
const TICK_NS: u64 = 100_000_000;
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// Pods on the node.
const PODS: u64 = 1_000;

/// The shape of the rules.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Set {
    /// Two steps, each with a field of a fixed value; one key; a minute.
    Values,
    /// As `Values`, but with a regular expression and a bound: no lookup by value is possible.
    Searches,
    /// One event of the key opens a story.
    Opens,
}

/// The stream of events.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    /// This number of 1,000 events complete a match and the same number start the next partial
    /// match, over the live keys.
    Matches(u64),
    /// Each event starts a partial match for one of the live keys.
    Begins,
    /// Each event starts a partial match for a key that was never seen.
    NewKeys,
    /// Each event is the first of a pod that was never seen, and relevant to no rule.
    NewPods,
}

/// A measured case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) set: Set,
    pub(crate) rules: u64,
    pub(crate) keys: u64,
    pub(crate) traffic: Traffic,
    /// The bound of the shard's keys.
    pub(crate) max_keys: usize,
    /// The bound of its open stories.
    pub(crate) max_stories: usize,
    /// Whether the shard also extracts facts for the assessor, as in a running agent.
    pub(crate) extracts_evidence: bool,
}

impl Case {
    pub(crate) fn matching(set: Set, rules: u64, keys: u64, per_mille: u64) -> Self {
        let LaneOptions { max_stories, .. } = LaneOptions::default();
        let traffic = Traffic::Matches(per_mille);
        Self { set, rules, keys, traffic, max_keys: 1 << 21, max_stories, extracts_evidence: false }
    }

    pub(crate) fn name(&self) -> String {
        let Self { rules, keys, .. } = self;
        let set = match self.set {
            Set::Values => "two steps by value",
            Set::Searches => "two steps by regex and bound",
            Set::Opens => "one step opens a story",
        };
        let traffic = match self.traffic {
            Traffic::Matches(n) => format!("{} % match", n as f64 / 10.0),
            Traffic::Begins => "all start a partial match again".into(),
            Traffic::NewKeys => "all start one for a new key".into(),
            Traffic::NewPods => "all of new pods".into(),
        };
        let seen = if self.extracts_evidence { ", observed" } else { "" };
        let (most, stories) = (self.max_keys, self.max_stories);
        format!(
            "{rules} rules ({set}), {keys} keys, {traffic}, room for {most} keys {stories} stories{seen}"
        )
    }

    fn document(&self) -> String {
        let mut text = String::new();
        for n in 0..self.rules {
            let (first, second) = match self.set {
                Set::Values | Set::Opens => {
                    (format!("attributes.error.type: E{n}"), format!("attributes.error.type: F{n}"))
                }
                Set::Searches => (
                    format!(
                        "message: {{ regex: 'code E{n}(?:\\.|$)' }}, attributes.n: {{ gt: 0 }}"
                    ),
                    format!(
                        "message: {{ regex: 'code F{n}(?:\\.|$)' }}, attributes.n: {{ gt: 0 }}"
                    ),
                ),
            };
            let kind = KINDS[(n % KINDS.len() as u64) as usize];
            let _ = match self.set {
                Set::Opens => write!(
                    text,
                    "rule: r{n}\nevents: {{ a: {{ kind: {kind}, {first} }} }}\ncount: {{ event: a, \
                     by: [attributes.client.address], within: 60s, at_least: 1 }}\n"
                ),
                _ => write!(
                    text,
                    "rule: r{n}\nevents: {{ a: {{ kind: {kind}, {first} }}, b: {{ kind: {kind}, {second} }} \
                     }}\nsequence: {{ by: [attributes.client.address], within: 60s, steps: [{{ event: a \
                     }}, {{ event: b }}] }}\n"
                ),
            };
            text.push_str("story: { pattern: p }\n---\n");
        }
        text
    }
}

/// Floods of made-up keys, each after the same work without a flood.
pub(crate) fn floods() -> [Case; 6] {
    let begins = Case {
        traffic: Traffic::Begins,
        max_keys: 65_536,
        ..Case::matching(Set::Values, 100, 1_000, 0)
    };
    let pods = Case { traffic: Traffic::Matches(0), ..begins };
    let opens = Case { set: Set::Opens, rules: 10, ..begins };
    [
        begins,
        Case { traffic: Traffic::NewKeys, ..begins },
        opens,
        Case { traffic: Traffic::NewKeys, ..opens },
        pods,
        Case { traffic: Traffic::NewPods, ..pods },
    ]
}

const KINDS: [&str; 4] = ["app.request", "app.message", "app.refused", "otlp.log"];

/// The variable parts of one event.
struct Line {
    key: u64,
    pod: u64,
    rule: u64,
    /// `E` and `F` are relevant to the rule, anything else to none.
    letter: char,
}

/// A shard and its stream of events.
pub(crate) struct World {
    case: Case,
    shard: Shard,
    output: StepOutput,
    messages: Vec<EvidenceMessage>,
    writer: RecordWriter,
    reader: RecordReader,
    kinds: Vec<Name>,
    /// Attribute names: address, code, number, route.
    names: [Name; 4],
    events: u64,
    matches: u64,
    tick_ns: u64,
}

impl World {
    /// Creates the shard, with a partial match for every live key.
    pub(crate) fn new(case: Case) -> Self {
        let mut loaded = Loaded::default();
        loaded.text("bench.yaml", &case.document());
        assert_eq!(loaded.errors, []);
        let rules = Arc::new(RuleSet::new(loaded.rules, "bench", 1));
        let options = LaneOptions {
            max_keys: case.max_keys,
            max_stories: case.max_stories,
            ..LaneOptions::default()
        };
        let (writer, reader) = ring(16 * 1024);
        let name = |text| Name::intern(text).unwrap();
        let shard = Shard::new(rules, 0, Order::Arrival, options);
        let shard = if case.extracts_evidence { shard.with_evidence(Bounds::LIVE) } else { shard };
        let mut world = Self {
            case: Case { traffic: Traffic::Begins, ..case },
            shard,
            output: StepOutput::default(),
            messages: Vec::new(),
            writer,
            reader,
            kinds: KINDS.iter().map(|k| name(k)).collect(),
            names: ["client.address", "error.type", "n", "http.route"].map(name),
            events: 0,
            matches: 0,
            tick_ns: 0,
        };
        world.run(case.keys, &mut Meter::default());
        world.case = case;
        world
    }

    pub(crate) fn stats(&self) -> ShardStats {
        self.shard.stats()
    }

    /// The next event.
    fn next(&mut self) -> Line {
        let (n, keys) = (self.events, self.case.keys.max(1));
        let line =
            |key: u64, letter| Line { key, pod: key % PODS, rule: key % self.case.rules, letter };
        match self.case.traffic {
            Traffic::Begins => line(n % keys, 'E'),
            Traffic::NewKeys => line(n, 'E'),
            Traffic::NewPods => Line { pod: n, ..line(n % keys, 'X') },
            Traffic::Matches(per_mille) => {
                // Spread evenly: the completing event, followed by the key's next first event.
                let ends = |n: u64| n * per_mille / 1000;
                if ends(n + 1) > ends(n) {
                    self.matches += 1;
                    line(self.matches % keys, 'F')
                } else if n > 0 && ends(n) > ends(n - 1) {
                    line(self.matches % keys, 'E')
                } else {
                    line(n % keys, 'X')
                }
            }
        }
    }

    fn write(&mut self) {
        let line = self.next();
        let n = self.events;
        let address = format!("2001:db8::{:x}:{:x}", line.key >> 16, line.key & 0xffff);
        let code = format!("{}{}", line.letter, line.rule);
        let uid = format!("{:08x}-7f0b-4c57-9d0e-2b1f3a4c5d6e", line.pod);
        let pod = format!("checkout-7d9f8b6c5-{:05x}", line.pod);
        let message = format!("request of {address} answered with code {code}");
        let field = |key, value| Field { key, value };
        let fields = [
            field(names::HOST_NAME, Value::Str("node-17")),
            field(names::K8S_POD_UID, Value::Str(&uid)),
            field(names::K8S_POD_NAME, Value::Str(&pod)),
            field(names::PROCESS_PID, Value::Int(4_711)),
            field(self.names[3], Value::Str("/checkout/{id}")),
            field(self.names[0], Value::Str(&address)),
            field(self.names[2], Value::Int(7)),
            field(self.names[1], Value::Str(&code)),
        ];
        let time_ns = BEGIN_NS + n * STEP_NS;
        let kind = self.kinds[(line.rule % KINDS.len() as u64) as usize];
        let event = Event {
            fields: &fields,
            entities: 4,
            severity: Severity::INFO,
            message: &message,
            ..Event::new(EventId::from_sequence(1, 1, n), time_ns, kind, names::EBPF)
        };
        self.writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
        self.events += 1;
    }

    /// Writes events and processes them. Measures the processing.
    pub(crate) fn run(&mut self, events: u64, meter: &mut Meter) {
        let mut left = events;
        while left > 0 {
            let now = left.min(CHUNK);
            (0..now).for_each(|_| self.write());
            meter.measure(|| self.process());
            left -= now;
        }
    }

    /// Processes the records of a ring as a worker does.
    fn process(&mut self) {
        let Self { shard, output, reader, messages, .. } = self;
        let mut clock_ns = 0;
        reader.drain(usize::MAX, |record| {
            clock_ns = record.header().time_ns;
            shard.step(record, clock_ns, output);
            std::hint::black_box(shard.next_header(record, output));
            true
        });
        if clock_ns.saturating_sub(self.tick_ns) >= TICK_NS {
            self.tick_ns = clock_ns;
            shard.advance(clock_ns, clock_ns);
        }
        shard.take_messages(messages, false);
        // From here on the messages are the assessor's.
        std::hint::black_box(&*messages);
        messages.clear();
    }
}
