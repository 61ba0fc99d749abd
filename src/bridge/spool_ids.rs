//! The ids of the latest events in a spool: those that their sources may deliver again after a
//! restart.

use std::collections::HashSet;

use crate::store::LogSnapshot;
use tapio_core::event::EventId;
use tapio_wire::{Batch, Item, expanded};

/// Adds the ids in the segments from `tail` on, the newest first, until there are about `max_ids`.
/// A source's saved position is at most a few batches behind, but many processes may have been
/// killed since it was saved.
pub(super) fn add_latest(
    log: &LogSnapshot,
    tail: u64,
    ids: &mut HashSet<EventId, ahash::RandomState>,
    max_ids: usize,
) {
    for segment in log.segments().rev().take_while(|segment| *segment >= tail) {
        let Some(frames) = log.frames(segment) else { continue };
        for (offset, _) in frames.offsets().rev() {
            if ids.len() >= max_ids {
                return;
            }
            if let Some(payload) = frames.payload(offset) {
                add_batch(&payload, ids);
            }
        }
    }
}

fn add_batch(payload: &[u8], ids: &mut HashSet<EventId, ahash::RandomState>) {
    let Ok(batch) = Batch::parse(payload) else { return };
    if let Ok(Some(events)) = expanded(&batch) {
        return add_batch(&events, ids);
    }
    ids.extend(batch.items().filter_map(|item| match item {
        Item::Event(event) => event.event_id(),
        Item::Story(_) | Item::LogBlock(_) => None,
    }));
}
