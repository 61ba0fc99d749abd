//! The server's log, as receivers read it.

use std::io;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::store::FramePosition;
use tapio_core::event::Story;

/// A stored batch with stories.
#[derive(Clone, Debug)]
pub struct StoryBatch {
    /// Its bytes.
    pub bytes: Bytes,
    /// The position behind it.
    pub end: FramePosition,
}

/// Batches of a part of the log.
#[derive(Debug, Default)]
pub struct LogPart {
    /// The batches that have stories, in their order.
    pub batches: Vec<StoryBatch>,
    /// The position behind the part.
    pub end: FramePosition,
    /// Whether nothing was stored after it, when it was read.
    pub is_end: bool,
    /// Whether batches between the position and the first one are gone.
    pub has_gap: bool,
}

/// Marks of operators on a story.
#[derive(Clone, Debug, Default)]
pub struct StoryMarks {
    /// Its annotations as the API has them.
    pub annotations: Option<Value>,
    /// The silence that it falls under.
    pub silence: Option<Value>,
}

/// The server's log and what operators have noted.
pub trait StoryLog: Send + Sync + 'static {
    /// The position behind the last batch.
    fn end(&self) -> FramePosition;

    /// A position such that each batch before it that has stories was published to those who had
    /// subscribed.
    fn published(&self) -> FramePosition;

    /// Batches with stories, from now on.
    fn subscribe(&self) -> broadcast::Receiver<StoryBatch>;

    /// Reads at most so many batches from a position on.
    ///
    /// # Errors
    /// When a segment can't be read.
    fn read(&self, from: FramePosition, batches: usize) -> io::Result<LogPart>;

    /// The marks of a story.
    fn marks(&self, story: &Story) -> StoryMarks;
}
