//! Selects the items of a stream of what is stored.

use tonic::Status;

use super::storage::Filter;
use tapio_wire::{Batch, proto, story_from_proto};

/// Reduces a batch to the events at these positions, without stories.
fn keep_events(mut batch: proto::EventBatch, positions: &[usize]) -> proto::EventBatch {
    let mut position = 0;
    batch.events.retain(|_| {
        position += 1;
        positions.binary_search(&(position - 1)).is_ok()
    });
    batch.stories.clear();
    batch.count = batch.events.len() as u32;
    batch
}

/// Decodes a stored batch.
///
/// # Errors
/// When it isn't one.
pub(super) fn decode(bytes: &[u8]) -> Result<proto::EventBatch, Status> {
    <proto::EventBatch as prost::Message>::decode(bytes)
        .map_err(|e| Status::data_loss(format!("a stored batch can't be decoded: {e}")))
}

/// Selects the items of a tail.
pub(super) struct TailFilter {
    pub(super) events: bool,
    pub(super) stories: bool,
    pub(super) filter: Filter,
}

impl TailFilter {
    /// The matching part of a batch; `None` if nothing matches.
    pub(super) fn apply(&self, bytes: &[u8]) -> Option<proto::EventBatch> {
        let positions = if self.events {
            self.filter.positions(&Batch::parse(bytes).ok()?)
        } else {
            Vec::new()
        };
        let mut batch = decode(bytes).ok()?;
        let mut stories =
            if self.stories { std::mem::take(&mut batch.stories) } else { Vec::new() };
        let mut filter = self.filter.clone();
        if self.events {
            // With `--kind`, a tail has these events, and all stories.
            filter.kind.clear();
        }
        if filter != Filter::default() {
            stories.retain(|story| {
                let story = story_from_proto(story.clone());
                story.is_some_and(|story| filter.story_matches(&story, &batch.node))
            });
        }
        let mut batch = keep_events(batch, &positions);
        batch.count += stories.len() as u32;
        batch.stories = stories;
        (batch.count > 0).then_some(batch)
    }
}
