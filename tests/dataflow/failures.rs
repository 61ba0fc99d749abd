//! A rule that panics costs its own memberships of the event and its own state of the key; other
//! rules and keys go on, and no story stays open.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use tapio_core::event::JsonEvent;
use tapio_core::ring::{Header, RecordReader, RecordWriter, ring};
use tapio_dataflow::evidence::{Assessor, Bounds, EvidenceMessage};
use tapio_dataflow::rules::RuleSet;
use tapio_dataflow::{LaneOptions, Order, Shard, StepOutput};

use crate::failing_rule::good_and_failing_rule;

const SECOND: u64 = 1_000_000_000;
const START_NS: u64 = 1_700_000_000 * SECOND;

struct Live {
    shard: Shard,
    ring: (RecordWriter, RecordReader),
    messages: Vec<EvidenceMessage>,
}

impl Live {
    fn new() -> Self {
        let rules = Arc::new(RuleSet::new(good_and_failing_rule(), "", 1));
        let shard = Shard::new(rules, 0, Order::Arrival, LaneOptions::default());
        Self { shard, ring: ring(0), messages: Vec::new() }
    }

    /// Processes an event. Returns the rules in whose stories or partial matches it is a member.
    fn event(&mut self, second: u64, key: &str, fails: bool) -> Vec<&'static str> {
        let time_ns = START_NS + second * SECOND;
        let line = format!(
            r#"{{"time":{time_ns},"kind":"t.e","attributes":{{"k":"{key}","fails":{fails}}}}}"#
        );
        let parsed = JsonEvent::parse(&line, &line).unwrap();
        let mut fields = Vec::new();
        let event = parsed.event(0, &mut fields);
        let (writer, reader) = &mut self.ring;
        writer.write_event(&Header::event(0, 1, time_ns), &event).unwrap();
        let mut output = StepOutput::default();
        reader.drain(usize::MAX, |record| {
            self.shard.step(record, time_ns, &mut output);
            true
        });
        self.shard.advance(time_ns, time_ns);
        self.shard.take_messages(&mut self.messages, true);
        output.memberships.iter().map(|membership| membership.rule.text()).collect()
    }
}

#[test]
fn failing_rule_costs_its_own_memberships_and_key_only() {
    let mut live = Live::new();
    assert_eq!(live.event(0, "x", false), ["bad", "good"]);
    assert_eq!(live.event(0, "y", false), ["bad", "good"]);
    let keys = live.shard.stats().lane.keys;
    assert_eq!(live.event(1, "x", true), ["good"]);
    let stats = live.shard.stats();
    assert_eq!((stats.failures, stats.lane.failures), (1, 1));
    assert_eq!((stats.lane.keys_failed, stats.lane.keys), (1, keys - 1));
    assert_eq!(live.event(2, "y", false), ["bad", "good"], "another key is as before");
    assert_eq!(live.event(3, "x", false), ["bad", "good"], "the key starts anew");
    for second in 4..30 {
        live.event(second, "z", false);
    }
    let stats = live.shard.stats();
    assert_eq!(stats.event_time.failures, 1, "the event-time lane evaluates the event, too");
    assert_eq!((stats.failures, stats.keys_failed), (2, 2));
}

#[test]
fn stories_of_a_failing_rule_end() {
    let mut live = Live::new();
    for second in 0..200 {
        live.event(second, "x", second % 10 == 5);
    }
    live.shard.finish(false, START_NS + 200 * SECOND);
    live.shard.take_messages(&mut live.messages, true);
    let mut assessor = Assessor::new(Bounds::LIVE);
    let emitted: Vec<_> =
        live.messages.into_iter().filter_map(|message| assessor.process(message)).collect();
    assert!(emitted.iter().any(|story| story.rule == "good"));
    for story in &emitted {
        let mut revisions = emitted.iter().filter(|other| other.id == story.id);
        assert!(revisions.any(|revision| revision.state.is_end()), "{} stays open", story.rule);
    }
    assert_eq!(live.shard.stats().lane.stories_open, 0);
}
