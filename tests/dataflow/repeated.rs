//! An event that comes again counts once.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::sync::Arc;

use tapio_core::event::{JsonEvent, Story};
use tapio_core::ring::{Header, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::{Loaded, RuleSet};
use tapio_dataflow::{LaneOptions, Order, Shard, StepOutput};

const START_NS: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

const RULES: &str = "rule: three
events: { e: { kind: t.e } }
count: { event: e, by: [attributes.k], within: 60s, at_least: 3 }
story: { pattern: three }
---
rule: pair
events: { e: { kind: t.e }, f: { kind: t.f } }
sequence: { by: [attributes.k], within: 60s, steps: [{ event: e }, { event: f }] }
story: { pattern: pair }
";

/// The final stories of these events (`kind`, id), a second apart, all of one key: pattern and
/// number of members. Also the number of events that came again.
fn stories(order: Order, events: &[(&str, &str)]) -> (Vec<(String, u64)>, u64) {
    let mut loaded = Loaded::default();
    loaded.text("r.yaml", RULES);
    assert_eq!(loaded.errors, []);
    let rules = Arc::new(RuleSet::new(loaded.rules, "", 1));
    let mut shard = Shard::new(rules, 0, order, LaneOptions::default());
    let (mut writer, mut reader) = ring(0);
    for (second, (kind, id)) in (0..).zip(events) {
        let time_ns = START_NS + second * SECOND;
        let line =
            format!(r#"{{"time":{time_ns},"kind":"{kind}","id":"{id}","attributes":{{"k":"x"}}}}"#);
        let parsed = JsonEvent::parse(&line, "").unwrap();
        let mut fields = Vec::new();
        writer.write_event(&Header::event(0, 1, time_ns), &parsed.event(0, &mut fields)).unwrap();
        reader.drain(usize::MAX, |record| {
            shard.step(record, time_ns, &mut StepOutput::default());
            true
        });
    }
    shard.finish(true, START_NS + 100 * SECOND);
    let mut messages: Vec<EvidenceMessage> = Vec::new();
    shard.take_messages(&mut messages, true);
    let mut assessor = Assessor::new(Bounds::LIVE);
    let assessed = messages.into_iter().filter_map(|message| assessor.process(message));
    let ended: Vec<Story> = assessed.filter(|story| story.state.is_end()).collect();
    let mut found: Vec<_> = ended.into_iter().map(|s| (s.pattern, s.members_total)).collect();
    found.sort();
    (found, shard.stats().lane.repeated)
}

#[test]
fn event_that_comes_again_counts_once() {
    for order in [Order::Arrival, Order::Total] {
        let same = [("t.e", "a"); 5];
        assert_eq!(stories(order, &same), (vec![], 4), "{order:?}");
        let three = [("t.e", "a"), ("t.e", "b"), ("t.e", "a"), ("t.e", "c"), ("t.e", "b")];
        assert_eq!(stories(order, &three), (vec![("three".into(), 3)], 2), "{order:?}");
        let pair = [("t.e", "a"), ("t.e", "a"), ("t.f", "f"), ("t.f", "f")];
        assert_eq!(stories(order, &pair), (vec![("pair".into(), 2)], 2), "{order:?}");
    }
}
