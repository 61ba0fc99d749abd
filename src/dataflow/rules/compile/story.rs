//! Compiles the `story` section.

use super::super::rule::{AutoOr, StorySpec};
use super::super::shape::Shape;
use super::super::template::Template;
use super::super::yaml::{Node, Parsed, Part, Table, reject};
use super::check;
use super::scope::EventScope;
use super::values::intern;
use tapio_core::event::Name;

const DEFAULT_IDLE_NS: u64 = 30_000_000_000;
const DEFAULT_MAX_AGE_NS: u64 = 30 * 60 * 1_000_000_000;

/// Keys of `story`.
pub(crate) const STORY_KEYS: &[&str] =
    &["pattern", "name", "intent", "root_cause", "impact", "actions", "close"];

/// The type of the story: `pattern`.
pub(super) fn pattern(node: &Node) -> Parsed<Name> {
    let pattern = node.table("a story", STORY_KEYS)?.need("pattern", "a story")?;
    intern(pattern.text("the pattern")?, pattern.position)
}

/// Compiles `story`.
pub(super) fn story(
    node: &Node,
    pattern: Name,
    events: &EventScope,
    shape: &Shape,
) -> Parsed<StorySpec> {
    let table = node.table("a story", STORY_KEYS)?;
    let names = events.names();
    let template = |n: &Node| {
        let template = Template::parse(n.text("a text")?, n.position, &names)?;
        check::variables(&template, n.position, events, shape)?;
        Ok(template)
    };
    let templates = |key: &str| match table.get(key) {
        Some(n) => n.items().iter().map(template).collect::<Parsed<Vec<_>>>(),
        None => Ok(Vec::new()),
    };
    let impact = table
        .get("impact")
        .map(|n| n.table("impact", &["business", "customer_facing", "slo_impact"]));
    let impact = impact.transpose()?;
    let close = table.get("close").map(|n| n.table("close", &["idle", "max_age"])).transpose()?;
    let closing = |key: &str, default| {
        close.and_then(|c| c.get(key)).map_or(Ok(default), |n| n.duration_ns(key))
    };
    Ok(StorySpec {
        pattern,
        name: table.get("name").map(template).transpose()?,
        intent: table.get("intent").map_or(Ok(""), |n| n.text("the intent"))?.to_owned(),
        root_cause: templates("root_cause")?,
        actions: templates("actions")?,
        business: match impact.and_then(|i| i.get("business")).filter(|n| !is_auto(n)) {
            None => AutoOr::Auto,
            Some(n) => match n.number("a number or `auto`")? {
                b if (0.0..=1.0).contains(&b) => AutoOr::Fixed(b),
                _ => return reject(n.position, "business: from 0 to 1, or auto"),
            },
        },
        customer_facing: auto_or_bool(impact, "customer_facing")?,
        slo_impact: auto_or_bool(impact, "slo_impact")?,
        idle_ns: closing("idle", DEFAULT_IDLE_NS)?,
        max_age_ns: closing("max_age", DEFAULT_MAX_AGE_NS)?,
    })
}

fn is_auto(node: &Node) -> bool {
    matches!(&node.part, Part::Text(s) if s == "auto")
}

fn auto_or_bool(impact: Option<Table<'_>>, key: &str) -> Parsed<AutoOr<bool>> {
    match impact.and_then(|i| i.get(key)).filter(|n| !is_auto(n)) {
        None => Ok(AutoOr::Auto),
        Some(n) => n.bool("true, false or `auto`").map(AutoOr::Fixed),
    }
}
