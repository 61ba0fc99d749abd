//! Sigma's correlations of correlations, and conditions in words, against an engine that looks at all events
//! again for each one.

use proptest::prelude::*;

use super::case::{KEYS, KINDS, Seen, ordered, replayed, some_events};

/// A correlation: what it is over, what it groups by, its window.
#[derive(Clone, Debug)]
struct Correlation {
    over: Vec<Over>,
    /// By `k`, or by `k` and `n`; the outermost by `k` or nothing.
    by: usize,
    within_s: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum Over {
    Kind(usize),
    Inner(Box<Correlation>),
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Count(usize),
    AnyOrder,
    InOrder,
    /// The first one, and not the second.
    Words,
}

/// The key an event has for a correlation.
fn key(by: usize, event: &Seen) -> Option<(Option<usize>, Option<i64>)> {
    match by {
        0 => Some((None, None)),
        1 => Some((Some(event.key?), None)),
        _ => Some((Some(event.key?), Some(event.number()))),
    }
}

impl Correlation {
    /// Whether the event at a place counts as a part.
    fn counts(&self, part: usize, place: usize, all: &[(usize, &Seen)]) -> bool {
        match &self.over[part] {
            Over::Kind(kind) => all[place].1.kind == *kind,
            Over::Inner(inner) => inner.fires(place, all),
        }
    }

    /// Whether the event at a place makes it fire.
    fn fires(&self, place: usize, all: &[(usize, &Seen)]) -> bool {
        let (at, parts) = (all[place].1, self.over.len());
        let Some(own) = key(self.by, at) else { return false };
        if !(0..parts).any(|part| self.counts(part, place, all)) {
            return false;
        }
        // Of each event in the window, its time and the parts it counts as.
        let window: Vec<(u64, Vec<usize>)> = all[..=place]
            .iter()
            .enumerate()
            .filter(|(_, (_, e))| {
                key(self.by, e) == Some(own) && e.time_s + self.within_s >= at.time_s
            })
            .map(|(p, (_, e))| (e.time_s, (0..parts).filter(|i| self.counts(*i, p, all)).collect()))
            .collect();
        let seen = |part| window.iter().any(|(_, parts)| parts.contains(&part));
        match self.what {
            What::Count(least) => window.iter().filter(|(_, p)| !p.is_empty()).count() >= least,
            What::AnyOrder => (0..parts).all(seen),
            What::Words => seen(0) && !seen(1),
            What::InOrder => {
                let mut earliest = Some(0);
                for part in 0..parts {
                    let after = earliest.unwrap_or(u64::MAX);
                    let times = window.iter().filter(|(t, p)| *t >= after && p.contains(&part));
                    earliest = times.map(|(t, _)| *t).min();
                }
                earliest.is_some()
            }
        }
    }

    /// The documents, inner ones last; names are given out from `names`.
    fn documents(&self, name: &str, names: &mut usize) -> String {
        let mut below = String::new();
        let mut rules = Vec::new();
        for over in &self.over {
            rules.push(match over {
                Over::Kind(kind) => format!("kind-{}", KINDS[*kind]),
                Over::Inner(inner) => {
                    *names += 1;
                    let name = format!("inner-{names}");
                    below += &inner.documents(&name, names);
                    name
                }
            });
        }
        let by = ["[]", "[k]", "[k, n]"][self.by];
        let (kind, condition) = match self.what {
            What::Count(least) => ("event_count", format!("{{ gte: {least} }}")),
            What::AnyOrder => ("temporal", String::new()),
            What::InOrder => ("temporal_ordered", String::new()),
            What::Words => ("temporal", format!("{} and not {}", rules[0], rules[1])),
        };
        let condition =
            if condition.is_empty() { condition } else { format!(", condition: {condition}") };
        format!(
            "title: {name}\ncorrelation: {{ type: {kind}, rules: [{}], group-by: {by}, timespan: {}s{condition} }}\n---\n{below}",
            rules.join(", "),
            self.within_s
        )
    }
}

fn detections() -> String {
    let one = |kind: &&str| {
        format!(
            "title: kind-{kind}\nlogsource: {{ product: test }}\ndetection: {{ sel: {{ kind: t.{kind} }}, condition: sel }}\n---\n"
        )
    };
    KINDS.iter().map(one).collect()
}

fn some_correlation() -> impl Strategy<Value = Correlation> {
    let what = || {
        prop_oneof![
            (1..4usize).prop_map(What::Count),
            Just(What::AnyOrder),
            Just(What::InOrder),
            Just(What::Words)
        ]
    };
    let kinds = || prop::collection::vec((0..4usize).prop_map(Over::Kind), 2..=2);
    let inner = (kinds(), 1..=2usize, 1..12u64, what())
        .prop_map(|(over, by, within_s, what)| Correlation { over, by, within_s, what });
    let over = || {
        let inner = inner.clone().prop_map(|c| Over::Inner(Box::new(c)));
        prop_oneof![(0..4usize).prop_map(Over::Kind), inner.clone(), inner]
    };
    (prop::collection::vec(over(), 2..=3), 0..=1usize, 1..20u64, what())
        .prop_map(|(over, by, within_s, what)| Correlation { over, by, within_s, what })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn correlations_of_correlations(outer in some_correlation(), events in some_events()) {
        let rules = detections() + &outer.documents("outer", &mut 0);
        let all = ordered(&events);
        let expected: Vec<usize> =
            (0..all.len()).filter(|place| outer.fires(*place, &all)).map(|p| all[p].0).collect();
        for shards in [1, 3] {
            // Detections that the case doesn't use are told by themselves.
            let lines = replayed(&rules, &events, shards);
            let lines = lines.iter().filter(|m| m["rule"] == "outer");
            let found: Vec<usize> =
                lines.map(|m| m["event"].as_str().unwrap().parse().unwrap()).collect();
            prop_assert_eq!(&found, &expected, "{} {:?}", rules, KEYS);
        }
    }
}

#[test]
fn what_a_correlation_refers_to_must_be_there_and_have_its_key() {
    let refused = |text: &str| {
        let mut loaded = tapio_dataflow::rules::Loaded::default();
        loaded.text("sigma.yaml", &(detections() + text));
        let causes: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(!causes.is_empty(), "{text}");
        causes.join("\n")
    };
    let inner = "title: many\ncorrelation: { type: event_count, rules: [kind-A], group-by: [k], timespan: 5s, condition: { gte: 3 } }\n---\n";
    let outer = |rest: &str| {
        format!("{inner}title: outer\ncorrelation: {{ type: temporal, timespan: 1m, {rest} }}\n")
    };
    let causes = refused(&outer("rules: [many, kind-B], group-by: [n]"));
    assert!(causes.contains("`many` doesn't group by `n`, so it has no value there"), "{causes}");
    let causes = refused(&outer("rules: [mani, kind-B]"));
    assert!(causes.contains("unknown rule `mani`") && causes.contains("many"), "{causes}");
    let causes = refused(&outer("rules: [many, outer]"));
    assert!(causes.contains("it refers to itself"), "{causes}");
    let causes = refused(&outer("rules: [many, kind-B], condition: many and kind-C"));
    assert!(causes.contains("unknown rule `kind-C`"), "{causes}");
}

#[test]
fn an_alias_reaches_through_a_correlation() {
    let rules = detections()
        + "title: many\ncorrelation: { type: event_count, rules: [kind-A], group-by: [who], timespan: 9s, condition: { gte: 2 }, aliases: { who: { kind-A: k } } }\n---\n\
           title: outer\ncorrelation: { type: temporal_ordered, rules: [many, kind-B], group-by: [user], timespan: 1m, aliases: { user: { many: who, kind-B: k } } }\n";
    let event = |time_s, kind, key| Seen { time_s, kind, key: Some(key) };
    let events = [event(1, 0, 0), event(2, 0, 1), event(3, 0, 0), event(4, 1, 1), event(5, 1, 0)];
    let lines = replayed(&rules, &events, 1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["rule"], "outer");
    assert_eq!(lines[0]["event"], "4");
    assert_eq!(lines[0]["key"], serde_json::json!({"attributes.k": "x"}), "the field's own name");
}
