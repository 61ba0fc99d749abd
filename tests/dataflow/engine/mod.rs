//! Random rules over random events against naive engines that keep whole lists and know nothing of
//! shards, slots or wheels. They are written from the rule language's meaning.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

mod case;
mod language;
mod refined;
mod sigma;
mod tallies;

use case::{KINDS, Seen, key_of, ordered, replayed, some_events};

#[derive(Clone, Debug)]
struct Chain {
    /// Kind and how often.
    steps: Vec<(usize, usize)>,
    by: bool,
    within_s: u64,
    until: Option<usize>,
}

#[derive(Clone, Debug)]
struct Tally {
    kind: usize,
    by: bool,
    within_s: u64,
    at_least: usize,
}

/// A run of the naive engine: how many steps are filled, and by which lines.
struct Partial {
    key: Option<usize>,
    first_s: u64,
    lines: Vec<usize>,
}

/// Matches as (place of the completing event, lines).
fn chain_matches(chain: &Chain, events: &[Seen]) -> Vec<(usize, Vec<usize>)> {
    let steps: Vec<usize> =
        chain.steps.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times)).collect();
    let mut runs: Vec<Partial> = Vec::new();
    let mut matches = Vec::new();
    for (place, (line, event)) in ordered(events).into_iter().enumerate() {
        let Some(key) = key_of(chain.by, event) else { continue };
        runs.retain(|r| r.key != key || event.time_s - r.first_s <= chain.within_s);
        if chain.until == Some(event.kind) {
            runs.retain(|r| r.key != key);
        }
        for step in (0..steps.len()).rev().filter(|s| steps[*s] == event.kind) {
            let mut lines = vec![line];
            let mut first_s = event.time_s;
            if step > 0 {
                let waiting = runs.iter().position(|r| r.key == key && r.lines.len() == step);
                let Some(at) = waiting else { continue };
                let run = runs.remove(at);
                first_s = run.first_s;
                lines = run.lines;
                lines.push(line);
            }
            if lines.len() == steps.len() {
                matches.push((place, lines));
            } else {
                runs.retain(|r| r.key != key || r.lines.len() != lines.len());
                runs.push(Partial { key, first_s, lines });
            }
        }
    }
    matches
}

/// Firings as (place, line, value).
fn tally_firings(tally: &Tally, events: &[Seen]) -> Vec<(usize, usize, usize)> {
    let all = ordered(events);
    let mut firings = Vec::new();
    for (place, (line, event)) in all.iter().enumerate() {
        let Some(key) = key_of(tally.by, event) else { continue };
        if event.kind != tally.kind {
            continue;
        }
        let in_window = |(_, e): &&(usize, &Seen)| {
            e.kind == tally.kind
                && key_of(tally.by, e) == Some(key)
                && event.time_s - e.time_s <= tally.within_s
        };
        let value = all[..=place].iter().filter(in_window).count();
        if value >= tally.at_least {
            firings.push((place, *line, value));
        }
    }
    firings
}

fn chain_text(number: usize, chain: &Chain) -> String {
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

fn tally_text(number: usize, tally: &Tally) -> String {
    let by = if tally.by { "attributes.k" } else { "" };
    format!(
        "rule: r{number}\nevents: {{ e: {{ kind: t.{} }} }}\ncount: {{ event: e, by: [{by}], \
         within: {}s, at_least: {} }}\nstory: {{ pattern: case }}\n---\n",
        KINDS[tally.kind], tally.within_s, tally.at_least
    )
}

fn a_chain() -> impl Strategy<Value = Chain> {
    (
        prop::collection::vec((0..4usize, prop_oneof![4 => Just(1usize), 1 => 2..4usize]), 2..=4),
        any::<bool>(),
        0..20u64,
        prop::option::weighted(0.3, 0..4usize),
    )
        .prop_map(|(steps, by, within_s, until)| Chain {
            steps,
            by,
            within_s: within_s + 1,
            until,
        })
}

fn a_tally() -> impl Strategy<Value = Tally> {
    (0..4usize, any::<bool>(), 1..20u64, 1..6usize)
        .prop_map(|(kind, by, within_s, at_least)| Tally { kind, by, within_s, at_least })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_equal_a_naive_engine(
        chains in prop::collection::vec(a_chain(), 1..4),
        events in some_events(),
    ) {
        let text: String = chains.iter().enumerate().map(|(i, c)| chain_text(i, c)).collect();
        let mut expected = Vec::new();
        for (number, chain) in chains.iter().enumerate() {
            for (place, lines) in chain_matches(chain, &events) {
                let ids: Vec<_> = lines.iter().map(ToString::to_string).collect();
                expected.push(((place, number), json!([format!("r{number}"), ids])));
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
    fn counts_equal_a_naive_engine(
        tallies in prop::collection::vec(a_tally(), 1..4),
        events in some_events(),
    ) {
        let text: String = tallies.iter().enumerate().map(|(i, t)| tally_text(i, t)).collect();
        let mut expected = Vec::new();
        for (number, tally) in tallies.iter().enumerate() {
            for (place, line, value) in tally_firings(tally, &events) {
                let firing = json!([format!("r{number}"), line.to_string(), value]);
                expected.push(((place, number), firing));
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
