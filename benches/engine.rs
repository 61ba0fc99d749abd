//! Cost of the rules per event: `cargo bench --bench engine`.
//!
//! The name of each benchmark contains the number of rules and live keys, and the share of matching
//! events. Events are written to a ring and processed by a [`tapio_dataflow::Shard`] from there;
//! only the processing is measured.
//!
//! `ENGINE=figures cargo bench --bench engine` prints the ratios that the design requires, from
//! medians over rounds in which the cases alternate. `perf/instructions.sh --engine` counts the
//! instructions of the same cases.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark fails by panicking, prints, and measures wall-clock time"
)]

#[path = "stages/meter.rs"]
mod meter;
#[path = "engine/stream.rs"]
mod stream;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use meter::Meter;
use stream::{Case, Set, World, floods};

/// Events of one round of the figures.
const ROUND: u64 = 200_000;
const ROUNDS: usize = 15;

fn grid() -> Vec<Case> {
    let mut cases = Vec::new();
    // Where the cases are only checked to run, a million keys would take minutes.
    let is_measured = std::env::args().any(|a| a == "--bench");
    let keys: &[u64] = if is_measured { &[1_000, 100_000, 1_000_000] } else { &[1_000] };
    for &keys in keys {
        for rules in [10, 100, 1_000] {
            for per_mille in [0, 10, 500] {
                cases.push(Case::matching(Set::Values, rules, keys, per_mille));
            }
        }
    }
    for rules in [10, 100] {
        cases.push(Case::matching(Set::Searches, rules, 1_000, 10));
    }
    cases.push(Case { extracts_evidence: true, ..Case::matching(Set::Values, 100, 1_000, 10) });
    cases.extend(floods());
    cases
}

/// The time of the processing of this many events.
fn run(world: &mut World, events: u64) -> Duration {
    let mut meter = Meter::default();
    world.run(events, &mut meter);
    meter.spent
}

fn benches(c: &mut Criterion) {
    let mut story = c.benchmark_group("engine");
    story.throughput(Throughput::Elements(1)).sample_size(10);
    story.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for case in grid() {
        let mut world = None;
        story.bench_function(case.name(), |b| {
            let world = world.get_or_insert_with(|| World::new(case));
            b.iter_custom(|events| run(world, events));
        });
    }
    story.finish();
}

/// Nanoseconds per event of each case: medians over rounds in which the cases alternate, so that
/// other load on the host affects all of them.
fn medians(cases: &[Case]) -> Vec<f64> {
    let mut worlds: Vec<World> = cases.iter().map(|case| World::new(*case)).collect();
    let mut rounds = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (world, rounds) in worlds.iter_mut().zip(&mut rounds) {
            rounds.push(run(world, ROUND).as_nanos() as f64 / ROUND as f64);
        }
    }
    for rounds in &mut rounds {
        rounds.sort_by(f64::total_cmp);
    }
    for ((case, world), rounds) in cases.iter().zip(&worlds).zip(&rounds) {
        let (s, median) = (world.stats(), rounds[ROUNDS / 2]);
        println!(
            "{median:8.1} ns (best {:.1})  {}: {} keys, {} evicted, {} lifecycles evicted, {} matches, {} open, {} expired",
            rounds[0],
            case.name(),
            s.lane.keys,
            s.lane.keys_evicted,
            s.lifecycles_evicted,
            s.lane.matches,
            s.lane.stories_open,
            s.lane.stories_expired
        );
    }
    rounds.iter().map(|r| r[ROUNDS / 2]).collect()
}

fn figures() {
    for per_mille in [0, 10, 500] {
        let case = |rules, keys| Case::matching(Set::Values, rules, keys, per_mille);
        let of =
            medians(&[case(10, 1_000), case(1_000, 1_000), case(100, 1_000), case(100, 1_000_000)]);
        println!(
            "at {} % matches: 1,000 rules cost {:.2} of 10 (at most 1.5); 1 M keys {:.2} of 1 k (at most 2); \
             100 rules {:.2} M events/s (at least 2 at 1 %)",
            per_mille as f64 / 10.0,
            of[1] / of[0],
            of[3] / of[2],
            1e3 / of[2]
        );
    }
    for pair in floods().chunks(2) {
        let of = medians(pair);
        println!("a flood costs {:.2} of the usual (at most 2)", of[1] / of[0]);
    }
}

fn main() {
    match std::env::var("ENGINE").as_deref() {
        Ok("figures") => figures(),
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            benches(&mut criterion);
            criterion.final_summary();
        }
    }
}
