//! The log, as receivers of notifications read it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::shared::Shared;
use crate::notify::{LogPart, StoryBatch, StoryLog, StoryMarks};
use crate::store::FramePosition;
use tapio_core::clock;
use tapio_core::event::Story;
use tapio_wire::{Batch, annotations_json, silence_json};

/// The state of the server, for receivers.
pub(super) struct SharedLog(pub(super) Arc<Shared>);

impl StoryLog for SharedLog {
    fn end(&self) -> FramePosition {
        self.0.storage().end()
    }

    fn published(&self) -> FramePosition {
        self.0.published()
    }

    fn subscribe(&self) -> broadcast::Receiver<StoryBatch> {
        self.0.stories.subscribe()
    }

    fn read(&self, from: FramePosition, batches: usize) -> io::Result<LogPart> {
        let snapshot = self.0.storage().snapshot();
        let first = snapshot.segments().next();
        // Whether all of a retired segment was read isn't known any more: rather one gap too many.
        let has_gap = from != FramePosition::default()
            && !snapshot.has_segment(from.segment)
            && first.is_some_and(|first| first > from.segment);
        let mut part = LogPart { end: from, is_end: true, has_gap, ..LogPart::default() };
        let mut read = 0;
        snapshot.oldest_first(from, |frame| {
            if read >= batches {
                part.is_end = false;
                return ControlFlow::Break(());
            }
            read += 1;
            part.end = frame.end();
            if Batch::parse(frame.payload).is_ok_and(|batch| batch.stories > 0) {
                let bytes = Bytes::copy_from_slice(frame.payload);
                part.batches.push(StoryBatch { bytes, end: part.end });
            }
            ControlFlow::Continue(())
        })?;
        Ok(part)
    }

    fn marks(&self, story: &Story) -> StoryMarks {
        let annotations = self.0.annotations();
        let marks = annotations.marks();
        StoryMarks {
            annotations: marks.of_story(std::iter::once(story.id)).as_ref().map(annotations_json),
            silence: marks.silence_of(story, clock::wall_ns()).as_ref().map(silence_json),
        }
    }
}
