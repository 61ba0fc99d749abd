//! Conformance with independent engines: sequences with the matches of the EQL reference engine,
//! Sigma documents with the firings of a Sigma correlation engine, and negations with the matches
//! of Elasticsearch's EQL.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};
use tapio_dataflow::replay::{Emit, replay};
use tapio_dataflow::rules::Loaded;

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
    json!({"rule": "case", "events": events, "sequence": sequence, "story": {"pattern": "case"}})
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
    let path = Path::new(crate::ROOT).join("tests/conformance/eql.jsonl");
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
    assert_eq!(agreed, 1000);
    assert!(matches > 500, "too few cases have matches: {matches}");
}

#[test]
fn sigma_documents_agree_with_the_reference_engine() {
    let folder = Path::new(crate::ROOT).join("tests/conformance/sigma");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    let mut text = String::new();
    for line in std::fs::read_to_string(folder.join("events.jsonl")).unwrap().lines() {
        let event: Json = serde_json::from_str(line).unwrap();
        let line = json!({
            "id": event["id"].to_string(), "time": event["ts"].as_u64().unwrap() * 1_000_000_000,
            "kind": "test.event", "source": "test",
            "attributes": {"type": event["type"], "k": event["k"], "v": event["v"], "n": event["n"]},
        });
        writeln!(text, "{line}").unwrap();
    }
    std::fs::write(&file, text).unwrap();
    // Index of the event, title, value.
    let expected: BTreeSet<(String, String, String)> =
        std::fs::read_to_string(folder.join("expected.tsv"))
            .unwrap()
            .lines()
            .map(|line| {
                let mut parts = line.split('\t').map(str::to_owned);
                let mut next = || parts.next().unwrap();
                (next(), next(), next())
            })
            .collect();
    for shards in [1, 3] {
        let loaded = tapio_dataflow::rules::load(&[folder.join("rules.yml")]);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let replayed =
            replay(std::slice::from_ref(&file), loaded.rules, "", shards, Emit::Matches).unwrap();
        assert!(replayed.account.holds());
        let text = |m: &Json, key: &str| m[key].to_string().trim_matches('"').to_owned();
        let found: BTreeSet<_> = replayed
            .lines
            .iter()
            .map(|m| (text(m, "event"), text(m, "rule"), text(m, "value")))
            .collect();
        assert_eq!(found.len(), 1665);
        assert_eq!(found, expected);
    }
}

/// A sequence of kinds; `!` in front of a kind makes it a negation.
fn missing_rule(pattern: &str, within_ms: u64) -> Json {
    let steps: Vec<Json> = pattern
        .split(' ')
        .map(|step| match step.strip_prefix('!') {
            Some(kind) => json!({"not": {"kind": format!("t.{kind}")}}),
            None => json!({"event": step}),
        })
        .collect();
    let named: serde_json::Map<String, Json> = pattern
        .split(' ')
        .filter(|step| !step.starts_with('!'))
        .map(|kind| (kind.to_owned(), json!({"kind": format!("t.{kind}")})))
        .collect();
    json!({"rule": "case", "events": named, "story": {"pattern": "case"},
        "sequence": {"within": format!("{within_ms}ms"), "steps": steps}})
}

/// Events as (id, time in milliseconds, kind), patterns with `!` in front of negations, the window
/// in milliseconds, and the ids that Elasticsearch's EQL matches (from its tests of missing events;
/// 0 stands for a missing event).
#[test]
fn negations_agree_with_elasticsearch() {
    const MIN: u64 = 60_000;
    let calls = [(1, 1, "n"), (2, 2, "n"), (3, 3, "x"), (4, 4, "n")];
    let twice = [(1, 0, "n"), (2, 1, "n"), (3, 2, "x"), (4, 3, "n"), (5, 4, "n"), (6, 5, "x")];
    let hour = [
        (1, 0, "x"),
        (2, 10 * MIN + 1, "n"),
        (3, 20 * MIN + 1, "x"),
        (4, 21 * MIN + 1, "n"),
        (5, 29 * MIN + 1, "n"),
        (6, 31 * MIN + 1, "n"),
    ];
    let kinds =
        ["a", "b", "p", "b", "c", "q", "d", "p", "c", "b", "c", "d", "a", "b", "r", "c", "d", "s"];
    let long: Vec<(u64, u64, &str)> = (1u64..).zip(kinds).map(|(i, kind)| (i, i, kind)).collect();
    type Case<'a> = (&'a [(u64, u64, &'a str)], &'a str, u64, &'a [&'a [u64]]);
    let cases: &[Case<'_>] = &[
        (&calls, "n !z n", 1000, &[&[1, 0, 2], &[2, 0, 4]]),
        (&calls, "n !x n", 1000, &[&[1, 0, 2]]),
        (&calls, "n !x", 1000, &[&[4, 0]]),
        (&twice, "n n !x n", 1000, &[&[2, 4, 0, 5]]),
        (&hour, "!x n", 3 * MIN, &[&[0, 2], &[0, 5], &[0, 6]]),
        (&hour, "!x n !x", 19 * MIN, &[&[0, 2, 0], &[0, 4, 0], &[0, 5, 0], &[0, 6, 0]]),
        (&hour, "!x n !x", 21 * MIN, &[&[0, 4, 0], &[0, 5, 0], &[0, 6, 0]]),
        (&long, "a b !p c !q d", 1000, &[&[13, 14, 0, 16, 0, 17]]),
        (&long, "a b !p c d", 1000, &[&[13, 14, 0, 16, 17]]),
        (&long, "a b c !q d", 1000, &[&[13, 14, 16, 0, 17]]),
        (&long, "a b !p c !q d !s", 1000, &[]),
        (&long, "a b !z c !z d", 1000, &[&[1, 2, 0, 5, 0, 7], &[13, 14, 0, 16, 0, 17]]),
        (&long, "a b c !q d !z", 1000, &[&[13, 14, 16, 0, 17, 0]]),
        (&long, "!z a b c !q d", 1000, &[&[0, 13, 14, 16, 0, 17]]),
    ];
    for (events, pattern, within_ms, expected) in cases {
        let rule = missing_rule(pattern, *within_ms);
        let mut loaded = Loaded::default();
        loaded.text("case.yaml", &rule.to_string());
        assert_eq!(loaded.errors, [], "{pattern}");
        let mut text = String::new();
        for (id, time_ms, kind) in *events {
            let time_ns = 1_700_000_000_000_000_000 + time_ms * 1_000_000;
            let line =
                json!({"id": id, "time": time_ns, "kind": format!("t.{kind}"), "source": "test"});
            writeln!(text, "{line}").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("events.jsonl");
        std::fs::write(&file, text).unwrap();
        let replayed = replay(&[file], loaded.rules, "", 2, Emit::Matches).unwrap();
        let found: Vec<Vec<u64>> = replayed
            .lines
            .iter()
            .map(|m| {
                m["events"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap_or(0)).collect()
            })
            .collect();
        assert_eq!(found, *expected, "{pattern} within {within_ms} ms");
    }
}
