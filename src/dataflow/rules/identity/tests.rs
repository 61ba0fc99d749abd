use super::super::load::Loaded;
use super::RuleId;

const RULE: &str = "rule: a-b
description: d
severity: warn
events:
  a: { kind: t.a, attributes.n: { gt: 3, lt: 9 }, message: { regex: 'x(?<g>y)' } }
  b: { kind: [t.b, t.c], any: [{ attributes.v: [1, 2] }, { attributes.w: { cidr: 10.0.0.0/8 } }] }
  c: { kind: 't.d*', not: { attributes.n: 7 } }
sequence:
  by: [attributes.k]
  within: 10s
  slack: 1s
  select: latest
  max_runs: 9
  until: c
  steps:
    - { event: a, role: cause, keep: true }
    - { event: b, role: effect, pattern: p, count: { at_least: 2, within: 5s } }
    - not: { kind: t.e }
    - { event: a }
    - not: c
story:
  pattern: ab
  name: 'n {key.attributes.k}'
  intent: i
  root_cause: ['r {a.match.g}', 's {b.attributes.v:upper}']
  actions: ['t']
  impact: { business: 0.5, customer_facing: true, slo_impact: auto }
  close: { idle: 5s, max_age: 60s }
";

const AGGREGATE: &str = "rule: c
events:
  a: { kind: t.a }
  b: { kind: t.b }
percentile:
  events: [a, b]
  by: [attributes.k]
  field: attributes.n
  percentile: 95
  within: 10s
  condition: { gte: 3, lt: 9 }
story: { pattern: p }
";

fn id(text: &str) -> RuleId {
    let mut loaded = Loaded::default();
    loaded.text("r.yaml", text);
    assert_eq!(loaded.errors, [], "{text}");
    loaded.rules[0].id()
}

/// Asserts that each replacement changes the identity, and that no two results are alike.
fn assert_distinct(rule: &str, replacements: &[(&str, &str)]) {
    let mut ids = vec![(id(rule), "the original")];
    for (from, to) in replacements {
        assert!(rule.contains(from), "{from}");
        let changed = id(&rule.replacen(from, to, 1));
        if let Some((_, other)) = ids.iter().find(|(id, _)| *id == changed) {
            panic!("{to} is identical with {other}");
        }
        ids.push((changed, to));
    }
}

#[test]
fn change_of_sequence_changes_identity() {
    assert_distinct(
        RULE,
        &[
            ("rule: a-b", "rule: a-c"),
            ("description: d", "description: e"),
            ("severity: warn", "severity: error"),
            ("kind: t.a,", "kind: t.b,"),
            ("kind: t.a,", "kind: 't.a*',"),
            ("kind: t.a, ", ""),
            ("gt: 3", "gte: 3"),
            ("gt: 3", "gt: 4"),
            ("attributes.n: { gt", "attributes.m: { gt"),
            ("{ gt: 3, lt: 9 }", "{ gt: 9, lt: 3 }"),
            ("{ gt: 3, lt: 9 }", "7"),
            ("{ gt: 3, lt: 9 }", "'7'"),
            ("{ gt: 3, lt: 9 }", "7.5"),
            ("{ gt: 3, lt: 9 }", "true"),
            ("{ gt: 3, lt: 9 }", "{ ne: 7 }"),
            ("{ gt: 3, lt: 9 }", "{ exists: true }"),
            ("{ gt: 3, lt: 9 }", "{ ieq: '7' }"),
            ("{ gt: 3, lt: 9 }", "{ prefix: '7' }"),
            ("{ gt: 3, lt: 9 }", "{ suffix: '7' }"),
            ("{ gt: 3, lt: 9 }", "{ contains: '7' }"),
            ("{ gt: 3, lt: 9 }", "{ glob: '7' }"),
            ("regex: 'x(", "regex: 'z("),
            ("any: [", "all: ["),
            ("[1, 2]", "[1, 2, 3]"),
            ("10.0.0.0/8", "10.0.0.0/9"),
            ("not: { attributes.n: 7 }", "attributes.n: 7"),
            ("by: [attributes.k]", "by: [attributes.k, host.name]"),
            ("within: 10s", "within: 11s"),
            ("slack: 1s", "slack: 2s"),
            ("  slack: 1s\n", ""),
            ("max_runs: 9", "max_runs: 8"),
            ("until: c", "until: b"),
            ("role: cause", "role: symptom"),
            (", keep: true", ""),
            (", keep: true", ", keep: true, keep_first: 3s"),
            ("role: cause, keep", "role: cause, optional: false, by: [attributes.k, node], keep"),
            ("pattern: p,", "pattern: q,"),
            ("at_least: 2", "at_least: 3"),
            ("within: 5s", "within: 6s"),
            ("not: { kind: t.e }", "not: { kind: t.f }"),
            ("    - not: { kind: t.e }\n    - { event: a }\n", "    - { event: a }\n"),
            ("    - { event: a }\n", "    - { event: b }\n"),
            ("pattern: ab", "pattern: ac"),
            ("name: 'n ", "name: 'm "),
            ("intent: i", "intent: j"),
            ("'r {a.match.g}', ", ""),
            (":upper", ":lower"),
            ("b.attributes.v", "b.attributes.w"),
            ("actions: ['t']", "actions: ['u']"),
            ("business: 0.5", "business: 0.6"),
            ("business: 0.5", "business: auto"),
            ("customer_facing: true", "customer_facing: false"),
            ("slo_impact: auto", "slo_impact: false"),
            ("idle: 5s", "idle: 6s"),
            ("max_age: 60s", "max_age: 61s"),
        ],
    );
}

#[test]
fn change_of_aggregate_changes_identity() {
    assert_distinct(
        AGGREGATE,
        &[
            ("events: [a, b]", "events: [b, a]"),
            ("attributes.n", "attributes.m"),
            ("percentile: 95", "percentile: 96"),
            ("gte: 3", "gt: 3"),
            (", lt: 9", ""),
            ("within: 10s", "within: 9s"),
            ("lt: 9", "deviation: { lt: 9 }"),
            ("lt: 9", "deviation: { gt: 9 }"),
            ("lt: 9", "deviation: { lt: 8 }"),
            ("lt: 9", "deviation: { lt: 9, learn: 13 }"),
            ("lt: 9 }\nstory: {", "deviation: { lt: 9 } }\nstory: { name: '{value}',"),
            ("lt: 9 }\nstory: {", "deviation: { lt: 9 } }\nstory: { name: '{usual}',"),
            ("lt: 9 }\nstory: {", "deviation: { lt: 9 } }\nstory: { name: '{deviation}',"),
        ],
    );
    let learns = |text: &str| id(&AGGREGATE.replace("lt: 9", text));
    assert_eq!(learns("deviation: { lt: 9 }"), learns("deviation: { learn: 12, lt: 9 }"));
}

#[test]
fn notation_does_not_change_identity() {
    for (from, to) in [
        ("rule: a-b", "# a comment\n\nrule: a-b"),
        ("{ gt: 3, lt: 9 }", "{ lt: 9, gt: 3 }"),
        ("any: [{ attributes.v: [1, 2] }, ", "any: [{ attributes.v: { in: [2, 1] } }, "),
        (
            "[{ attributes.v: [1, 2] }, { attributes.w: { cidr: 10.0.0.0/8 } }]",
            "[{ attributes.w: { cidr: 10.0.0.0/8 } }, { attributes.v: [1, 2] }]",
        ),
        ("kind: [t.b, t.c]", "kind: [t.c, t.b]"),
        ("within: 10s", "within: 10000ms"),
        ("severity: warn", "severity: 13"),
        ("actions: ['t']", "actions: t"),
        ("  select: latest\n", ""),
        ("story:\n", "tests: [{ events: [], expect: [] }]\nstory:\n"),
    ] {
        assert!(RULE.contains(from), "{from}");
        assert_eq!(id(RULE), id(&RULE.replacen(from, to, 1)), "{to}");
    }
    let renamed = RULE
        .replace("  c: ", "  ended: ")
        .replace("until: c", "until: ended")
        .replace("not: c", "not: ended");
    assert_eq!(id(RULE), id(&renamed), "the name of an event");
}

#[test]
fn order_that_decides_a_capture_changes_identity() {
    let rule = |first: &str, second: &str| {
        format!(
            "rule: r\nevents: {{ a: {{ kind: t.a, any: [{{ message: {{ regex: '{first}' }} }}, \
             {{ message: {{ regex: '{second}' }} }}] }} }}\n\
             count: {{ event: a, within: 1s, at_least: 1 }}\nstory: {{ pattern: p }}\n"
        )
    };
    let (x, y) = ("x(?<g>.)", "y(?<g>.)");
    assert_ne!(id(&rule(x, y)), id(&rule(y, x)));
    assert_eq!(id(&rule("x", "y")), id(&rule("y", "x")));
}
