//! Candidates that better ones cover are omitted: decided by the events that are their evidence.

use serde_json::{Value as Json, json};

use crate::causes::{at, event, last_story, rules, with};

/// The causes of a story in which c follows a and b, for a rule with these root causes.
fn causes(events: &[Json], root_cause: &[&str]) -> Vec<String> {
    let text = format!(
        "rule: abc
events: {{ a: {{ kind: t.a }}, b: {{ kind: t.b }}, c: {{ kind: t.c }} }}
sequence:
  by: [host.name]
  within: 120s
  steps: [{{ event: a }}, {{ event: b, count: {{ at_least: {}, within: 60s }} }}, {{ event: c }}]
story: {{ pattern: abc, root_cause: {} }}
",
        events.len() - 2,
        json!(root_cause)
    );
    let story = last_story(events, &rules(&text));
    let list = story["root_causes"].as_array().unwrap();
    list.iter().map(|c| c["cause"].as_str().unwrap().to_owned()).collect()
}

fn with_message(event: Json, message: &str) -> Json {
    with(event, &json!({"message": message}))
}

fn story(bs: &[f64]) -> Vec<Json> {
    let mut all = vec![with_message(event(at(0.0), "t.a", "a.service", "error"), "a is wrong")];
    all.extend(
        bs.iter().map(|ms| with_message(event(at(*ms), "t.b", "b.service", "error"), "b is wrong")),
    );
    all.push(with_message(event(at(5_000.0), "t.c", "c.service", "error"), "c is wrong"));
    all
}

#[test]
fn best_of_the_authors_causes_with_same_evidence_is_kept() {
    let templates = ["{b.systemd.unit}: {b.message}", "something is wrong with {b.systemd.unit}"];
    let found = causes(&story(&[1_000.0]), &templates);
    assert_eq!(found[0], "b.service: b is wrong");
    assert!(!found.iter().any(|t| t.contains("something")), "{found:?}");
    // The author doesn't name a.
    assert!(found.contains(&"unit a.service: a is wrong".to_owned()), "{found:?}");
}

#[test]
fn causes_with_other_evidence_are_kept() {
    let templates = [
        "{a.systemd.unit}: {a.message}",
        "{b.systemd.unit}: {b.message}",
        "{a.message}, {b.message}",
    ];
    let found = causes(&story(&[1_000.0]), &templates);
    assert_eq!(found, ["a.service: a is wrong", "b.service: b is wrong", "a is wrong, b is wrong"]);
    // A cause without evidence is covered by none.
    let found = causes(&story(&[1_000.0]), &["{count} events in {duration}", "{count} events"]);
    assert_eq!(found[..2], ["3 events in 5.0 s", "3 events"]);
}

#[test]
fn unnamed_candidate_is_kept_with_evidence_of_its_own() {
    let templates = ["{a.systemd.unit}: {b.message}"];
    let b = "unit b.service: b is wrong".to_owned();
    let found = causes(&story(&[1_000.0]), &templates);
    assert_eq!(found, ["a.service: b is wrong"], "the author's cause has all its evidence");
    let found = causes(&story(&[1_000.0, 2_000.0]), &templates);
    assert!(found.contains(&b), "one of its events isn't: {found:?}");
}
