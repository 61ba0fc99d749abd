//! Ids of traces and spans. All are hashes of events' and entities' ids, so that every process that
//! sees the same events derives the same ones.

use crate::rules::Home;
use tapio_core::event::{EventId, TraceId, stable_hash};

/// The trace of a story that starts with this event. Stories that start with the same event share
/// a trace, whatever their rules: a failed unit, and what fails with it.
pub(crate) fn story_trace(cluster: &str, first: EventId) -> TraceId {
    TraceId(stable_hash(&[b"story", cluster.as_bytes(), &first.0]))
}

/// The id of a story that continues an ended one, whose last member was `last`.
pub(crate) fn successor(of: TraceId, last: EventId) -> TraceId {
    TraceId(stable_hash(&[b"successor", &of.0, &last.0]))
}

/// The trace of an entity's lifecycle: the entity's own 128-bit id where it has one.
pub(crate) fn lifecycle_trace(home: Home<'_>) -> Option<TraceId> {
    match home {
        Home::Pod(id) | Home::Invocation(id) => {
            Some(id.parse().unwrap_or_else(|_| TraceId(stable_hash(&[b"life", id.as_bytes()]))))
        }
        Home::ProcessTree(root) => Some(TraceId(stable_hash(&[b"process-tree", root.as_bytes()]))),
        Home::Unit(unit) => Some(TraceId(stable_hash(&[b"unit", unit.as_bytes()]))),
        Home::Node => None,
    }
}
