//! A rule that panics when it is evaluated. No YAML compiles to one: its shape is made inconsistent
//! after it was compiled.

use tapio_dataflow::rules::{Loaded, Rule, Shape};

/// Two aggregates over events `t.e` by `attributes.k`: `good` is sound, `bad` panics in its window
/// on each event with `attributes.fails: true`, after it has changed the window.
pub(crate) fn good_and_failing_rule() -> Vec<Rule> {
    let text = "rule: NAME
events: { e: { kind: t.e }, f: { kind: t.e, attributes.fails: true } }
any_order: { by: [attributes.k], within: 60s, events: [e, f] }
story: { pattern: p }
---
";
    let good = "rule: good
events: { e: { kind: t.e } }
count: { event: e, by: [attributes.k], within: 60s, at_least: 1 }
story: { pattern: p }
---
";
    let mut loaded = Loaded::default();
    loaded.text("r.yaml", &(text.replace("NAME", "bad") + good));
    assert_eq!(loaded.errors, []);
    for rule in loaded.rules.iter_mut().filter(|rule| rule.name.text() == "bad") {
        let Shape::Aggregate(aggregate) = &mut rule.shape else { continue };
        // The second event counts through an inner aggregate that lacks it.
        let mut inner = aggregate.clone();
        inner.events.truncate(1);
        aggregate.inner.push(inner);
        aggregate.events[1].through = Some((0, 7));
    }
    loaded.rules
}
