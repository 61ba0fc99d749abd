//! Sigma's nested correlations and conditions against a naive engine that evaluates all events
//! again for each one.

use proptest::prelude::*;

use super::case::{KEYS, KINDS, TestEvent, arbitrary_events, ordered, replayed};

/// A correlation: its parts, its key, its window, its type.
#[derive(Clone, Debug)]
struct Correlation {
    over: Vec<Over>,
    /// By `k`, or by `k` and `n`; the outermost by `k` or nothing.
    by: usize,
    within_s: u64,
    measure: Measure,
}

#[derive(Clone, Debug)]
enum Over {
    Kind(usize),
    Inner(Box<Correlation>),
}

#[derive(Clone, Debug, PartialEq)]
enum Measure {
    Count(usize),
    AnyOrder,
    InOrder,
    /// The first part, and not the second.
    Condition,
}

/// The join key of an event for a correlation.
fn key(by: usize, event: &TestEvent) -> Option<(Option<usize>, Option<i64>)> {
    match by {
        0 => Some((None, None)),
        1 => Some((Some(event.key?), None)),
        _ => Some((Some(event.key?), Some(event.number()))),
    }
}

impl Correlation {
    /// Whether the event at a position counts as a part.
    fn counts(&self, part: usize, position: usize, all: &[(usize, &TestEvent)]) -> bool {
        match &self.over[part] {
            Over::Kind(kind) => all[position].1.kind == *kind,
            Over::Inner(inner) => inner.fires(position, all),
        }
    }

    /// Whether the correlation fires at the event at a position.
    fn fires(&self, position: usize, all: &[(usize, &TestEvent)]) -> bool {
        let (at, parts) = (all[position].1, self.over.len());
        let Some(own) = key(self.by, at) else { return false };
        if !(0..parts).any(|part| self.counts(part, position, all)) {
            return false;
        }
        // For each event in the window its time and the parts it counts as.
        let window: Vec<(u64, Vec<usize>)> = all[..=position]
            .iter()
            .enumerate()
            .filter(|(_, (_, e))| {
                key(self.by, e) == Some(own) && e.time_s + self.within_s >= at.time_s
            })
            .map(|(p, (_, e))| (e.time_s, (0..parts).filter(|i| self.counts(*i, p, all)).collect()))
            .collect();
        let seen = |part| window.iter().any(|(_, parts)| parts.contains(&part));
        match self.measure {
            Measure::Count(least) => window.iter().filter(|(_, p)| !p.is_empty()).count() >= least,
            Measure::AnyOrder => (0..parts).all(seen),
            Measure::Condition => seen(0) && !seen(1),
            Measure::InOrder => {
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

    /// The documents, nested ones last. `names` numbers them.
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
        let (kind, condition) = match self.measure {
            Measure::Count(least) => ("event_count", format!("{{ gte: {least} }}")),
            Measure::AnyOrder => ("temporal", String::new()),
            Measure::InOrder => ("temporal_ordered", String::new()),
            Measure::Condition => ("temporal", format!("{} and not {}", rules[0], rules[1])),
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

fn arbitrary_correlation() -> impl Strategy<Value = Correlation> {
    let measure = || {
        prop_oneof![
            (1..4usize).prop_map(Measure::Count),
            Just(Measure::AnyOrder),
            Just(Measure::InOrder),
            Just(Measure::Condition)
        ]
    };
    let kinds = || prop::collection::vec((0..4usize).prop_map(Over::Kind), 2..=2);
    let inner = (kinds(), 1..=2usize, 1..12u64, measure())
        .prop_map(|(over, by, within_s, measure)| Correlation { over, by, within_s, measure });
    let over = || {
        let inner = inner.clone().prop_map(|c| Over::Inner(Box::new(c)));
        prop_oneof![(0..4usize).prop_map(Over::Kind), inner.clone(), inner]
    };
    (prop::collection::vec(over(), 2..=3), 0..=1usize, 1..20u64, measure())
        .prop_map(|(over, by, within_s, measure)| Correlation { over, by, within_s, measure })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nested_correlations_equal_naive_engine(outer in arbitrary_correlation(), events in arbitrary_events()) {
        let rules = detections() + &outer.documents("outer", &mut 0);
        let all = ordered(&events);
        let expected: Vec<usize> =
            (0..all.len()).filter(|position| outer.fires(*position, &all)).map(|p| all[p].0).collect();
        for shards in [1, 3] {
            // Detections that no correlation uses are rules of their own.
            let lines = replayed(&rules, &events, shards);
            let lines = lines.iter().filter(|m| m["rule"] == "outer");
            let found: Vec<usize> =
                lines.map(|m| m["event"].as_str().unwrap().parse().unwrap()).collect();
            prop_assert_eq!(&found, &expected, "{} {:?}", rules, KEYS);
        }
    }
}

#[test]
fn correlation_is_rejected_if_a_referenced_rule_is_missing_or_lacks_its_key() {
    let errors = |text: &str| {
        let mut loaded = tapio_dataflow::rules::Loaded::default();
        loaded.text("sigma.yaml", &(detections() + text));
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(!errors.is_empty(), "{text}");
        errors.join("\n")
    };
    let inner = "title: many\ncorrelation: { type: event_count, rules: [kind-A], group-by: [k], timespan: 5s, condition: { gte: 3 } }\n---\n";
    let outer = |rest: &str| {
        format!("{inner}title: outer\ncorrelation: {{ type: temporal, timespan: 1m, {rest} }}\n")
    };
    let found = errors(&outer("rules: [many, kind-B], group-by: [n]"));
    assert!(
        found.contains("`many` doesn't group by `n`, so its matches have no value for it"),
        "{found}"
    );
    let found = errors(&outer("rules: [mani, kind-B]"));
    assert!(found.contains("unknown rule `mani`") && found.contains("many"), "{found}");
    let found = errors(&outer("rules: [many, outer]"));
    assert!(found.contains("the correlation refers to itself"), "{found}");
    let found = errors(&outer("rules: [many, kind-B], condition: many and kind-C"));
    assert!(found.contains("unknown rule `kind-C`"), "{found}");
}

#[test]
fn alias_reaches_through_nested_correlations() {
    let rules = detections()
        + "title: many\ncorrelation: { type: event_count, rules: [kind-A], group-by: [who], timespan: 9s, condition: { gte: 2 }, aliases: { who: { kind-A: k } } }\n---\n\
           title: outer\ncorrelation: { type: temporal_ordered, rules: [many, kind-B], group-by: [user], timespan: 1m, aliases: { user: { many: who, kind-B: k } } }\n";
    let event = |time_s, kind, key| TestEvent { time_s, kind, key: Some(key) };
    let events = [event(1, 0, 0), event(2, 0, 1), event(3, 0, 0), event(4, 1, 1), event(5, 1, 0)];
    let lines = replayed(&rules, &events, 1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["rule"], "outer");
    assert_eq!(lines[0]["event"], "4");
    assert_eq!(
        lines[0]["key"],
        serde_json::json!({"attributes.k": "x"}),
        "the key has the field's name"
    );
}
