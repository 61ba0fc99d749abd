//! Random events and their replay, shared by the naive engines.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules::Loaded;

pub(super) const KINDS: [&str; 4] = ["A", "B", "C", "D"];
pub(super) const KEYS: [&str; 3] = ["x", "y", "z"];

#[derive(Clone, Debug)]
pub(super) struct TestEvent {
    pub(super) time_s: u64,
    pub(super) kind: usize,
    /// `None`: the event has no such attribute.
    pub(super) key: Option<usize>,
}

impl TestEvent {
    /// The event's number, for measures.
    pub(super) fn number(&self) -> i64 {
        (self.time_s as i64 * 7 + self.kind as i64 * 3) % 10 - 2
    }
}

/// Events in total order (time, then line), each with its line, which is its id.
pub(super) fn ordered(events: &[TestEvent]) -> Vec<(usize, &TestEvent)> {
    let mut all: Vec<_> = events.iter().enumerate().collect();
    all.sort_by_key(|(line, e)| (e.time_s, *line));
    all
}

/// The join key of an event: `Some(None)` if the rule has none, `None` if the event can't match.
pub(super) fn key_of(by: bool, event: &TestEvent) -> Option<Option<usize>> {
    if by { event.key.map(Some) } else { Some(None) }
}

/// The matches that replay prints for these rules and events.
pub(super) fn replayed(rules: &str, events: &[TestEvent], shards: usize) -> Vec<Json> {
    let mut lines = String::new();
    for (line, event) in events.iter().enumerate() {
        let attributes =
            event.key.map_or(json!({}), |k| json!({"k": KEYS[k], "n": event.number()}));
        let time_ns = (1_700_000_000 + event.time_s) * 1_000_000_000;
        let event = json!({"id": line.to_string(), "time": time_ns, "source": "test",
            "kind": format!("t.{}", KINDS[event.kind]), "attributes": attributes});
        let _ = writeln!(lines, "{event}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    std::fs::write(&file, lines).unwrap();
    let mut loaded = Loaded::default();
    loaded.text("case.yaml", rules);
    assert!(loaded.errors.is_empty(), "{:?}\n{rules}", loaded.errors);
    let replayed = replay(&[file], loaded.rules, "", shards, Emit::Matches).unwrap();
    assert!(replayed.refused.is_empty() && replayed.account.holds());
    let total = &replayed.account.total;
    assert_eq!((total.held, total.received), (0, events.len() as u64));
    replayed.lines
}

pub(super) fn arbitrary_events() -> impl Strategy<Value = Vec<TestEvent>> {
    let event = (0..40u64, 0..4usize, prop::option::weighted(0.9, 0..3usize))
        .prop_map(|(time_s, kind, key)| TestEvent { time_s, kind, key });
    prop::collection::vec(event, 0..80)
}
