//! The stages of an event's path, each on its own: `cargo bench --bench stages`.
//!
//! Criterion prints the time of a round and, as `thrpt`, the items a second. Stages with rings,
//! batches and rules in more detail: benches/ring.rs, wire.rs, otlp.rs, engine.rs.
//!
//! perf/instructions.sh counts the instructions of the same stages. Under callgrind,
//! `STAGES=count` runs every stage (`STAGES=engine`: the cases of benches/engine.rs) for one and
//! for two rounds, and `STAGES=report` compares what callgrind wrote into `STAGES_DIR` with the
//! committed baseline.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a benchmark fails by panicking, prints, and measures wall-clock time"
)]

#[path = "stages/count.rs"]
mod count;
#[path = "stages/disk.rs"]
mod disk;
#[path = "stages/meter.rs"]
mod meter;
#[path = "stages/records.rs"]
mod records;
#[path = "otlp/request.rs"]
mod request;
#[path = "stages/rules.rs"]
mod rules;
#[path = "engine/stream.rs"]
mod stream;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use meter::Meter;
use stream::{Case, Set, Traffic, floods};

/// Does a stage's work on this many items.
type Round = Box<dyn FnMut(u64, &mut Meter)>;

/// A stage of an event's path.
struct Stage {
    name: String,
    /// Items of a round: events or records.
    items: u64,
    /// Items of the first round, after which tables and caches are as full as they become.
    warm_items: u64,
    build: Box<dyn Fn() -> Round>,
}

impl Stage {
    fn new(name: impl Into<String>, items: u64, build: impl Fn() -> Round + 'static) -> Self {
        Self { name: name.into(), items, warm_items: items, build: Box::new(build) }
    }
}

/// The stages, in the order of an event's path.
fn stages() -> Vec<Stage> {
    let matches = Case::matching(Set::Values, 100, 1_000, 500);
    let [_, _, updates, ..] = floods();
    vec![
        Stage::new("ring: write and read", 1_000, records::write_and_read),
        Stage::new("otlp in: decode", 1_000, records::decode_otlp),
        Stage::new("otlp in: request to ring", 1_000, records::otlp_to_ring),
        Stage::new("otlp in: records pass as they came", 1_000, records::otlp_passes),
        Stage::new("route", 4_000, rules::route),
        Stage::new("predicates of built-in rules", 1_000, rules::predicates),
        Stage::new("step: no rule matches", 1_000, rules::step_unmatched),
        Stage::new("step: half of the events complete a match", 4_000, move || {
            rules::engine(matches)
        }),
        Stage::new("step: each event updates a story", 4_000, move || rules::engine(updates)),
        Stage::new("batch: encode", 1_000, records::encode_batch),
        Stage::new("batch: decode", 1_000, records::decode_batch),
        Stage::new("spool: append", 10_000, disk::append),
        Stage::new("server: ingest", 5_000, disk::ingest),
        Stage::new("otlp out: records that came by OTLP", 1_000, records::encode_otlp),
        Stage::new("otlp out: records that passed", 1_000, records::splice_otlp),
        Stage::new("otlp out: events of own collectors", 1_000, records::encode_own),
    ]
}

/// The cases of benches/engine.rs.
fn engine_cases() -> Vec<Stage> {
    let mut cases = Vec::new();
    for per_mille in [0, 10, 500] {
        for (rules, keys) in [(10, 1_000), (100, 1_000), (1_000, 1_000), (100, 100_000)] {
            cases.push(Case::matching(Set::Values, rules, keys, per_mille));
        }
    }
    for rules in [10, 100] {
        cases.push(Case::matching(Set::Searches, rules, 1_000, 10));
    }
    cases.push(Case { extracts_evidence: true, ..Case::matching(Set::Values, 100, 1_000, 10) });
    cases.extend(floods());
    let stage = |case: Case| {
        let is_flood = matches!(case.traffic, Traffic::NewKeys | Traffic::NewPods);
        // A flood's tables have to be full before the count begins.
        let warm_items = if is_flood { case.max_keys as u64 * 5 / 4 } else { 10_000 };
        Stage { warm_items, ..Stage::new(case.name(), 10_000, move || rules::engine(case)) }
    };
    cases.into_iter().map(stage).collect()
}

fn measure(c: &mut Criterion) {
    let mut group = c.benchmark_group("stages");
    group.sample_size(20).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    for stage in stages() {
        group.throughput(Throughput::Elements(stage.items));
        let mut round = None;
        group.bench_function(&stage.name, |b| {
            let round = round.get_or_insert_with(|| (stage.build)());
            b.iter_custom(|rounds| {
                let mut meter = Meter::default();
                (0..rounds).for_each(|_| round(stage.items, &mut meter));
                meter.spent
            });
        });
    }
    group.finish();
}

fn main() {
    match std::env::var("STAGES").as_deref() {
        Ok("count") => count::run(&stages()),
        Ok("engine") => count::run(&engine_cases()),
        Ok("report") => count::report(&stages()),
        Ok("items") => stages().iter().for_each(|stage| println!("{}", 2 * stage.items)),
        Ok("report-engine") => count::report(&engine_cases()),
        Ok(other) => panic!("STAGES={other}: count, engine, items, report or report-engine"),
        Err(_) => {
            let mut criterion = Criterion::default().configure_from_args();
            measure(&mut criterion);
            criterion.final_summary();
        }
    }
}
