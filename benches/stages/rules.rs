//! Stages that evaluate rules: routing, predicates, a shard's step.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tapio_core::event::{Event, JsonEvent};
use tapio_core::ring::Router as _;
use tapio_core::ring::{Header, ring};
use tapio_dataflow::evidence::Bounds;
use tapio_dataflow::rules::{Outcomes, RuleSet, builtin};
use tapio_dataflow::{LaneOptions, Order, Shard, StepOutput};

use crate::Round;
use crate::records::Otlp;
use crate::stream::{Case, World};

/// Shards that events are routed to.
const SHARDS: usize = 8;
/// Events of each recorded story, so that the longest story doesn't outweigh the others.
const EVENTS_OF_A_STORY: usize = 128;

/// Events of the recorded stories of tests/stories, of about forty kinds.
fn recorded_events() -> Vec<Event<'static>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    let texts: Vec<_> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let lines = texts.iter().flat_map(|text| text.lines().take(EVENTS_OF_A_STORY));
    let parsed: Vec<_> = lines.map(|line| JsonEvent::parse(line, "bench:1").unwrap()).collect();
    // Events borrow their fields; the process ends soon.
    let parsed: &'static [JsonEvent] = parsed.leak();
    parsed.iter().map(|event| event.event(1, Box::leak(Box::default()))).collect()
}

/// The built-in rules for one shard. Loading them takes seconds under callgrind.
pub(crate) fn builtin_rules() -> Arc<RuleSet> {
    static RULES: OnceLock<Arc<RuleSet>> = OnceLock::new();
    Arc::clone(RULES.get_or_init(|| Arc::new(RuleSet::new(builtin().rules, "", 1))))
}

/// Routes recorded events by the built-in rules.
pub(crate) fn route() -> Round {
    let rules = RuleSet::new(builtin().rules, "", SHARDS);
    let recorded = recorded_events();
    Box::new(move |events, meter| {
        meter.measure(|| {
            for event in recorded.iter().cycle().take(events as usize) {
                black_box(rules.route(event));
            }
        });
    })
}

/// Finds the built-in rules' predicates that hold for recorded events, as archived in a ring.
pub(crate) fn predicates() -> Round {
    let rules = builtin_rules();
    let recorded = recorded_events();
    let (mut writer, mut reader) = ring(64 * 1024);
    let mut outcomes = Outcomes::default();
    Box::new(move |events, meter| {
        for event in recorded.iter().cycle().take(events as usize) {
            writer.write_event(&Header::event(0, 1, event.time_ns), event).unwrap();
        }
        meter.measure(|| {
            reader.drain(usize::MAX, |record| {
                let event = record.event().unwrap();
                rules.plan(event.kind_name()).evaluate(event, &mut outcomes);
                black_box(&outcomes.relevant);
                true
            });
        });
    })
}

/// Processes log records from OTLP that no built-in rule matches, as a worker does.
pub(crate) fn step_unmatched() -> Round {
    let shard = Shard::new(builtin_rules(), 0, Order::Arrival, LaneOptions::default());
    let mut shard = shard.with_evidence(Bounds::LIVE);
    let mut otlp = Otlp::new();
    let (mut output, mut messages) = (StepOutput::default(), Vec::new());
    Box::new(move |records, meter| {
        let reader = otlp.events(records);
        meter.measure(|| {
            reader.drain(usize::MAX, |record| {
                shard.step(record, record.header().time_ns, &mut output);
                assert!(!output.relevant);
                black_box(shard.next_header(record, &output));
                true
            });
            shard.take_messages(&mut messages, false);
        });
        messages.clear();
    })
}

/// Processes the events of a case of benches/engine.rs.
pub(crate) fn engine(case: Case) -> Round {
    let mut world = World::new(case);
    Box::new(move |events, meter| {
        world.run(events, meter);
        assert_eq!(world.stats().failures, 0, "a rule that fails costs nothing");
    })
}
