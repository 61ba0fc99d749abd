//! `not`, `select` and the measures against engines that enumerate: every combination of events is
//! tried against the meaning of the rule, nothing is remembered from event to event.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::case::{KINDS, Seen, key_of, ordered, replayed, some_events};

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

/// A combination of events that the rule allows.
#[derive(Clone, Debug)]
struct Found {
    /// When it is complete: time, and place of the event that completes it (none: time does).
    at: (u64, usize),
    places: Vec<usize>,
    lines: Vec<usize>,
}

struct World<'a> {
    pattern: &'a Pattern,
    /// Line and event, in total order.
    all: Vec<(usize, &'a Seen)>,
}

impl World<'_> {
    fn is(&self, place: usize, kind: usize, key: Option<usize>) -> bool {
        let event = self.all[place].1;
        event.kind == kind && key_of(self.pattern.by, event) == Some(key)
    }

    fn time_s(&self, place: usize) -> u64 {
        self.all[place].1.time_s
    }

    fn any(&self, mut places: std::ops::Range<usize>, kind: usize, key: Option<usize>) -> bool {
        places.any(|p| self.is(p, kind, key))
    }

    /// Whether the rule allows these places, whatever is selected.
    fn allowed(&self, places: &[usize], key: Option<usize>) -> bool {
        let pattern = self.pattern;
        let (first, last) = (places[0], places[places.len() - 1]);
        if self.time_s(last) - self.time_s(first) > pattern.within_s {
            return false;
        }
        if pattern.until.is_some_and(|u| self.any(first + 1..last + 1, u, key)) {
            return false;
        }
        let inner = |(gap, kind): &&(usize, usize)| {
            *gap > 0
                && *gap < places.len()
                && self.any(places[*gap - 1] + 1..places[*gap], *kind, key)
        };
        !pattern.nots.iter().any(|n| inner(&n)) && self.ends_allowed(first, last, key)
    }

    /// What must not be before or behind: some window of the rule's length over the match holds
    /// none of it. It lies at the match's end where nothing is said of what follows, and at its
    /// beginning where nothing is said of what came before.
    fn ends_allowed(&self, first: usize, last: usize, key: Option<usize>) -> bool {
        let pattern = self.pattern;
        let kind_at = |gap: usize| pattern.nots.iter().find(|(g, _)| *g == gap).map(|(_, k)| *k);
        let (before, behind) = (kind_at(0), kind_at(pattern.steps.len()));
        if before.is_none() && behind.is_none() {
            return true;
        }
        // In half seconds, so that a window can begin between two events.
        let half = |place: usize| 2 * self.time_s(place) as i64;
        let length = 2 * pattern.within_s as i64;
        let (earliest, latest) = (half(last) - length, half(first));
        let mut starts = match (before, behind) {
            (Some(_), None) => earliest..=earliest,
            (None, Some(_)) => latest..=latest,
            _ => earliest..=latest,
        };
        let dropped = |place: usize| {
            pattern.until.is_some_and(|u| {
                let behind = last + 1..place.min(self.all.len());
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
            // `until` drops a match that still waits for what must not follow.
            let end = self.time_s(first) + pattern.within_s;
            let waits = (last + 1..self.all.len()).take_while(|p| self.time_s(*p) <= end).count();
            dropped(last + 1 + waits)
        })
    }

    fn combinations(&self, places: &mut Vec<usize>, key: Option<usize>, found: &mut Vec<Found>) {
        let pattern = self.pattern;
        if places.len() == pattern.steps.len() {
            if self.allowed(places, key) {
                let last = places[places.len() - 1];
                let trailing = pattern.nots.iter().any(|(g, _)| *g == pattern.steps.len());
                let at = match trailing {
                    true => (self.time_s(places[0]) + pattern.within_s, usize::MAX),
                    false => (self.time_s(last), last),
                };
                let lines = places.iter().map(|p| self.all[*p].0).collect();
                found.push(Found { at, places: places.clone(), lines });
            }
            return;
        }
        let from = places.last().map_or(0, |p| p + 1);
        for place in from..self.all.len() {
            if self.is(place, pattern.steps[places.len()], key) {
                places.push(place);
                self.combinations(places, key, found);
                places.pop();
            }
        }
    }
}

/// The matches of a pattern, as (when, lines by step).
fn matches(pattern: &Pattern, events: &[Seen]) -> Vec<Found> {
    let world = World { pattern, all: ordered(events) };
    let keys = if pattern.by { vec![Some(0), Some(1), Some(2)] } else { vec![None] };
    let mut told = Vec::new();
    for key in keys {
        let mut found = Vec::new();
        world.combinations(&mut Vec::new(), key, &mut found);
        found.sort_by(|a, b| (a.at, &a.places).cmp(&(b.at, &b.places)));
        let mut end = None;
        told.extend(found.into_iter().filter(|m| {
            let free = pattern.every || end.is_none_or(|end| m.places[0] > end);
            if free {
                end = m.places.last().copied();
            }
            free
        }));
    }
    told.sort_by(|a, b| (a.at, &a.places).cmp(&(b.at, &b.places)));
    told
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

fn a_pattern() -> impl Strategy<Value = Pattern> {
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

/// The default: one pending run per key and step. What fills a step is decided event by event, so
/// this engine does it so too; what must not be at the ends is looked up in the whole stream.
fn latest(pattern: &Pattern, events: &[Seen]) -> Vec<Found> {
    let world = World { pattern, all: ordered(events) };
    let steps = &pattern.steps;
    let mut runs: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
    let mut found = Vec::new();
    for place in 0..world.all.len() {
        let event = world.all[place].1;
        let Some(key) = key_of(pattern.by, event) else { continue };
        let first_s = |run: &Vec<usize>| world.time_s(run[0]);
        runs.retain(|(k, r)| *k != key || event.time_s - first_s(r) <= pattern.within_s);
        if pattern.until == Some(event.kind) {
            runs.retain(|(k, _)| *k != key);
        }
        for step in (0..steps.len()).rev() {
            if steps[step] == event.kind {
                let waiting = runs.iter().position(|(k, r)| *k == key && r.len() == step);
                let mut run = match waiting {
                    Some(at) => runs.remove(at).1,
                    None => Vec::new(),
                };
                if run.len() == step {
                    run.push(place);
                    runs.retain(|(k, r)| *k != key || r.len() != run.len());
                    match run.len() == steps.len() {
                        true => found.push((key, run)),
                        false => runs.push((key, run)),
                    }
                }
            }
            let refused = pattern.nots.iter().any(|(g, k)| *g == step && *k == event.kind);
            if step > 0 && refused {
                runs.retain(|(k, r)| *k != key || r.len() != step);
            }
        }
    }
    let trailing = pattern.nots.iter().any(|(g, _)| *g == steps.len());
    let told =
        found.into_iter().filter(|(key, run)| world.ends_allowed(run[0], run[run.len() - 1], *key));
    let mut told: Vec<Found> = told
        .map(|(_, places)| {
            let last = places[places.len() - 1];
            let at = match trailing {
                true => (world.time_s(places[0]) + pattern.within_s, usize::MAX),
                false => (world.time_s(last), last),
            };
            let lines = places.iter().map(|p| world.all[*p].0).collect();
            Found { at, places, lines }
        })
        .collect();
    told.sort_by(|a, b| (a.at, &a.places).cmp(&(b.at, &b.places)));
    told
}

#[derive(Clone, Debug)]
struct Measured {
    word: usize,
    kinds: Vec<usize>,
    by: bool,
    within_s: u64,
    bound: i64,
}

const WORDS: [&str; 6] = ["count", "distinct", "sum", "avg", "percentile", "any_order"];

fn firings(measured: &Measured, events: &[Seen]) -> Vec<(usize, f64)> {
    let all = ordered(events);
    let mut firings = Vec::new();
    for (place, (line, event)) in all.iter().enumerate() {
        let Some(key) = key_of(measured.by, event) else { continue };
        if !measured.kinds.contains(&event.kind) {
            continue;
        }
        let window: Vec<&Seen> = all[..=place]
            .iter()
            .map(|(_, e)| *e)
            .filter(|e| {
                measured.kinds.contains(&e.kind)
                    && key_of(measured.by, e) == Some(key)
                    && event.time_s - e.time_s <= measured.within_s
            })
            .collect();
        // Without the key there is no number either (see `Seen::number`).
        let mut numbers: Vec<i64> =
            window.iter().filter(|e| e.key.is_some()).map(|e| e.number()).collect();
        numbers.sort_unstable();
        let mut distinct = numbers.clone();
        distinct.dedup();
        let sum = numbers.iter().sum::<i64>() as f64;
        let needs_number = (1..=4).contains(&measured.word);
        if needs_number && event.key.is_none() {
            continue;
        }
        let value = match WORDS[measured.word] {
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
            _ => measured.kinds.iter().filter(|k| window.iter().any(|e| e.kind == **k)).count()
                as f64,
        };
        if value >= measured.bound as f64 {
            firings.push((*line, value));
        }
    }
    firings
}

fn measured_text(measured: &Measured) -> String {
    let mut text = String::from("rule: r\nevents:\n");
    for kind in &measured.kinds {
        let _ = writeln!(text, "  e{kind}: {{ kind: t.{} }}", KINDS[*kind]);
    }
    let events: Vec<String> = measured.kinds.iter().map(|k| format!("e{k}")).collect();
    let by = if measured.by { "attributes.k" } else { "" };
    let word = WORDS[measured.word];
    let _ = writeln!(text, "{word}:\n  by: [{by}]\n  within: {}s", measured.within_s);
    let _ = writeln!(
        text,
        "  events: [{}]\n  condition: {{ gte: {} }}",
        events.join(", "),
        measured.bound
    );
    if (1..=4).contains(&measured.word) {
        text += "  field: attributes.n\n";
    }
    if word == "percentile" {
        text += "  percentile: 90\n";
    }
    text + "story: { pattern: case }\n"
}

fn a_measure() -> impl Strategy<Value = Measured> {
    let kinds = prop::sample::subsequence(vec![0usize, 1, 2, 3], 1..=3);
    (0..WORDS.len(), kinds, any::<bool>(), 1..20u64, 1..5i64).prop_map(
        |(word, kinds, by, within_s, bound)| {
            // No condition on the number of events may be out of reach.
            let bound =
                if WORDS[word] == "any_order" { bound.min(kinds.len() as i64) } else { bound };
            Measured { word, kinds, by, within_s, bound }
        },
    )
}

fn check(
    pattern: &Pattern,
    select: &str,
    expected: &[Found],
    events: &[Seen],
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
    fn first_and_every_equal_enumeration(
        pattern in a_pattern(),
        events in some_events().prop_map(|mut e| { e.truncate(26); e }),
    ) {
        let select = if pattern.every { "every" } else { "first" };
        check(&pattern, select, &matches(&pattern, &events), &events)?;
    }

    #[test]
    fn what_must_not_happen_equals_a_naive_engine(
        pattern in a_pattern(),
        events in some_events(),
    ) {
        check(&pattern, "latest", &latest(&pattern, &events), &events)?;
    }

    #[test]
    fn measures_equal_naive_windows(measured in a_measure(), events in some_events()) {
        let expected: Vec<Json> = firings(&measured, &events)
            .into_iter()
            .map(|(line, value)| json!([line.to_string(), value]))
            .collect();
        let text = measured_text(&measured);
        for shards in [1, 3] {
            let got = replayed(&text, &events, shards);
            let got: Vec<Json> =
                got.iter().map(|m| json!([m["event"], m["value"].as_f64()])).collect();
            prop_assert_eq!(&got, &expected, "{} shards\n{}", shards, text);
        }
    }
}
