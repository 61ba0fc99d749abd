//! Random rules over random events against naive engines that keep whole lists, without shards,
//! bounded tables or timers. They implement the definition of the rule language.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

mod case;
mod deviation;
mod language;
mod member_counts;
mod refined_keys;
mod sigma;

use case::{KINDS, TestEvent, arbitrary_events, key_of, ordered, replayed};

#[derive(Clone, Debug)]
struct ChainRule {
    /// Kind and number of events.
    steps: Vec<(usize, usize)>,
    by: bool,
    within_s: u64,
    until: Option<usize>,
}

#[derive(Clone, Debug)]
struct CountRule {
    kind: usize,
    by: bool,
    within_s: u64,
    at_least: usize,
}

/// A partial match of the naive engine.
struct Partial {
    key: Option<usize>,
    first_s: u64,
    lines: Vec<usize>,
}

/// Matches as (position of the completing event, lines).
fn chain_matches(chain: &ChainRule, events: &[TestEvent]) -> Vec<(usize, Vec<usize>)> {
    let steps: Vec<usize> =
        chain.steps.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times)).collect();
    let mut partials: Vec<Partial> = Vec::new();
    let mut matches = Vec::new();
    for (position, (line, event)) in ordered(events).into_iter().enumerate() {
        let Some(key) = key_of(chain.by, event) else { continue };
        partials.retain(|r| r.key != key || event.time_s - r.first_s <= chain.within_s);
        if chain.until == Some(event.kind) {
            partials.retain(|r| r.key != key);
        }
        for step in (0..steps.len()).rev().filter(|s| steps[*s] == event.kind) {
            let mut lines = vec![line];
            let mut first_s = event.time_s;
            if step > 0 {
                let waiting = partials.iter().position(|r| r.key == key && r.lines.len() == step);
                let Some(at) = waiting else { continue };
                let partial = partials.remove(at);
                first_s = partial.first_s;
                lines = partial.lines;
                lines.push(line);
            }
            if lines.len() == steps.len() {
                matches.push((position, lines));
            } else {
                partials.retain(|r| r.key != key || r.lines.len() != lines.len());
                partials.push(Partial { key, first_s, lines });
            }
        }
    }
    matches
}

/// Firings as (position, line, value).
fn count_firings(count: &CountRule, events: &[TestEvent]) -> Vec<(usize, usize, usize)> {
    let all = ordered(events);
    let mut firings = Vec::new();
    for (position, (line, event)) in all.iter().enumerate() {
        let Some(key) = key_of(count.by, event) else { continue };
        if event.kind != count.kind {
            continue;
        }
        let in_window = |(_, e): &&(usize, &TestEvent)| {
            e.kind == count.kind
                && key_of(count.by, e) == Some(key)
                && event.time_s - e.time_s <= count.within_s
        };
        let value = all[..=position].iter().filter(in_window).count();
        if value >= count.at_least {
            firings.push((position, *line, value));
        }
    }
    firings
}

fn chain_text(number: usize, chain: &ChainRule) -> String {
    let mut kinds: Vec<usize> = chain.steps.iter().map(|s| s.0).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut text = format!("rule: r{number}\nevents:\n");
    for kind in kinds {
        let _ = writeln!(text, "  e{kind}: {{ kind: t.{} }}", KINDS[kind]);
    }
    let by = if chain.by { "attributes.k" } else { "" };
    let _ = writeln!(text, "sequence:\n  by: [{by}]\n  within: {}s\n  steps:", chain.within_s);
    for (kind, times) in &chain.steps {
        let _ = writeln!(text, "    - {{ event: e{kind}, count: {times} }}");
    }
    if let Some(until) = chain.until {
        let _ = writeln!(text, "  until: {{ kind: t.{} }}", KINDS[until]);
    }
    text + "story: { pattern: case }\n---\n"
}

fn count_text(number: usize, count: &CountRule) -> String {
    let by = if count.by { "attributes.k" } else { "" };
    format!(
        "rule: r{number}\nevents: {{ e: {{ kind: t.{} }} }}\ncount: {{ event: e, by: [{by}], \
         within: {}s, at_least: {} }}\nstory: {{ pattern: case }}\n---\n",
        KINDS[count.kind], count.within_s, count.at_least
    )
}

fn arbitrary_chain() -> impl Strategy<Value = ChainRule> {
    (
        prop::collection::vec((0..4usize, prop_oneof![4 => Just(1usize), 1 => 2..4usize]), 2..=4),
        any::<bool>(),
        0..20u64,
        prop::option::weighted(0.3, 0..4usize),
    )
        .prop_map(|(steps, by, within_s, until)| ChainRule {
            steps,
            by,
            within_s: within_s + 1,
            until,
        })
}

fn arbitrary_count() -> impl Strategy<Value = CountRule> {
    (0..4usize, any::<bool>(), 1..20u64, 1..6usize)
        .prop_map(|(kind, by, within_s, at_least)| CountRule { kind, by, within_s, at_least })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_equal_naive_engine(
        chains in prop::collection::vec(arbitrary_chain(), 1..4),
        events in arbitrary_events(),
    ) {
        let text: String = chains.iter().enumerate().map(|(i, c)| chain_text(i, c)).collect();
        let mut expected = Vec::new();
        for (number, chain) in chains.iter().enumerate() {
            for (position, lines) in chain_matches(chain, &events) {
                let ids: Vec<_> = lines.iter().map(ToString::to_string).collect();
                expected.push(((position, number), json!([format!("r{number}"), ids])));
            }
        }
        expected.sort_by_key(|(order, _)| *order);
        let expected: Vec<Json> = expected.into_iter().map(|(_, json)| json).collect();
        for shards in [1, 3] {
            let got = replayed(&text, &events, shards);
            let got: Vec<Json> = got.iter().map(|m| json!([m["rule"], m["events"]])).collect();
            prop_assert_eq!(&got, &expected, "{} shards\n{}", shards, text);
        }
    }

    #[test]
    fn counts_equal_naive_engine(
        counts in prop::collection::vec(arbitrary_count(), 1..4),
        events in arbitrary_events(),
    ) {
        let text: String = counts.iter().enumerate().map(|(i, t)| count_text(i, t)).collect();
        let mut expected = Vec::new();
        for (number, count) in counts.iter().enumerate() {
            for (position, line, value) in count_firings(count, &events) {
                let firing = json!([format!("r{number}"), line.to_string(), value]);
                expected.push(((position, number), firing));
            }
        }
        expected.sort_by_key(|(order, _)| *order);
        let expected: Vec<Json> = expected.into_iter().map(|(_, json)| json).collect();
        for shards in [1, 3] {
            let got = replayed(&text, &events, shards);
            let got: Vec<Json> = got.iter().map(|m| json!([m["rule"], m["event"], m["value"]])).collect();
            prop_assert_eq!(&got, &expected, "{} shards\n{}", shards, text);
        }
    }
}
