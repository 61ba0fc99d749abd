//! Keys that several sections of a rule have.

use super::super::field::FieldRef;
use super::super::suggest::unknown;
use super::super::yaml::{Diagnostic, Node, Parsed, Position, Table, reject};
use tapio_core::event::Name;

/// Longest window: 31 days. Bounds the lifetime of a rule's state.
const MAX_WITHIN_NS: u64 = 31 * 86_400 * 1_000_000_000;

/// Interns a name.
pub(crate) fn intern(text: &str, position: Position) -> Parsed<Name> {
    Name::intern(text).map_err(|e| Diagnostic { position, message: e.to_string() })
}

/// One field or a list of fields.
pub(crate) fn fields(node: &Node) -> Parsed<Vec<FieldRef>> {
    let parse = |n: &Node| {
        let text = n.text("the name of a field")?;
        FieldRef::parse(text).or_else(|message| reject(n.position, message))
    };
    node.items().iter().map(parse).collect()
}

/// The join key in `by`; empty if there is none.
pub(super) fn join_key(table: Table<'_>) -> Parsed<Vec<FieldRef>> {
    table.get("by").map_or(Ok(Vec::new()), fields)
}

/// The join key of a step, which begins with that of its sequence.
pub(super) fn step_key(table: Table<'_>, by: &[FieldRef]) -> Parsed<Vec<FieldRef>> {
    let Some(node) = table.get("by") else { return Ok(by.to_vec()) };
    let own = fields(node)?;
    if own.len() < by.len() {
        let message =
            format!("by: a step's key needs at least the {} fields of its sequence", by.len());
        return reject(node.position, message);
    }
    Ok(own)
}

/// The window in `within`. `context`: the part of the rule that has it.
pub(super) fn within(table: Table<'_>, context: &str) -> Parsed<u64> {
    let node = table.need("within", context)?;
    let within_ns = node.duration_ns("within")?;
    if within_ns > MAX_WITHIN_NS {
        return reject(node.position, "within: longer than 31 days; a rule must be bounded");
    }
    Ok(within_ns)
}

/// One of a few words.
pub(super) fn word<T: Copy>(node: &Node, noun: &str, words: &[(&str, T)]) -> Parsed<T> {
    let text = node.text(noun)?;
    match words.iter().find(|(w, _)| *w == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            reject(node.position, unknown(noun, text, &known))
        }
    }
}
