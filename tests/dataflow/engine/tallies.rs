//! What a story says it counted, also of the members that aren't kept.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use tapio_core::event::Story;
use tapio_dataflow::replay::{Emit, Inputs, run};
use tapio_dataflow::rules::Loaded;

/// Events of these kinds, so many of each, a millisecond apart.
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

/// The one story that `shape` tells of the events.
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

/// A keeps for many b, so many b keep for many c.
fn kept(at_least: usize) -> String {
    format!(
        "rule: r\nevents: {{ a: {{ kind: t.a }}, b: {{ kind: t.b }}, c: {{ kind: t.c }} }}\n\
         sequence: {{ within: 1h, steps: [{{ event: a, keep: true }}, {{ event: b, keep: true, count: \
         {{ at_least: {at_least}, within: 1h }} }}, {{ event: c }}] }}\n\
         story: {{ pattern: p, name: '{{count}}: {{count.a}} a, {{count.b}} b, {{count.c}} c', \
         close: {{ idle: 2h, max_age: 3h }} }}\n"
    )
}

/// A run: its story, which is the one that is open when it begins or else its own, and its members.
#[derive(Clone)]
struct NaiveRun {
    story: usize,
    members: BTreeSet<usize>,
    seen: usize,
}

/// The members of the rule's stories, as whole sets of places in the input.
fn members(at_least: usize, kinds: &[char]) -> Vec<BTreeSet<usize>> {
    let (mut first, mut counted) = (None::<NaiveRun>, None::<NaiveRun>);
    let (mut open, mut stories) = (None, vec![BTreeSet::new(); kinds.len()]);
    for (place, kind) in kinds.iter().enumerate() {
        match (kind, &mut first, &counted) {
            ('a', first, _) => {
                let story = open.unwrap_or(place);
                *first = Some(NaiveRun { story, members: BTreeSet::from([place]), seen: 0 });
            }
            ('b', Some(run), _) => {
                run.members.insert(place);
                run.seen += 1;
                if run.seen == at_least {
                    counted = Some(run.clone());
                    // What was counted is used up.
                    run.seen = 0;
                    run.members.retain(|p| kinds[*p] == 'a');
                }
            }
            ('c', _, Some(run)) => {
                stories[run.story].extend(run.members.iter());
                stories[run.story].insert(place);
                open = Some(run.story);
            }
            _ => {}
        }
    }
    stories.retain(|story| !story.is_empty());
    stories
}

fn told(rule: &str, lines: &str, shards: usize) -> Vec<String> {
    let mut loaded = Loaded::default();
    loaded.text("rule.yaml", rule);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let replayed = run(Inputs::text("t", lines), loaded.rules, "", shards, Emit::Stories).unwrap();
    replayed.stories.into_iter().filter(|g| g.rule == "r").map(|g| g.name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Matches of one story share events beyond those that are kept; each counts once.
    #[test]
    fn an_event_of_many_matches_is_one_member(
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
            let mut told = told(&kept(at_least), &lines(&bursts), shards);
            told.sort();
            prop_assert_eq!(told, expected.clone());
        }
    }
}

#[test]
fn what_is_known_of_members_is_bounded() {
    // The bound is far beyond: 4,096 are known besides the 64 that are kept.
    let all = |bs| told(&kept(bs as usize), &lines(&[("a", 1), ("b", bs), ("c", 40)]), 1);
    assert_eq!(all(4_000), ["4041: 1 a, 4000 b, 40 c"]);
    // Past it, what no match can be told apart by is counted as long as something else is new.
    assert_eq!(all(5_000), ["5002: 1 a, 5000 b, 1 c"]);
}

#[test]
fn what_the_pods_of_a_story_share_counts_once() {
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
    // Each pod's own members lie in between those of the other.
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
        assert_eq!(told(rule, &lines, shards), ["110: 1 a, 100 b, 4 c, 5 d"]);
    }
}
