//! The frames of a segment that a query reads.

use super::entity_key::key_names;
use super::query_filter::Filter;
use super::summary::{entity_hash, id_hash};

/// The frames of a segment that may have events which match a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// The segment's index, on the disk, says which.
    InIndex,
    /// All.
    All,
    /// Those at these offsets, ascending.
    At(Vec<u64>),
}

impl Frames {
    /// The frames of a segment with these entities and traces. `None` for traces that aren't known.
    pub(super) fn select(
        filter: &Filter,
        may_have_entity: impl Fn(u64) -> bool,
        frames_of_trace: impl FnOnce(u64) -> Option<Vec<u64>>,
    ) -> Self {
        let may_have_entities = filter.entities().all(|(key, value)| {
            key_names(key).any(|name| may_have_entity(entity_hash(name, value)))
        });
        if !may_have_entities {
            return Self::At(Vec::new());
        }
        let of_trace = (!filter.trace_id.is_empty())
            .then(|| frames_of_trace(id_hash(&filter.trace_id)))
            .flatten();
        of_trace.map_or(Self::All, Self::At)
    }
}
