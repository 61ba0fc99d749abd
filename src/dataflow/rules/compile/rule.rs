//! Compiles a rule document.

use super::super::rule::Rule;
use super::super::yaml::{Diagnostic, Node, Parsed, reject};
use super::scope::EventScope;
use super::shape::SHAPE_KEYS;
use super::values::intern;
use super::{check, rule_tests, shape, story};
use tapio_core::event::Severity;

/// Keys of a rule beside its shape.
pub(crate) const RULE_KEYS: &[&str] =
    &["rule", "description", "severity", "events", "story", "tests"];

/// Compiles one document to a rule and warnings about what is legal but probably unintended.
pub(crate) fn rule(node: &Node, origin: &str) -> Parsed<(Rule, Vec<Diagnostic>)> {
    let keys: Vec<&str> = RULE_KEYS.iter().chain(SHAPE_KEYS).copied().collect();
    let table = node.table("a rule", &keys)?;
    let name_node = table.need("rule", "a rule")?;
    let name = name_node.text("the rule's name")?;
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return reject(name_node.position, format!("rule name {name:?}: use a-z, 0-9 and -"));
    }
    let mut events = EventScope::parse(table.need("events", "a rule")?)?;
    let story_node = table.need("story", "a rule")?;
    let story_pattern = story::pattern(story_node)?;
    let shape = shape::parse(node, table, &mut events, story_pattern)?;
    let shape_node = SHAPE_KEYS.iter().find_map(|key| table.get(key)).unwrap_or(node);
    let at = shape_node.entry("by").unwrap_or(shape_node).position;
    check::shape(&shape, &events, at)?;
    let story = story::story(story_node, story_pattern, &events, &shape)?;
    events.check_all_used(table)?;
    let warnings = std::mem::take(&mut events.warnings);
    let rule = Rule {
        name: intern(name, name_node.position)?,
        description: table
            .get("description")
            .map_or(Ok(""), |n| n.text("the description"))?
            .to_owned(),
        severity: match table.get("severity") {
            None => Severity::INFO,
            Some(n) => {
                let word = n.scalar_text("a severity")?;
                match Severity::parse(&word) {
                    Some(severity) => severity,
                    None => {
                        return reject(
                            n.position,
                            format!("{word:?} isn't a severity: trace … fatal, or 0 to 24"),
                        );
                    }
                }
            }
        },
        events: events.list,
        shape,
        story,
        tests: table.get("tests").map_or(Ok(Vec::new()), rule_tests::parse)?,
        origin: format!("{origin}:{}", name_node.position.line),
    };
    Ok((rule, warnings))
}
