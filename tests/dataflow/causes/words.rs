//! Candidates that say again what a better one says: decided by the events they rest on.

use serde_json::{Value as Json, json};

use crate::causes::{at, event, rules, told, with};

/// a and b warn, c follows; the author's words for it are given.
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
    let story = told(events, &rules(&text));
    let list = story["root_cause"].as_array().unwrap();
    list.iter().map(|c| c["cause"].as_str().unwrap().to_owned()).collect()
}

fn say(event: Json, message: &str) -> Json {
    with(event, &json!({"message": message}))
}

fn story(bs: &[f64]) -> Vec<Json> {
    let mut all = vec![say(event(at(0.0), "t.a", "a.service", "error"), "a is wrong")];
    all.extend(bs.iter().map(|ms| say(event(at(*ms), "t.b", "b.service", "error"), "b is wrong")));
    all.push(say(event(at(5_000.0), "t.c", "c.service", "error"), "c is wrong"));
    all
}

#[test]
fn of_the_authors_words_for_the_same_event_the_best_stay() {
    let words = ["{b.systemd.unit}: {b.message}", "something is wrong with {b.systemd.unit}"];
    let told = causes(&story(&[1_000.0]), &words);
    assert_eq!(told[0], "b.service: b is wrong");
    assert!(!told.iter().any(|t| t.contains("something")), "{told:?}");
    // Nobody named a.
    assert!(told.contains(&"unit a.service: a is wrong".to_owned()), "{told:?}");
}

#[test]
fn words_for_other_events_are_another_cause() {
    let words = [
        "{a.systemd.unit}: {a.message}",
        "{b.systemd.unit}: {b.message}",
        "{a.message}, {b.message}",
    ];
    let told = causes(&story(&[1_000.0]), &words);
    assert_eq!(told, ["a.service: a is wrong", "b.service: b is wrong", "a is wrong, b is wrong"]);
    // What rests on no event repeats nothing.
    let told = causes(&story(&[1_000.0]), &["{count} events in {duration}", "{count} events"]);
    assert_eq!(told[..2], ["3 events in 5.0 s", "3 events"]);
}

#[test]
fn what_nobody_names_is_told_where_it_rests_on_an_event_of_its_own() {
    let words = ["{a.systemd.unit}: {b.message}"];
    let b = "unit b.service: b is wrong".to_owned();
    let told = causes(&story(&[1_000.0]), &words);
    assert_eq!(told, ["a.service: b is wrong"], "its events are the author's");
    let told = causes(&story(&[1_000.0, 2_000.0]), &words);
    assert!(told.contains(&b), "one of its events isn't: {told:?}");
}
