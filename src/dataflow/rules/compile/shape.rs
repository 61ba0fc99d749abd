//! Compiles the shape of a rule.

use super::super::shape::Shape;
use super::super::yaml::{Node, Parsed, Table, reject};
use super::scope::EventScope;
use super::{aggregate, sequence};
use tapio_core::event::Name;

/// The keys of a rule's shape, one of which a rule has.
pub(crate) const SHAPE_KEYS: &[&str] =
    &["sequence", "any_order", "count", "distinct", "sum", "avg", "percentile", "absence"];

/// Compiles the shape of a rule. `pattern`: the pattern of its story.
pub(super) fn parse(
    rule: &Node,
    table: Table<'_>,
    events: &mut EventScope,
    pattern: Name,
) -> Parsed<Shape> {
    let mut found = SHAPE_KEYS.iter().filter_map(|word| Some((*word, table.get(word)?)));
    let Some((word, node)) = found.next() else {
        return reject(rule.position, format!("a rule needs one of: {}", SHAPE_KEYS.join(", ")));
    };
    if let Some((second, at)) = found.next() {
        return reject(at.position, format!("a rule can't have both `{word}` and `{second}`"));
    }
    Ok(match word {
        "sequence" => Shape::Sequence(sequence::sequence(node, events, pattern)?),
        "absence" => Shape::Sequence(sequence::absence(node, events, pattern)?),
        _ => Shape::Aggregate(aggregate::aggregate(word, node, events)?),
    })
}
