//! Compiles `tests`: events, and the stories that a rule must emit for them.

use super::super::rule::{RuleTest, TestEvents};
use super::super::suggest::unknown;
use super::super::yaml::{Node, Parsed, Part, reject};

/// Keys of an expected story.
pub(crate) const EXPECTED_KEYS: &[&str] = &[
    "pattern",
    "members",
    "name",
    "root_cause",
    "severity",
    "state",
    "actions",
    "business",
    "customer_facing",
    "slo_impact",
    "affected",
];

/// Compiles `tests`.
pub(super) fn parse(node: &Node) -> Parsed<Vec<RuleTest>> {
    node.items().iter().map(test).collect()
}

fn test(node: &Node) -> Parsed<RuleTest> {
    let table = node.table("a test", &["events", "expect"])?;
    let events = table.need("events", "a test")?;
    let events = match &events.part {
        Part::Text(path) => TestEvents::File(path.clone()),
        Part::List(items) => {
            let lines: Vec<String> = items.iter().map(|n| n.json().to_string()).collect();
            TestEvents::Lines(lines.join("\n"))
        }
        _ => return events.expected("a file's name or a list of events"),
    };
    let expect = table.need("expect", "a test")?;
    let Part::List(stories) = &expect.part else {
        return expect.expected("a list of stories; an empty one if the rule must emit none");
    };
    let expect = stories.iter().map(story).collect::<Parsed<_>>()?;
    Ok(RuleTest { position: node.position, events, expect })
}

fn story(node: &Node) -> Parsed<serde_json::Map<String, serde_json::Value>> {
    let entries = node.map("an expected story")?;
    for (key, _) in entries {
        if !EXPECTED_KEYS.contains(&key.text.as_str()) {
            return reject(
                key.position,
                unknown("key in an expected story", &key.text, EXPECTED_KEYS),
            );
        }
    }
    Ok(entries.iter().map(|(key, value)| (key.text.clone(), value.json())).collect())
}
