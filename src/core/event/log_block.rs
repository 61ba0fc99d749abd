//! Log records of one resource that pass through the pipeline as they came: none concerns a rule,
//! and none has a secret. They are one record of a ring instead of one each.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::record::{ArchivedEvent, Event};

/// Log records of one resource and scope, encoded as OTLP has them (logs/v1).
#[derive(Clone, Copy, Debug, Archive, Serialize)]
pub struct LogBlock<'a> {
    /// The part that the records share: kind, source, time of collection, entity keys, and as
    /// attributes those of the resource. Its time is the latest of the records, its id is unset.
    pub shared: Event<'a>,
    /// Number of the records.
    pub records: u32,
    /// Attributes of the resource that were left out, here or by the sender.
    pub dropped_attributes: u32,
    /// The hash of the `Resource` message, from which the ids of the events are derived.
    pub resource_digest: [u8; 16],
    /// The `InstrumentationScope` message.
    #[rkyv(with = InlineAsBox)]
    pub scope: &'a [u8],
    /// The `LogRecord` messages, each as field 2 of a `ScopeLogs` message.
    #[rkyv(with = InlineAsBox)]
    pub encoded: &'a [u8],
}

impl LogBlock<'_> {
    /// Upper bound of the archive's size in bytes.
    #[must_use]
    pub fn archive_bound_bytes(&self) -> usize {
        std::mem::size_of::<ArchivedLogBlock<'_>>() - std::mem::size_of::<ArchivedEvent<'_>>()
            + self.shared.archive_bound_bytes()
            + self.scope.len()
            + self.encoded.len()
    }
}
