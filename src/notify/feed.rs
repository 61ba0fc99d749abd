//! The revisions of stories from a position on: from the log where the receiver is behind, then as
//! they are stored.

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::log::{LogPart, StoryBatch, StoryLog};
use crate::store::FramePosition;
use tapio_core::event::Story;
use tapio_wire::{Batch, Item, proto, story_from_proto};

/// Batches that are read from the log at once: other receivers wait meanwhile.
const BATCHES_PER_READ: usize = 32;

/// A revision of a story.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    /// The node that sent it, and the start of its agent.
    pub(super) node: String,
    pub(super) epoch: u64,
    pub(super) story: Story,
}

/// Revisions that were read at once.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    pub(super) revisions: Vec<Revision>,
    /// The position behind them.
    pub(super) end: FramePosition,
    /// Whether stories before them are gone.
    pub(super) has_gap: bool,
}

/// Reads the stories for one receiver.
pub(super) struct Feed {
    log: Arc<dyn StoryLog>,
    batches: Receiver<StoryBatch>,
    at: FramePosition,
    is_behind: bool,
}

impl Feed {
    /// Reads from a position on; from now on without one. A position behind the log's end is of
    /// another log.
    pub(super) fn new(log: Arc<dyn StoryLog>, from: Option<FramePosition>) -> Self {
        let batches = log.subscribe();
        let end = log.end();
        let at = from.map_or(end, |from| from.min(end));
        Self { log, batches, at, is_behind: true }
    }

    /// The position behind the revisions that were read.
    pub(super) fn position(&self) -> FramePosition {
        self.at
    }

    /// The next revisions. Waits until there are some; may be dropped while it waits.
    ///
    /// # Errors
    /// When the log can't be read, or the server stops.
    pub(super) async fn next(&mut self) -> Result<Revisions, String> {
        loop {
            if self.is_behind {
                let LogPart { batches, end, is_end, has_gap } =
                    self.log.read(self.at, BATCHES_PER_READ).map_err(|e| e.to_string())?;
                self.is_behind = !is_end;
                self.at = self.at.max(end);
                if !batches.is_empty() || has_gap {
                    let revisions = batches.iter().flat_map(|batch| decode(&batch.bytes));
                    let revisions = revisions.collect();
                    return Ok(Revisions { revisions, end: self.at, has_gap });
                }
                tokio::task::yield_now().await;
                continue;
            }
            match self.batches.recv().await {
                // Those read from the log come by here as well.
                Ok(batch) if batch.end <= self.at => {}
                Ok(batch) => {
                    self.at = batch.end;
                    let revisions = decode(&batch.bytes);
                    return Ok(Revisions { revisions, end: self.at, has_gap: false });
                }
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return Err("the server stops".into()),
            }
        }
    }

    /// Moves the position past batches without stories, where nothing waits to be read: the next
    /// start needn't read them.
    pub(super) fn advance(&mut self) {
        let published = self.log.published();
        if self.is_behind || published <= self.at {
            return;
        }
        match self.batches.try_recv() {
            Err(TryRecvError::Empty) => self.at = published,
            // What was taken out is in the log.
            _ => self.is_behind = true,
        }
    }
}

/// The stories in a batch. What can't be decoded was refused before it was stored.
fn decode(bytes: &[u8]) -> Vec<Revision> {
    let Ok(batch) = Batch::parse(bytes) else { return Vec::new() };
    let story = |item| match item {
        Item::Story(bytes) => proto::Story::decode(bytes).ok().and_then(story_from_proto),
        Item::Event(_) | Item::LogBlock(_) => None,
    };
    let of_node =
        |story| Revision { node: batch.head.node.to_owned(), epoch: batch.head.epoch, story };
    batch.items().filter_map(story).map(of_node).collect()
}
