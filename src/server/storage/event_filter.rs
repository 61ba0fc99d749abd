//! Selects events.

use std::borrow::Cow;

use tapio_core::event::Value;
use tapio_wire::{Batch, Item, RawEvent};

/// Selects events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The kind: exact, or a prefix that ends in `*`; empty for any.
    pub kind: String,
    /// The 16 bytes of a trace id; empty for any.
    pub trace_id: Vec<u8>,
    /// The node; empty for any.
    pub node: String,
    /// An entity, as `key=value`; empty for any.
    pub entity: String,
}

impl EventFilter {
    pub(super) fn kind_matches(&self, kind: &str) -> bool {
        self.kind.is_empty() || tapio_core::glob::matches(&self.kind, kind)
    }

    /// The key and the value of the entity; `None` for any.
    pub(super) fn entity(&self) -> Option<(&str, &str)> {
        (!self.entity.is_empty()).then(|| self.entity.split_once('=').unwrap_or((&self.entity, "")))
    }

    fn entity_matches(&self, batch: &Batch<'_>, event: RawEvent<'_>) -> bool {
        let Some((wanted_key, wanted)) = self.entity() else { return true };
        let mut matches = false;
        let keys = event.keys(|key, value| {
            matches |= batch.names().get(key) == Some(&wanted_key)
                && entity_text(value).is_some_and(|text| text == wanted);
        });
        keys.is_some() && matches
    }

    /// The positions of matching events among the batch's events, ascending.
    #[must_use]
    pub fn positions(&self, batch: &Batch<'_>) -> Vec<usize> {
        if !self.node.is_empty() && self.node != batch.head.node {
            return Vec::new();
        }
        let kinds: Vec<bool> = batch.names().iter().map(|n| self.kind_matches(n)).collect();
        if !kinds.contains(&true) {
            return Vec::new();
        }
        let matches = |event: RawEvent<'_>| {
            event.kind_index().is_some_and(|index| kinds.get(index) == Some(&true))
                && (self.trace_id.is_empty() || event.trace() == self.trace_id)
                && self.entity_matches(batch, event)
        };
        batch
            .items()
            .filter_map(|item| match item {
                Item::Event(event) => Some(event),
                Item::Story(_) => None,
            })
            .enumerate()
            .filter_map(|(position, event)| matches(event).then_some(position))
            .collect()
    }
}

/// The value of an entity as text; `None` for values that no entity has.
pub(super) fn entity_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}
