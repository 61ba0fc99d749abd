//! Two candidates, `a.service` and `b.service`, in a story that `c.service` ends. With equal
//! evidence the first one is ranked first.

use serde_json::{Value as Json, json};

use crate::causes::{at, at_second, depends, event, last_story, rules, with};

const RULE: &str = "rule: abc
events: { a: { kind: t.a }, b: { kind: t.b }, c: { kind: t.c } }
sequence:
  by: [host.name]
  within: 120s
  steps: [{ event: a, role: cause }, { event: b, role: cause }, { event: c, role: effect }]
story: { pattern: abc }
";

/// a, b and c within a millisecond, less than the slack of clocks.
fn simultaneous() -> Vec<Json> {
    vec![
        event(at(0.0), "t.a", "a.service", "error"),
        event(at(0.3), "t.b", "b.service", "error"),
        event(at(0.6), "t.c", "c.service", "error"),
    ]
}

struct Ranked(Json);

impl Ranked {
    fn of(events: &[Json], text: &str) -> Self {
        Self(last_story(events, &rules(text)))
    }

    /// The unit of the first candidate.
    fn first(&self) -> &str {
        let id = self.0["root_causes"][0]["evidence"][0].as_str().unwrap();
        id.split('@').nth(1).unwrap()
    }

    fn candidate(&self, unit: &str) -> &Json {
        let all = self.0["root_causes"].as_array().unwrap();
        all.iter().find(|c| c["evidence"][0].as_str().unwrap().contains(unit)).unwrap()
    }

    /// Terms in which the two candidates differ.
    fn differing(&self) -> Vec<String> {
        let (a, b) = (self.candidate("a.service"), self.candidate("b.service"));
        let names =
            ["deviation", "lift", "edge gap", "severity", "onset", "pairs", "rule", "upstream"];
        let differs = |n: &&&str| term(a, n)["weight"] != term(b, n)["weight"];
        names.iter().filter(differs).map(|n| (*n).to_owned()).collect()
    }
}

/// A term of a candidate; null for none.
fn term<'a>(candidate: &'a Json, name: &str) -> &'a Json {
    let terms = candidate["terms"].as_array().unwrap();
    terms.iter().find(|term| term["name"] == name).unwrap_or(&Json::Null)
}

/// Asserts that with the evidence b is first, by this term alone, and without it a is.
fn assert_decides(term: &str, with_evidence: &[Json], without_evidence: &[Json]) -> Ranked {
    let ranked = Ranked::of(with_evidence, RULE);
    assert_eq!(ranked.first(), "b.service", "{}", ranked.0["root_causes"]);
    assert_eq!(ranked.differing(), [term], "{}", ranked.0["root_causes"]);
    let ablated = Ranked::of(without_evidence, RULE);
    assert_eq!(ablated.first(), "a.service", "{}", ablated.0["root_causes"]);
    ranked
}

#[test]
fn earliest_candidate_is_first_with_equal_evidence() {
    let ranked = Ranked::of(&simultaneous(), RULE);
    assert_eq!(ranked.first(), "a.service");
    assert_eq!(ranked.differing(), [""; 0]);
    let absent = ["deviation", "lift", "pairs", "rule", "upstream"];
    let candidate = ranked.candidate("a.service");
    assert!(
        absent.iter().all(|name| term(candidate, name).is_null()),
        "terms without evidence are omitted: {candidate}"
    );
}

#[test]
fn deviation_decides() {
    // A unit known for ten minutes, without an event of this kind.
    let past = event(at(-600_000.0), "t.other", "b.service", "warn");
    let mut all = simultaneous();
    all.push(past);
    let ranked = assert_decides("deviation", &all, &simultaneous());
    let because = term(ranked.candidate("b.service"), "deviation")["because"].as_str().unwrap();
    assert!(because.starts_with("1 in 10 s, median 0"), "{because}");
}

#[test]
fn usual_count_is_no_deviation() {
    let mut all = simultaneous();
    for bucket in 1..60 {
        all.push(event(at(-10_000.0 * f64::from(bucket)), "t.b", "b.service", "error"));
    }
    let ranked = Ranked::of(&all, RULE);
    assert_eq!(term(ranked.candidate("b.service"), "deviation")["weight"], 0.0);
}

#[test]
fn template_lift_decides() {
    let with_message = |event: Json, message: &str| with(event, &json!({"message": message}));
    let story = |messages: [&str; 2]| {
        let mut all = Vec::new();
        for (unit, kind) in [("a.service", "t.a"), ("b.service", "t.b")] {
            for minute in 1..30 {
                let past = event(at(-60_000.0 * f64::from(minute)), kind, unit, "error");
                all.push(with_message(past, "request 17 took 12ms"));
            }
        }
        let now = simultaneous();
        all.push(with_message(now[0].clone(), messages[0]));
        all.push(with_message(now[1].clone(), messages[1]));
        all.push(now[2].clone());
        all
    };
    let usual = "request 18 took 9ms";
    let new = story([usual, "the disk has gone away"]);
    let ranked = assert_decides("lift", &new, &story([usual, usual]));
    let because = term(ranked.candidate("b.service"), "lift")["because"].as_str().unwrap();
    assert!(because.starts_with("\"the disk has gone away\": 1 in the last minute"), "{because}");
}

#[test]
fn edge_gap_decides() {
    // b is more severe by one number, and it follows a immediately.
    let story = |end_ms: f64| {
        vec![
            event(at(0.0), "t.a", "a.service", "error"),
            event(at(0.3), "t.b", "b.service", "critical"),
            event(at(end_ms), "t.c", "c.service", "error"),
        ]
    };
    let ranked = Ranked::of(&story(60_000.0), RULE);
    assert_eq!(ranked.first(), "a.service");
    assert_eq!(ranked.differing(), ["edge gap", "severity"]);
    assert_eq!(Ranked::of(&story(0.6), RULE).first(), "b.service");
}

#[test]
fn severity_decides() {
    let mut severe = simultaneous();
    severe[1]["severity"] = "critical".into();
    assert_decides("severity", &severe, &simultaneous());
}

#[test]
fn onset_decides() {
    // b is more severe by one number, and its next event follows as soon as that of a.
    let story = |a_ms: f64| {
        vec![
            event(at(a_ms), "t.a", "a.service", "error"),
            event(at(a_ms), "t.c0", "other.service", "error"),
            event(at(0.0), "t.b", "b.service", "critical"),
            event(at(0.3), "t.c", "c.service", "error"),
        ]
    };
    let rule = RULE
        .replace("c: { kind: t.c }", "c0: { kind: t.c0 }, c: { kind: t.c }")
        .replace("{ event: b,", "{ event: c0, role: effect }, { event: b,");
    let ranked = Ranked::of(&story(-5_000.0), &rule);
    assert_eq!(ranked.first(), "a.service", "{}", ranked.0["root_causes"]);
    assert_eq!(ranked.differing(), ["severity", "onset"]);
    assert_eq!(Ranked::of(&story(0.0), &rule).first(), "b.service");
}

#[test]
fn onset_is_measured_less_the_tick_of_the_clock() {
    let onset = |b: i64| {
        let story = vec![
            event(at(0.0), "t.a", "a.service", "error"),
            event(b, "t.b", "b.service", "error"),
            event(at(5_000.0), "t.c", "c.service", "error"),
        ];
        let ranked = Ranked::of(&story, RULE);
        term(ranked.candidate("b.service"), "onset")["weight"].as_f64().unwrap()
    };
    assert_eq!(onset(at_second(1)), 0.0, "within the tick of one second");
    assert!(onset(at(1_000.0)) < 0.0, "a clock with microseconds is precise");
}

#[test]
fn learned_pairs_decide() {
    let mut all = simultaneous();
    for n in 1..20 {
        // On another unit c followed b repeatedly, always after seconds.
        let begin_ms = -600_000.0 * f64::from(n);
        all.push(event(at(begin_ms), "t.b", "other.service", "error"));
        all.push(event(at(begin_ms + 5_000.0), "t.c", "other.service", "error"));
    }
    let ranked = Ranked::of(&all, RULE);
    assert_eq!(ranked.first(), "b.service", "{}", ranked.0["root_causes"]);
    assert_eq!(ranked.differing(), ["edge gap", "pairs"]);
    // The delay doesn't fit the learned ones, so it isn't the deciding term.
    let gap = |unit| term(ranked.candidate(unit), "edge gap")["weight"].as_f64().unwrap();
    assert!(gap("b.service") < gap("a.service"));
    assert_eq!(Ranked::of(&simultaneous(), RULE).first(), "a.service");
}

#[test]
fn cause_named_by_rule_decides() {
    let named = RULE.replace("pattern: abc", "pattern: abc, root_cause: \"b: {b.systemd.unit}\"");
    let ranked = Ranked::of(&simultaneous(), &named);
    assert_eq!(ranked.first(), "b.service");
    assert_eq!(ranked.0["root_causes"][0]["cause"], "b: b.service");
    assert_eq!(ranked.differing(), ["rule"]);
    assert_eq!(Ranked::of(&simultaneous(), RULE).first(), "a.service");
}

/// Conditions of a node before the fault of `a.service`. b has no node.
fn on_a_node(conditions: &[(f64, &str, &str)]) -> Ranked {
    let mut all = simultaneous();
    let node = "the-node";
    for (ms, condition, severity) in conditions {
        all.push(json!({
            "id": format!("{condition}@{node}@{ms}"), "time": at(*ms), "kind": "k8s.node.condition",
            "source": "k8s", "severity": severity, "entity": {"node": node},
            "attributes": {"k8s.node.condition.type": condition},
        }));
    }
    let on = depends(at(-250_000.0), "a.service", node);
    all.push(with(
        on,
        &json!({"attributes": {
            "tapio.relation.type": "scheduled-on",
            "tapio.relation.to.type": "node", "tapio.relation.to.name": node,
        }}),
    ));
    Ranked::of(&all, RULE)
}

#[test]
fn recovered_node_lowers_no_score() {
    let not_ready = (-200_000.0, "Ready", "error");
    let because = |ranked: &Ranked| {
        term(ranked.candidate("a.service"), "upstream")["because"].as_str().map(str::to_owned)
    };
    let not_ready_story = on_a_node(&[not_ready]);
    assert_eq!(not_ready_story.first(), "b.service", "{}", not_ready_story.0["root_causes"]);
    let expected = "earlier k8s.node.condition of node the-node, 1 step upstream";
    assert_eq!(because(&not_ready_story).as_deref(), Some(expected));
    let recovered = on_a_node(&[not_ready, (-100_000.0, "Ready", "info")]);
    assert_eq!(recovered.first(), "a.service", "{}", recovered.0["root_causes"]);
    assert_eq!(because(&recovered), None);
    // Neither another condition nor a later event ends this fault.
    for other in [(-100_000.0, "MemoryPressure", "info"), (50.0, "Ready", "info")] {
        let not_ready_story = on_a_node(&[not_ready, other]);
        assert_eq!(not_ready_story.first(), "b.service", "{other:?}");
    }
    let again =
        on_a_node(&[not_ready, (-100_000.0, "Ready", "info"), (-50_000.0, "Ready", "error")]);
    assert_eq!(again.first(), "b.service");
}

#[test]
fn restarted_dependency_lowers_no_score() {
    let story = |ends: &[(f64, &str)]| {
        let mut all = simultaneous();
        let failed = event(at(-60_000.0), "systemd.unit.failed", "database.service", "error");
        all.extend([failed, depends(at(-90_000.0), "a.service", "database.service")]);
        all.extend(ends.iter().map(|(ms, kind)| event(at(*ms), kind, "database.service", "info")));
        Ranked::of(&all, RULE)
    };
    assert_eq!(story(&[]).first(), "b.service");
    assert_eq!(story(&[(-30_000.0, "systemd.unit.started")]).first(), "a.service");
    assert_eq!(story(&[(-30_000.0, "systemd.unit.reloaded")]).first(), "b.service");
    assert_eq!(
        story(&[(-120_000.0, "systemd.unit.started")]).first(),
        "b.service",
        "before the fault"
    );
}

/// A dependency of a has a fault, so b is the better cause of the two.
fn with_upstream_fault(edges: &[Json]) -> Vec<Json> {
    let mut all = simultaneous();
    all.push(event(at(-20_000.0), "t.fault", "database.service", "error"));
    all.extend_from_slice(edges);
    all
}

#[test]
fn upstream_fault_decides() {
    let direct = [depends(at(-60_000.0), "a.service", "database.service")];
    let ranked =
        assert_decides("upstream", &with_upstream_fault(&direct), &with_upstream_fault(&[]));
    let because = term(ranked.candidate("a.service"), "upstream")["because"].as_str().unwrap();
    assert_eq!(because, "earlier t.fault of unit database.service, 1 step upstream");
}

#[test]
fn upstream_is_limited_in_steps_and_time() {
    let chain = |names: &[&str]| -> Vec<Json> {
        let pairs = names.windows(2);
        pairs.map(|w| depends(at(-60_000.0), w[0], w[1])).collect()
    };
    let three = chain(&["a.service", "x.service", "y.service", "database.service"]);
    assert_eq!(Ranked::of(&with_upstream_fault(&three), RULE).first(), "b.service");
    let four = chain(&["a.service", "x.service", "y.service", "z.service", "database.service"]);
    assert_eq!(Ranked::of(&with_upstream_fault(&four), RULE).first(), "a.service");
    // An edge seen only later, or too long ago, is no dependency as of that time.
    for when in [at(10_000.0), at(-900_000.0)] {
        let other = [depends(when, "a.service", "database.service")];
        assert_eq!(Ranked::of(&with_upstream_fault(&other), RULE).first(), "a.service");
    }
    let mut late = simultaneous();
    late.push(event(at(50.0), "t.fault", "database.service", "error"));
    late.push(depends(at(-60_000.0), "a.service", "database.service"));
    assert_eq!(Ranked::of(&late, RULE).first(), "a.service", "a later fault");
}
