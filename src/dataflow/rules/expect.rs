//! The `tests` of a rule: events, and the stories that must come out of them.

use super::rule::{RuleTest, TestEvents};
use super::tree::{Node, Part, Read, complain, unknown};

/// What a test may look at in a story.
pub(super) const EXPECTED: &[&str] = &[
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

/// Reads `tests`.
pub(super) fn parse(node: &Node) -> Read<Vec<RuleTest>> {
    node.items().iter().map(test).collect()
}

fn test(node: &Node) -> Read<RuleTest> {
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
        return expect.expected("a list of stories; an empty one where nothing may be found");
    };
    let expect = stories.iter().map(story).collect::<Read<_>>()?;
    Ok(RuleTest { place: node.place, events, expect })
}

fn story(node: &Node) -> Read<serde_json::Map<String, serde_json::Value>> {
    let entries = node.map("an expected story")?;
    for (key, _) in entries {
        if !EXPECTED.contains(&key.text.as_str()) {
            return complain(key.place, unknown("key in an expected story", &key.text, EXPECTED));
        }
    }
    Ok(entries.iter().map(|(key, value)| (key.text.clone(), value.json())).collect())
}
