//! The rings that a shard writes.

use std::sync::Arc;

use crate::evidence::EvidenceWriter;
use tapio_core::ring::{Bell, RecordWriter};

/// The rings that a shard writes.
pub(crate) struct ShardOutput {
    /// To the shards with higher numbers, in order, with their bells.
    pub(crate) shards: Vec<(RecordWriter, Arc<Bell>)>,
    /// To the bridge, with its bell.
    pub(crate) bridge: (RecordWriter, Arc<Bell>),
    /// To the assessor.
    pub(crate) assessor: EvidenceWriter,
    /// To the recorder of relevant events, with its bell.
    pub(crate) recorder: Option<(RecordWriter, Arc<Bell>)>,
}

impl ShardOutput {
    /// Closes the rings and rings their bells.
    pub(crate) fn close(self) {
        let Self { shards, bridge, assessor, recorder } = self;
        assessor.close();
        for (writer, bell) in shards.into_iter().chain([bridge]).chain(recorder) {
            // The bell rings last: a consumer that wakes earlier would not see that the ring is
            // closed, and sleep again.
            drop(writer);
            bell.ring();
        }
    }
}
