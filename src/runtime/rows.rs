//! The collectors that run, by their numbers, which are the order of their rows; and the ids of
//! their events.

use tapio_collectors::Row;
use tapio_core::event::stable_hash;

/// Bit n: the collector with this number reads some events again after a restart.
pub(super) fn reads_again(rows: &[Row]) -> u32 {
    let rows = rows.iter().zip(0u32..).filter(|(row, _)| row.reads_again);
    rows.fold(0, |bits, (_, n)| bits | 1 << n)
}

/// Bit n: the senders of the collector with this number choose the times of its events.
pub(super) fn given_times(rows: &[Row]) -> u32 {
    let rows = rows.iter().zip(0u32..).filter(|(row, _)| row.has_given_times);
    rows.fold(0, |bits, (_, n)| bits | 1 << n)
}

/// The names under which events are counted: the collectors', and last that of the events which
/// earlier processes left in the spool.
pub(super) fn accounts(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.name).chain(["spool"]).map(str::to_owned).collect()
}

/// Identifies this start of this node's agent in event ids.
pub(super) fn origin(node: &str, epoch: u64) -> u64 {
    let hash = stable_hash(&[b"origin", node.as_bytes(), &epoch.to_le_bytes()]);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}
