//! The lanes: which there are, and which a record takes.

use tapio_core::event::Severity;
use tapio_core::ring::{Record, RecordType};

/// Lanes, the most important first.
pub const LANES: usize = 2;
/// Their names, which are those of their folders in the spool.
pub const LANE_NAMES: [&str; LANES] = ["important", "ordinary"];
/// The lane of stories, and of events from severity `error` up.
pub const IMPORTANT: usize = 0;
/// The lane of other events.
pub const ORDINARY: usize = 1;

/// The lane of a record.
pub(super) fn lane_of(record: &Record<'_>) -> usize {
    let is_important = match record.event() {
        Some(event) => event.severity.0 >= Severity::ERROR.0,
        None => record.header().record == RecordType::Story,
    };
    if is_important { IMPORTANT } else { ORDINARY }
}

/// The epoch of a lane's batches: each lane counts its items by itself, as a sender of its own.
pub(super) fn epoch_of(process_epoch: u64, lane: usize) -> u64 {
    process_epoch + lane as u64
}
