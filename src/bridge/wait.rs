//! The waits of the bridge's thread.

use std::time::Duration;

/// The events that end a wait, besides changes of the connection.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    pub(super) timeout: Duration,
    /// Records in a ring; the bell is armed for them.
    pub(super) for_rings: bool,
    /// An ack: batches or records wait for room.
    pub(super) for_acks: bool,
}
