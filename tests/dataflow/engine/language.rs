//! `not`, `select` and the aggregates against engines that enumerate: every combination of events
//! is checked against the definition of the rule, without state from event to event.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::case::{KINDS, TestEvent, arbitrary_events, key_of, ordered, replayed};

#[derive(Clone, Debug)]
struct Pattern {
    /// Kinds of the steps.
    steps: Vec<usize>,
    /// Gap (0: before the first step) and kind.
    nots: Vec<(usize, usize)>,
    by: bool,
    within_s: u64,
    until: Option<usize>,
    every: bool,
}

/// A match.
#[derive(Clone, Debug)]
struct Match {
    /// Its completion: time, and position of the completing event (`usize::MAX`: by time).
    at: (u64, usize),
    positions: Vec<usize>,
    lines: Vec<usize>,
}

struct Stream<'a> {
    pattern: &'a Pattern,
    /// Line and event, in total order.
    all: Vec<(usize, &'a TestEvent)>,
}

impl Stream<'_> {
    fn is(&self, position: usize, kind: usize, key: Option<usize>) -> bool {
        let event = self.all[position].1;
        event.kind == kind && key_of(self.pattern.by, event) == Some(key)
    }

    fn time_s(&self, position: usize) -> u64 {
        self.all[position].1.time_s
    }

    fn any(&self, mut positions: std::ops::Range<usize>, kind: usize, key: Option<usize>) -> bool {
        positions.any(|p| self.is(p, kind, key))
    }

    /// Whether events at these positions match, regardless of `select`.
    fn allowed(&self, positions: &[usize], key: Option<usize>) -> bool {
        let pattern = self.pattern;
        let (first, last) = (positions[0], positions[positions.len() - 1]);
        if self.time_s(last) - self.time_s(first) > pattern.within_s {
            return false;
        }
        if pattern.until.is_some_and(|u| self.any(first + 1..last + 1, u, key)) {
            return false;
        }
        let inner = |(gap, kind): &&(usize, usize)| {
            *gap > 0
                && *gap < positions.len()
                && self.any(positions[*gap - 1] + 1..positions[*gap], *kind, key)
        };
        !pattern.nots.iter().any(|n| inner(&n)) && self.ends_allowed(first, last, key)
    }

    /// Checks negations before the first and after the last step: some window of the rule's length
    /// over the match contains none of their events. The window ends with the match if there is no
    /// trailing negation, and begins with it if there is no leading one.
    fn ends_allowed(&self, first: usize, last: usize, key: Option<usize>) -> bool {
        let pattern = self.pattern;
        let kind_at = |gap: usize| pattern.nots.iter().find(|(g, _)| *g == gap).map(|(_, k)| *k);
        let (before, behind) = (kind_at(0), kind_at(pattern.steps.len()));
        if before.is_none() && behind.is_none() {
            return true;
        }
        // In half seconds, so that a window can begin between two events.
        let half = |position: usize| 2 * self.time_s(position) as i64;
        let length = 2 * pattern.within_s as i64;
        let (earliest, latest) = (half(last) - length, half(first));
        let mut starts = match (before, behind) {
            (Some(_), None) => earliest..=earliest,
            (None, Some(_)) => latest..=latest,
            _ => earliest..=latest,
        };
        let dropped = |position: usize| {
            pattern.until.is_some_and(|u| {
                let behind = last + 1..position.min(self.all.len());
                self.any(behind, u, key)
            })
        };
        starts.any(|start| {
            let early = before
                .is_some_and(|kind| (0..first).any(|p| half(p) >= start && self.is(p, kind, key)));
            let late = behind.is_some_and(|kind| {
                (last + 1..self.all.len())
                    .any(|p| half(p) <= start + length && self.is(p, kind, key))
            });
            !early && !late
        }) && !(behind.is_some() && {
            // `until` drops a match whose trailing negation is pending.
            let end = self.time_s(first) + pattern.within_s;
            let waits = (last + 1..self.all.len()).take_while(|p| self.time_s(*p) <= end).count();
            dropped(last + 1 + waits)
        })
    }

    fn combinations(&self, positions: &mut Vec<usize>, key: Option<usize>, found: &mut Vec<Match>) {
        let pattern = self.pattern;
        if positions.len() == pattern.steps.len() {
            if self.allowed(positions, key) {
                let last = positions[positions.len() - 1];
                let trailing = pattern.nots.iter().any(|(g, _)| *g == pattern.steps.len());
                let at = match trailing {
                    true => (self.time_s(positions[0]) + pattern.within_s, usize::MAX),
                    false => (self.time_s(last), last),
                };
                let lines = positions.iter().map(|p| self.all[*p].0).collect();
                found.push(Match { at, positions: positions.clone(), lines });
            }
            return;
        }
        let from = positions.last().map_or(0, |p| p + 1);
        for position in from..self.all.len() {
            if self.is(position, pattern.steps[positions.len()], key) {
                positions.push(position);
                self.combinations(positions, key, found);
                positions.pop();
            }
        }
    }
}

/// The matches of a pattern, in order of completion.
fn matches(pattern: &Pattern, events: &[TestEvent]) -> Vec<Match> {
    let stream = Stream { pattern, all: ordered(events) };
    let keys = if pattern.by { vec![Some(0), Some(1), Some(2)] } else { vec![None] };
    let mut selected = Vec::new();
    for key in keys {
        let mut found = Vec::new();
        stream.combinations(&mut Vec::new(), key, &mut found);
        found.sort_by(|a, b| (a.at, &a.positions).cmp(&(b.at, &b.positions)));
        let mut end = None;
        selected.extend(found.into_iter().filter(|m| {
            let free = pattern.every || end.is_none_or(|end| m.positions[0] > end);
            if free {
                end = m.positions.last().copied();
            }
            free
        }));
    }
    selected.sort_by(|a, b| (a.at, &a.positions).cmp(&(b.at, &b.positions)));
    selected
}

fn ids(pattern: &Pattern, lines: &[usize]) -> Vec<Json> {
    let mut ids = Vec::new();
    for gap in 0..=pattern.steps.len() {
        ids.extend(pattern.nots.iter().filter(|(g, _)| *g == gap).map(|_| Json::Null));
        ids.extend(lines.get(gap).map(|line| json!(line.to_string())));
    }
    ids
}

fn text(pattern: &Pattern, select: &str) -> String {
    let mut kinds = pattern.steps.clone();
    kinds.extend(pattern.nots.iter().map(|n| n.1));
    kinds.sort_unstable();
    kinds.dedup();
    let mut text = String::from("rule: r\nevents:\n");
    for kind in kinds {
        let _ = writeln!(text, "  e{kind}: {{ kind: t.{} }}", KINDS[kind]);
    }
    let by = if pattern.by { "attributes.k" } else { "" };
    let within_s = pattern.within_s;
    let _ = writeln!(text, "sequence:\n  by: [{by}]\n  within: {within_s}s\n  select: {select}");
    let _ = writeln!(text, "  max_runs: 60000\n  steps:");
    for gap in 0..=pattern.steps.len() {
        for (_, kind) in pattern.nots.iter().filter(|(g, _)| *g == gap) {
            let _ = writeln!(text, "    - {{ not: e{kind} }}");
        }
        if let Some(kind) = pattern.steps.get(gap) {
            let _ = writeln!(text, "    - {{ event: e{kind} }}");
        }
    }
    if let Some(until) = pattern.until {
        let _ = writeln!(text, "  until: {{ kind: t.{} }}", KINDS[until]);
    }
    text + "story: { pattern: case }\n"
}

fn arbitrary_pattern() -> impl Strategy<Value = Pattern> {
    let steps = prop::collection::vec(0..4usize, 1..=3);
    let nots = prop::collection::vec((0..4usize, 0..4usize), 0..=2);
    (steps, nots, any::<bool>(), 1..20u64, prop::option::weighted(0.2, 0..4usize), any::<bool>())
        .prop_map(|(steps, mut nots, by, within_s, until, every)| {
            nots.iter_mut().for_each(|(gap, _)| *gap = (*gap).min(steps.len()));
            nots.sort_unstable();
            nots.dedup_by_key(|(gap, _)| *gap);
            Pattern { steps, nots, by, within_s, until, every }
        })
}

/// `select: latest`: one partial match per key and step. This engine, too, fills steps event by
/// event; it checks leading and trailing negations against the whole stream.
fn latest(pattern: &Pattern, events: &[TestEvent]) -> Vec<Match> {
    let stream = Stream { pattern, all: ordered(events) };
    let steps = &pattern.steps;
    let mut partials: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
    let mut found = Vec::new();
    for position in 0..stream.all.len() {
        let event = stream.all[position].1;
        let Some(key) = key_of(pattern.by, event) else { continue };
        let first_s = |partial: &Vec<usize>| stream.time_s(partial[0]);
        partials.retain(|(k, r)| *k != key || event.time_s - first_s(r) <= pattern.within_s);
        if pattern.until == Some(event.kind) {
            partials.retain(|(k, _)| *k != key);
        }
        for step in (0..steps.len()).rev() {
            if steps[step] == event.kind {
                let waiting = partials.iter().position(|(k, r)| *k == key && r.len() == step);
                let mut partial = match waiting {
                    Some(at) => partials.remove(at).1,
                    None => Vec::new(),
                };
                if partial.len() == step {
                    partial.push(position);
                    partials.retain(|(k, r)| *k != key || r.len() != partial.len());
                    match partial.len() == steps.len() {
                        true => found.push((key, partial)),
                        false => partials.push((key, partial)),
                    }
                }
            }
            let refused = pattern.nots.iter().any(|(g, k)| *g == step && *k == event.kind);
            if step > 0 && refused {
                partials.retain(|(k, r)| *k != key || r.len() != step);
            }
        }
    }
    let trailing = pattern.nots.iter().any(|(g, _)| *g == steps.len());
    let allowed = found
        .into_iter()
        .filter(|(key, partial)| stream.ends_allowed(partial[0], partial[partial.len() - 1], *key));
    let mut matches: Vec<Match> = allowed
        .map(|(_, positions)| {
            let last = positions[positions.len() - 1];
            let at = match trailing {
                true => (stream.time_s(positions[0]) + pattern.within_s, usize::MAX),
                false => (stream.time_s(last), last),
            };
            let lines = positions.iter().map(|p| stream.all[*p].0).collect();
            Match { at, positions, lines }
        })
        .collect();
    matches.sort_by(|a, b| (a.at, &a.positions).cmp(&(b.at, &b.positions)));
    matches
}

#[derive(Clone, Debug)]
struct AggregateRule {
    word: usize,
    kinds: Vec<usize>,
    by: bool,
    within_s: u64,
    bound: i64,
}

const WORDS: [&str; 6] = ["count", "distinct", "sum", "avg", "percentile", "any_order"];

fn firings(aggregate: &AggregateRule, events: &[TestEvent]) -> Vec<(usize, f64)> {
    let all = ordered(events);
    let mut firings = Vec::new();
    for (position, (line, event)) in all.iter().enumerate() {
        let Some(key) = key_of(aggregate.by, event) else { continue };
        if !aggregate.kinds.contains(&event.kind) {
            continue;
        }
        let window: Vec<&TestEvent> = all[..=position]
            .iter()
            .map(|(_, e)| *e)
            .filter(|e| {
                aggregate.kinds.contains(&e.kind)
                    && key_of(aggregate.by, e) == Some(key)
                    && event.time_s - e.time_s <= aggregate.within_s
            })
            .collect();
        // An event without the key has no number (see `replayed`).
        let mut numbers: Vec<i64> =
            window.iter().filter(|e| e.key.is_some()).map(|e| e.number()).collect();
        numbers.sort_unstable();
        let mut distinct = numbers.clone();
        distinct.dedup();
        let sum = numbers.iter().sum::<i64>() as f64;
        let needs_number = (1..=4).contains(&aggregate.word);
        if needs_number && event.key.is_none() {
            continue;
        }
        let value = match WORDS[aggregate.word] {
            "count" => window.len() as f64,
            "distinct" => distinct.len() as f64,
            "sum" => sum,
            "avg" => sum / numbers.len() as f64,
            "percentile" => {
                // The smallest value that at least 90 % of the values don't exceed.
                let enough = |v: &&i64| {
                    numbers.iter().filter(|n| *n <= *v).count() * 10 >= numbers.len() * 9
                };
                *numbers.iter().find(enough).unwrap() as f64
            }
            _ => aggregate.kinds.iter().filter(|k| window.iter().any(|e| e.kind == **k)).count()
                as f64,
        };
        if value >= aggregate.bound as f64 {
            firings.push((*line, value));
        }
    }
    firings
}

fn aggregate_text(aggregate: &AggregateRule) -> String {
    let mut text = String::from("rule: r\nevents:\n");
    for kind in &aggregate.kinds {
        let _ = writeln!(text, "  e{kind}: {{ kind: t.{} }}", KINDS[*kind]);
    }
    let events: Vec<String> = aggregate.kinds.iter().map(|k| format!("e{k}")).collect();
    let by = if aggregate.by { "attributes.k" } else { "" };
    let word = WORDS[aggregate.word];
    let _ = writeln!(text, "{word}:\n  by: [{by}]\n  within: {}s", aggregate.within_s);
    let _ = writeln!(
        text,
        "  events: [{}]\n  condition: {{ gte: {} }}",
        events.join(", "),
        aggregate.bound
    );
    if (1..=4).contains(&aggregate.word) {
        text += "  field: attributes.n\n";
    }
    if word == "percentile" {
        text += "  percentile: 90\n";
    }
    text + "story: { pattern: case }\n"
}

fn arbitrary_aggregate() -> impl Strategy<Value = AggregateRule> {
    let kinds = prop::sample::subsequence(vec![0usize, 1, 2, 3], 1..=3);
    (0..WORDS.len(), kinds, any::<bool>(), 1..20u64, 1..5i64).prop_map(
        |(word, kinds, by, within_s, bound)| {
            // The condition must be satisfiable.
            let bound =
                if WORDS[word] == "any_order" { bound.min(kinds.len() as i64) } else { bound };
            AggregateRule { word, kinds, by, within_s, bound }
        },
    )
}

fn check(
    pattern: &Pattern,
    select: &str,
    expected: &[Match],
    events: &[TestEvent],
) -> Result<(), TestCaseError> {
    let expected: Vec<Json> = expected.iter().map(|m| json!(ids(pattern, &m.lines))).collect();
    let text = text(pattern, select);
    for shards in [1, 3] {
        let got = replayed(&text, events, shards);
        let got: Vec<Json> = got.iter().map(|m| m["events"].clone()).collect();
        prop_assert_eq!(&got, &expected, "{} shards\n{}\n{:?}", shards, text, events);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn select_first_and_every_equal_enumeration(
        pattern in arbitrary_pattern(),
        events in arbitrary_events().prop_map(|mut e| { e.truncate(26); e }),
    ) {
        let select = if pattern.every { "every" } else { "first" };
        check(&pattern, select, &matches(&pattern, &events), &events)?;
    }

    #[test]
    fn negations_equal_naive_engine(
        pattern in arbitrary_pattern(),
        events in arbitrary_events(),
    ) {
        check(&pattern, "latest", &latest(&pattern, &events), &events)?;
    }

    #[test]
    fn aggregates_equal_naive_engine(aggregate in arbitrary_aggregate(), events in arbitrary_events()) {
        let expected: Vec<Json> = firings(&aggregate, &events)
            .into_iter()
            .map(|(line, value)| json!([line.to_string(), value]))
            .collect();
        let text = aggregate_text(&aggregate);
        for shards in [1, 3] {
            let got = replayed(&text, &events, shards);
            let got: Vec<Json> =
                got.iter().map(|m| json!([m["event"], m["value"].as_f64()])).collect();
            prop_assert_eq!(&got, &expected, "{} shards\n{}", shards, text);
        }
    }
}
