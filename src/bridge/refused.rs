//! The result of a server's refusals.

/// How refused batches were handled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Batches that were divided: their pieces need a new stream.
    pub(super) splits: u64,
    /// Events that were dropped.
    pub(super) events: u64,
    /// Items that are in quarantine.
    pub(super) quarantined: u64,
    /// The server's cause for the first of them.
    pub(super) cause: Option<String>,
}
