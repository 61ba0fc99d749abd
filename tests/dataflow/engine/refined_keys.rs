//! Steps with the same additional key fields match only events with equal values; compared with a
//! naive engine that searches backwards from each last event.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::case::{TestEvent, arbitrary_events, ordered, replayed};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn rule(within_s: u64) -> String {
    format!(
        "rule: case\nevents: {{ a: {{ kind: t.A }}, b: {{ kind: t.B }}, c: {{ kind: t.C }} }}\n\
         sequence:\n  by: []\n  within: {within_s}s\n  steps:\n    - {{ event: a, keep: true }}\n    \
         - {{ event: b, by: [attributes.k] }}\n    - {{ event: c, by: [attributes.k] }}\n\
         story: {{ pattern: case }}\n"
    )
}

/// For each `c` the latest `b` of its key since the `c` before, and the latest `a` before that `b`.
fn matches(within_s: u64, events: &[TestEvent]) -> Vec<[usize; 3]> {
    let all = ordered(events);
    let mut found = Vec::new();
    for (at, (line, last)) in all.iter().enumerate().filter(|(_, (_, e))| e.kind == C) {
        let Some(key) = last.key else { continue };
        let mut own = all[..at].iter().enumerate().rev().filter(|(_, (_, e))| e.key == Some(key));
        let before = own.find(|(_, (_, e))| e.kind == B || e.kind == C);
        let Some((position, (middle, _))) = before.filter(|(_, (_, e))| e.kind == B) else {
            continue;
        };
        let first = all[..position].iter().rev().find(|(_, e)| e.kind == A);
        if let Some((first, a)) = first
            && last.time_s - a.time_s <= within_s
        {
            found.push([*first, *middle, *line]);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn steps_with_refined_keys_equal_naive_engine(within_s in 3..25u64, events in arbitrary_events()) {
        let ids = |m: &[usize; 3]| json!(m.map(|line| line.to_string()));
        let expected: Vec<Json> = matches(within_s, &events).iter().map(ids).collect();
        for shards in [1, 3] {
            let got = replayed(&rule(within_s), &events, shards);
            let got: Vec<Json> = got.iter().map(|m| m["events"].clone()).collect();
            prop_assert_eq!(&got, &expected, "{} shards\n{:?}", shards, events);
        }
    }
}
