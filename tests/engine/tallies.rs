//! What a story says it counted, also of the members that aren't kept.

use std::fmt::Write as _;

use tapio::dataflow::rules::Loaded;
use tapio::event::Group;
use tapio::runtime::replay::{Emit, Inputs, run};

/// Events of these kinds, so many of each, a millisecond apart.
fn lines(kinds: &[(&str, u64)]) -> String {
    let mut lines = String::new();
    let mut time_ns = 1_700_000_000_000_000_000_u64;
    for (kind, times) in kinds {
        for _ in 0..*times {
            time_ns += 1_000_000;
            let _ = writeln!(lines, r#"{{"time":{time_ns},"kind":"t.{kind}","source":"test"}}"#);
        }
    }
    lines
}

/// The one story that `shape` tells of the events.
fn story(shape: &str, kinds: &[(&str, u64)]) -> Group {
    let mut loaded = Loaded::default();
    let rule = format!(
        "rule: r\nevents: {{ a: {{ kind: t.a }}, b: {{ kind: t.b }} }}\n{shape}\n\
         group: {{ pattern: p, name: '{{count}}: {{count.a}} a, {{count.b}} b', close: {{ idle: 30s }} }}\n"
    );
    loaded.text("rule.yaml", &rule);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let replayed = run(Inputs::text("t", lines(kinds)), loaded.rules, "", 1, Emit::Groups).unwrap();
    assert!(replayed.account.holds());
    assert_eq!(replayed.groups.len(), 1, "{:?}", replayed.groups);
    replayed.groups[0].clone()
}

#[test]
fn a_window_counts_all_it_holds() {
    let shape = "count: { events: [a, b], within: 10s, at_least: 100 }";
    assert_eq!(story(shape, &[("a", 70), ("b", 30)]).name, "100: 70 a, 30 b");
    assert_eq!(story(shape, &[("a", 70), ("b", 130)]).name, "200: 70 a, 130 b");
    // What has left the window before it fired belongs to nobody.
    let short = "count: { events: [a, b], within: 99ms, at_least: 100 }";
    assert_eq!(story(short, &[("a", 50), ("b", 50)]).name, "100: 50 a, 50 b");
    let any = "any_order: { events: [a, b], within: 10s }";
    assert_eq!(story(any, &[("a", 1), ("b", 1), ("a", 200)]).name, "202: 201 a, 1 b");
    assert_eq!(story(any, &[("a", 200), ("b", 1)]).name, "201: 200 a, 1 b");
}

#[test]
fn a_sequence_counts_all_its_repeats_once() {
    let shape = |keep| {
        format!(
            "sequence: {{ within: 60s, steps: [{{ event: a, keep: {keep} }}, {{ event: b, count: \
             {{ at_least: 100, within: 10s }} }}] }}"
        )
    };
    assert_eq!(story(&shape(false), &[("a", 1), ("b", 100)]).name, "101: 1 a, 100 b");
    assert_eq!(story(&shape(true), &[("a", 1), ("b", 300)]).name, "301: 1 a, 300 b");
}
