//! Root causes and impact from evidence, through the production pipeline.
//!
//! | module | purpose |
//! | --- | --- |
//! | `ablation` | each term alone decides which candidate is first |
//! | `impact` | each fact changes the impact and is named in its evidence |
//! | `redundant_candidates` | candidates that better ones cover are omitted |
//! | `shards` | the same bytes for any number of shards |
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod ablation;
mod impact;
mod redundant_candidates;
mod shards;

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tapio_dataflow::replay::{Emit, Replayed, replay};
use tapio_dataflow::rules::{Loaded, Rule};

/// 2026-02-01T10:00:00Z.
const BEGIN_S: i64 = 1_769_940_000;

/// A time that isn't a whole second: its clock ticks in microseconds.
fn at(milliseconds: f64) -> i64 {
    BEGIN_S * 1_000_000_000 + 1_000 + (milliseconds * 1e6) as i64
}

/// A time of a clock that ticks once a second.
fn at_second(second: i64) -> i64 {
    (BEGIN_S + second) * 1_000_000_000
}

/// An event of a unit of host `h`.
fn event(time: i64, kind: &str, unit: &str, severity: &str) -> Json {
    json!({
        "id": format!("{kind}@{unit}@{time}"), "time": time, "kind": kind, "source": "test",
        "severity": severity, "entity": {"node": "h", "systemd.unit": unit}, "message": "",
    })
}

/// `from` depends on `to`, both units of host `h`.
fn depends(time: i64, from: &str, to: &str) -> Json {
    json!({
        "id": format!("{from}>{to}@{time}"), "time": time, "kind": "entity.relation", "source": "test",
        "entity": {"node": "h"},
        "attributes": {
            "tapio.relation.type": "talks-to",
            "tapio.relation.from.type": "unit", "tapio.relation.from.name": format!("h/{from}"),
            "tapio.relation.to.type": "unit", "tapio.relation.to.name": format!("h/{to}"),
        },
    })
}

fn with(mut event: Json, more: &Json) -> Json {
    for (key, value) in more.as_object().unwrap() {
        match (event.get_mut(key).and_then(Json::as_object_mut), value.as_object()) {
            (Some(old), Some(new)) => old.extend(new.clone()),
            _ => event[key] = value.clone(),
        }
    }
    event
}

fn rules(text: &str) -> Vec<Rule> {
    let mut loaded = Loaded::default();
    loaded.text("test.yaml", text);
    assert_eq!(loaded.errors, []);
    loaded.rules
}

fn write(events: &[Json]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    (dir, file)
}

fn run(events: &[Json], rules: Vec<Rule>, shards: usize) -> Replayed {
    let (_dir, file) = write(events);
    let replayed = replay(&[file], rules, "", shards, Emit::Stories).unwrap();
    assert_eq!(replayed.refused, []);
    assert!(replayed.account.holds() && replayed.account.total.held == 0);
    replayed
}

/// The last story of a rule; the same for 1, 2 and 8 shards.
fn last_story(events: &[Json], rules: &[Rule]) -> Json {
    let lines = |shards| {
        let lines = run(events, rules.to_vec(), shards).lines;
        lines.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let one = lines(1);
    assert_eq!(lines(2), one);
    assert_eq!(lines(8), one);
    let stories = one.iter().map(|l| serde_json::from_str::<Json>(l).unwrap());
    let mut stories = stories.filter(|s| !s["rule"].as_str().unwrap().ends_with("-lifecycle"));
    stories.next_back().unwrap()
}

fn texts(list: &Json) -> Vec<&str> {
    list.as_array().unwrap().iter().filter_map(Json::as_str).collect()
}
