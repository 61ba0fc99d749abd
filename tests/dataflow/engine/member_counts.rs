//! Member counts of stories, including members that aren't kept.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use tapio_core::event::Story;
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rules::Loaded;

/// Events of these kinds and numbers, one millisecond apart.
fn lines<K: std::fmt::Display>(kinds: &[(K, u64)]) -> String {
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

/// The only story of a rule with this pattern.
fn story(shape: &str, kinds: &[(&str, u64)]) -> Story {
    let mut loaded = Loaded::default();
    let rule = format!(
        "rule: r\nevents: {{ a: {{ kind: t.a }}, b: {{ kind: t.b }} }}\n{shape}\n\
         story: {{ pattern: p, name: '{{count}}: {{count.a}} a, {{count.b}} b', close: {{ idle: 30s }} }}\n"
    );
    loaded.text("rule.yaml", &rule);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let replayed =
        run(Inputs::text("t", lines(kinds)), loaded.rules, "", 1, Emit::Stories).unwrap();
    assert!(replayed.account.holds());
    assert_eq!(replayed.stories.len(), 1, "{:?}", replayed.stories);
    replayed.stories[0].clone()
}

#[test]
fn aggregate_counts_all_events_of_its_window() {
    let shape = "count: { events: [a, b], within: 10s, at_least: 100 }";
    assert_eq!(story(shape, &[("a", 70), ("b", 30)]).name, "100: 70 a, 30 b");
    assert_eq!(story(shape, &[("a", 70), ("b", 130)]).name, "200: 70 a, 130 b");
    // Events that leave the window before the rule fires are no members.
    let short = "count: { events: [a, b], within: 99ms, at_least: 100 }";
    assert_eq!(story(short, &[("a", 50), ("b", 50)]).name, "100: 50 a, 50 b");
    let any = "any_order: { events: [a, b], within: 10s }";
    assert_eq!(story(any, &[("a", 1), ("b", 1), ("a", 200)]).name, "202: 201 a, 1 b");
    assert_eq!(story(any, &[("a", 200), ("b", 1)]).name, "201: 200 a, 1 b");
}

#[test]
fn sequence_counts_each_repeat_once() {
    let shape = |keep| {
        format!(
            "sequence: {{ within: 60s, steps: [{{ event: a, keep: {keep} }}, {{ event: b, count: \
             {{ at_least: 100, within: 10s }} }}] }}"
        )
    };
    assert_eq!(story(&shape(false), &[("a", 1), ("b", 100)]).name, "101: 1 a, 100 b");
    assert_eq!(story(&shape(true), &[("a", 1), ("b", 300)]).name, "301: 1 a, 300 b");
}

/// A rule that keeps `a` for many `b`, and `at_least` many `b` for many `c`.
fn keeping_rule(at_least: usize) -> String {
    format!(
        "rule: r\nevents: {{ a: {{ kind: t.a }}, b: {{ kind: t.b }}, c: {{ kind: t.c }} }}\n\
         sequence: {{ within: 1h, steps: [{{ event: a, keep: true }}, {{ event: b, keep: true, count: \
         {{ at_least: {at_least}, within: 1h }} }}, {{ event: c }}] }}\n\
         story: {{ pattern: p, name: '{{count}}: {{count.a}} a, {{count.b}} b, {{count.c}} c', \
         close: {{ idle: 2h, max_age: 3h }} }}\n"
    )
}

/// A partial match: its story (the open one when it begins, else its own) and its members.
#[derive(Clone)]
struct NaivePartial {
    story: usize,
    members: BTreeSet<usize>,
    seen: usize,
}

/// The members of the rule's stories, as positions in the input.
fn members(at_least: usize, kinds: &[char]) -> Vec<BTreeSet<usize>> {
    let (mut first, mut counted) = (None::<NaivePartial>, None::<NaivePartial>);
    let (mut open, mut stories) = (None, vec![BTreeSet::new(); kinds.len()]);
    for (position, kind) in kinds.iter().enumerate() {
        match (kind, &mut first, &counted) {
            ('a', first, _) => {
                let story = open.unwrap_or(position);
                *first = Some(NaivePartial { story, members: BTreeSet::from([position]), seen: 0 });
            }
            ('b', Some(partial), _) => {
                partial.members.insert(position);
                partial.seen += 1;
                if partial.seen == at_least {
                    counted = Some(partial.clone());
                    // Counted events are consumed.
                    partial.seen = 0;
                    partial.members.retain(|p| kinds[*p] == 'a');
                }
            }
            ('c', _, Some(partial)) => {
                stories[partial.story].extend(partial.members.iter());
                stories[partial.story].insert(position);
                open = Some(partial.story);
            }
            _ => {}
        }
    }
    stories.retain(|story| !story.is_empty());
    stories
}

fn story_names(rule: &str, lines: &str, shards: usize) -> Vec<String> {
    let mut loaded = Loaded::default();
    loaded.text("rule.yaml", rule);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let replayed = run(Inputs::text("t", lines), loaded.rules, "", shards, Emit::Stories).unwrap();
    replayed.stories.into_iter().filter(|s| s.rule == "r").map(|s| s.name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Matches of one story share events, also beyond those that are kept.
    #[test]
    fn event_of_many_matches_counts_once(
        bursts in prop::collection::vec((prop::sample::select(vec!['a', 'b', 'b', 'c']), 1u64..160), 1..9),
        at_least in prop::sample::select(vec![3usize, 70, 100]),
    ) {
        let kinds: Vec<char> =
            bursts.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times as usize)).collect();
        let name = |story: &BTreeSet<usize>| {
            let of = |kind| story.iter().filter(|p| kinds[**p] == kind).count();
            format!("{}: {} a, {} b, {} c", story.len(), of('a'), of('b'), of('c'))
        };
        let mut expected: Vec<String> = members(at_least, &kinds).iter().map(name).collect();
        expected.sort();
        for shards in [1, 3] {
            let mut names = story_names(&keeping_rule(at_least), &lines(&bursts), shards);
            names.sort();
            prop_assert_eq!(names, expected.clone());
        }
    }
}

#[test]
fn deduplication_of_members_is_bounded() {
    // Below the bound: 4,096 members beside the 64 that are kept.
    let all =
        |bs| story_names(&keeping_rule(bs as usize), &lines(&[("a", 1), ("b", bs), ("c", 40)]), 1);
    assert_eq!(all(4_000), ["4041: 1 a, 4000 b, 40 c"]);
    // Beyond it, a match counts only events that are surely new.
    assert_eq!(all(5_000), ["5002: 1 a, 5000 b, 1 c"]);
}

#[test]
fn events_shared_by_pods_count_once() {
    let rule = "rule: r
events: { a: { kind: t.a }, b: { kind: t.b }, c: { kind: t.c }, d: { kind: t.d } }
sequence:
  by: [host.name]
  within: 1h
  steps:
    - { event: a, keep: true }
    - { event: b, keep: true, count: { at_least: 100, within: 1h } }
    - { event: c, keep: true, by: [host.name, k8s.pod.uid], count: 2 }
    - { event: d, by: [host.name, k8s.pod.uid] }
story: { pattern: p, name: '{count}: {count.a} a, {count.b} b, {count.c} c, {count.d} d', close: { idle: 2h, max_age: 3h } }
";
    let mut kinds = vec![("a", "")];
    kinds.extend([("b", ""); 100]);
    kinds.extend([("c", "x"), ("c", "x"), ("c", "y"), ("c", "y")]);
    // The members of both pods alternate.
    kinds.extend([("d", "x"), ("d", "y"), ("d", "x"), ("d", "y"), ("d", "x")]);
    let mut lines = String::new();
    for (n, (kind, pod)) in kinds.iter().enumerate() {
        let time_ns = 1_700_000_000_000_000_000 + n as u64;
        let pod = if pod.is_empty() { String::new() } else { format!(r#","k8s.pod.uid":"{pod}""#) };
        let _ = writeln!(
            lines,
            r#"{{"time":{time_ns},"kind":"t.{kind}","source":"test","entity":{{"node":"h"{pod}}}}}"#
        );
    }
    for shards in [1, 3] {
        assert_eq!(story_names(rule, &lines, shards), ["110: 1 a, 100 b, 4 c, 5 d"]);
    }
}
