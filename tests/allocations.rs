//! The allocations of each stage of an event's path, per event, after caches and tables have grown.
//! The stages are those of `cargo bench --bench stages`; the counts go to standard output.
//!
//! A stage of the hot path allocates nothing for an event. What it allocates for a request or a
//! batch is shared by its events. The bound of a stage that does allocate has its reason beside it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "support/counting.rs"]
mod counting;
#[path = "../benches/stages/disk.rs"]
mod disk;
#[path = "allocations/meter.rs"]
mod meter;
#[path = "allocations/receiver.rs"]
mod receiver;
#[path = "../benches/stages/records.rs"]
mod records;
#[path = "../benches/otlp/request.rs"]
mod request;
#[path = "../benches/stages/rules.rs"]
mod rules;
#[allow(dead_code, reason = "names are for benchmarks")]
#[path = "../benches/engine/stream.rs"]
mod stream;

use meter::Meter;
use stream::{Case, Set, floods};

/// Does a stage's work on this many items.
type Round = Box<dyn FnMut(u64, &mut Meter)>;

/// Rounds that fill caches and tables, and rounds that are counted.
const WARM_ROUNDS: u64 = 10;
const ROUNDS: u64 = 4;

/// Allocations per event of tables that grow in chunks, of a segment's files, of a block's fields,
/// of a ring's second part.
const GROWTH: f64 = 0.01;

/// The most allocations that a request or a batch shares among its events.
const PER_ROUND: f64 = 20.0;

/// The copy of an event that a rule matches, which waits for the watermark in the event-time lane:
/// the record and its blocks. What a shard keeps for each key and entity grows now and then.
const UPDATE: f64 = 2.5;

/// A partial match and its members, in each of the two lanes: four. The copy of the event is two.
const PARTIAL_MATCH: f64 = 6.5;

/// Half of the events start a partial match; the others complete one, which opens a story. Lists
/// begin with room for one element: another allocation for the second one.
const MATCH: f64 = 7.5;

/// The text of an entity that is a number, by which the server finds the event. The index of a
/// batch grows.
const NUMBER_AS_TEXT: f64 = 1.2;

struct Stage {
    name: &'static str,
    /// Events of a round.
    events: u64,
    /// The most allocations per event.
    bound: f64,
    build: fn() -> Round,
}

const fn stage(name: &'static str, events: u64, bound: f64, build: fn() -> Round) -> Stage {
    Stage { name, events, bound, build }
}

const STAGES: &[Stage] = &[
    stage("receiver: batch to ring", 1_000, GROWTH, receiver::batch_to_ring),
    stage("otlp in: decode", 1_000, 0.0, records::decode_otlp),
    stage("otlp in: request to ring", 1_000, GROWTH, records::otlp_to_ring),
    stage("otlp in: records pass as they came", 1_000, 0.0, records::otlp_passes),
    stage("ring: write and read", 1_000, GROWTH, records::write_and_read),
    stage("route", 4_000, 0.0, rules::route),
    stage("predicates of built-in rules", 1_000, 0.0, rules::predicates),
    stage("step: no rule matches", 1_000, GROWTH, rules::step_unmatched),
    stage("step: each event updates a story", 4_000, UPDATE, || rules::engine(updates())),
    stage("step: each event starts a partial match", 4_000, PARTIAL_MATCH, || {
        rules::engine(begins())
    }),
    stage("step: half of the events complete a match", 4_000, MATCH, || {
        rules::engine(Case::matching(Set::Values, 100, 1_000, 500))
    }),
    stage("bridge: records to batch", 1_000, 0.0, records::encode_batch),
    stage("spool: append", 10_000, GROWTH, disk::append),
    stage("export: records that came by OTLP", 1_000, 0.0, records::encode_otlp),
    stage("export: records that passed", 1_000, GROWTH, records::splice_otlp),
    stage("export: events of own collectors", 1_000, 0.0, records::encode_own),
    stage("server: decode a batch", 1_000, 0.0, records::decode_batch),
    stage("server: ingest", 5_000, NUMBER_AS_TEXT, disk::ingest),
];

fn begins() -> Case {
    let [begins, ..] = floods();
    begins
}

fn updates() -> Case {
    let [_, _, updates, ..] = floods();
    updates
}

/// The allocations of a stage per event, and those that the events of a round share: rounds of two
/// sizes differ by those of their events.
fn count(stage: &Stage) -> (f64, f64) {
    let mut round = (stage.build)();
    let mut rounds = |number: u64, events: u64| {
        let mut meter = Meter::default();
        (0..number).for_each(|_| round(events, &mut meter));
        meter.allocations as f64
    };
    let (one, two) = (stage.events, 2 * stage.events);
    rounds(WARM_ROUNDS, two);
    rounds(1, one);
    let (of_one, of_two) = (rounds(ROUNDS, one), rounds(ROUNDS, two));
    let per_event = (of_two - of_one) / (ROUNDS * one) as f64;
    (per_event, of_one / ROUNDS as f64 - per_event * one as f64)
}

#[test]
fn stages_stay_within_their_allocations() {
    println!("{:44} {:>9} {:>9} {:>9}", "allocations", "per event", "at most", "per round");
    let mut above = Vec::new();
    for stage in STAGES {
        let (per_event, shared) = count(stage);
        println!("{:44} {per_event:>9.4} {:>9} {shared:>9.1}", stage.name, stage.bound);
        if per_event > stage.bound {
            above.push(format!("{}: {per_event} per event, at most {}", stage.name, stage.bound));
        }
        if stage.bound == 0.0 && shared > PER_ROUND {
            above.push(format!("{}: {shared} per round, at most {PER_ROUND}", stage.name));
        }
    }
    assert!(above.is_empty(), "{above:#?}");
}

#[test]
fn allocations_are_counted_by_thread() {
    let mut meter = Meter::default();
    meter.measure(|| {
        let other = std::thread::scope(|scope| {
            let grown = || {
                let before = counting::allocations();
                let mut grown = Vec::with_capacity(1);
                (0..3u64).for_each(|n| grown.push(std::hint::black_box(n)));
                counting::allocations() - before
            };
            scope.spawn(grown).join().unwrap()
        });
        assert_eq!(other, 2, "one, and one more to grow");
    });
    let spawned = meter.allocations;
    meter.measure(|| drop(std::hint::black_box(Box::new(7))));
    assert_eq!(meter.allocations, spawned + 1);
    meter.measure(|| {
        std::hint::black_box(7);
    });
    assert_eq!(meter.allocations, spawned + 1);
}
