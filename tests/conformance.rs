//! Sequences against an independent engine: cases whose expected matches the EQL reference engine
//! computed (every fifth of a thousand; all of them agreed when this was written).
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};
use tapio::dataflow::rules::Loaded;
use tapio::runtime::replay::{Emit, replay};

fn rule_of(case: &Json) -> String {
    let stages: Vec<&str> =
        case["stages"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let mut events = serde_json::Map::new();
    for stage in &stages {
        events.insert(format!("e_{stage}"), json!({"kind": format!("t.{stage}")}));
    }
    let within =
        case["maxspan_s"].as_u64().filter(|s| *s > 0).map_or("30d".into(), |s| format!("{s}s"));
    let by = if case["by"].is_null() { json!([]) } else { json!(["attributes.k"]) };
    let steps: Vec<Json> = stages.iter().map(|s| json!({"event": format!("e_{s}")})).collect();
    let mut sequence = json!({"by": by, "within": within, "slack": "0s", "steps": steps});
    if let Some(until) = case["until"].as_str() {
        sequence["until"] = json!({"kind": format!("t.{until}")});
    }
    json!({"rule": "case", "events": events, "sequence": sequence, "group": {"pattern": "case"}})
        .to_string()
}

fn events_of(case: &Json) -> String {
    let mut text = String::new();
    for event in case["events"].as_array().unwrap() {
        let time_ns = (1_700_000_000 + event[1].as_u64().unwrap()) * 1_000_000_000;
        let line = json!({
            "id": event[0].to_string(), "time": time_ns, "kind": format!("t.{}", event[2].as_str().unwrap()),
            "source": "test", "attributes": {"k": event[3]},
        });
        writeln!(text, "{line}").unwrap();
    }
    text
}

#[test]
fn sequences_agree_with_the_reference_engine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/eql.jsonl");
    let cases = std::fs::read_to_string(path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut agreed, mut matches) = (0, 0);
    for (number, line) in cases.lines().enumerate() {
        let case: Json = serde_json::from_str(line).unwrap();
        let mut loaded = Loaded::default();
        loaded.text("case.yaml", &rule_of(&case));
        assert_eq!(loaded.errors, [], "{line}");
        let file = dir.path().join("events.jsonl");
        std::fs::write(&file, events_of(&case)).unwrap();
        let replayed = replay(&[file], loaded.rules, "", 1 + number % 3, Emit::Matches).unwrap();
        assert!(replayed.account.holds());
        let ids = |m: &Json| -> Vec<i64> {
            m["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap().parse().unwrap())
                .collect()
        };
        let found: Vec<Vec<i64>> = replayed.lines.iter().map(ids).collect();
        let expected: Vec<Vec<i64>> = serde_json::from_value(case["expected"].clone()).unwrap();
        assert_eq!(found, expected, "{}", case["query"]);
        matches += found.len();
        agreed += 1;
    }
    assert_eq!(agreed, 200);
    assert!(matches > 100, "cases without matches show little: {matches}");
}
