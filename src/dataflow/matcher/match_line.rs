//! Matches as JSON, for `tapio replay --emit matches`.

use crate::rules::{FieldRef, Rule, View};
use tapio_core::event::{ArchivedEvent, Value, names, value_json};

/// One match.
#[derive(Clone, Debug)]
pub struct MatchLine {
    /// When it was completed: orders matches that were completed by time, not by an event.
    pub time_ns: u64,
    /// The completing event's position in the total order; `u64::MAX` where time completed it.
    pub order: u64,
    /// The rule's number: orders matches that were completed together.
    pub rule_number: u16,
    /// The position of the match's first event in the total order.
    pub first: u64,
    /// The match as JSON.
    pub json: serde_json::Value,
}

/// The join key by the rule's names for it; `by` are the event's fields.
pub(crate) fn key_json(
    rule: &Rule,
    by: &[FieldRef],
    event: &ArchivedEvent<'_>,
) -> serde_json::Value {
    let names = rule.join_fields().iter().zip(by);
    let value = |f: &FieldRef| event.field(*f).map_or(serde_json::Value::Null, value_json);
    serde_json::Value::Object(names.map(|(n, f)| (n.text(), value(f))).collect())
}

/// The event's id as its source wrote it.
pub(crate) fn label_json(event: &ArchivedEvent<'_>) -> serde_json::Value {
    match event.attribute(names::TAPIO_EVENT_ID) {
        None | Some(Value::Null) => event.event_id().to_string().into(),
        Some(value) => value_json(value),
    }
}
