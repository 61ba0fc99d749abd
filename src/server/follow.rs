//! Follows the log: what is stored after a position, and then what will be.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::query_line::{QueryError, budget};
use super::shared::{Shared, Stored};
use crate::store::FramePosition;

/// Batches of the log that are read at once.
const BATCHES_PER_READ: usize = 256;

/// The text of a position, for clients.
pub(super) fn position_text(position: FramePosition) -> String {
    format!("{:x}-{:x}", position.segment, position.offset)
}

/// The position of a text; `None`: it is none.
pub(super) fn parse_position(text: &str) -> Option<FramePosition> {
    let (segment, offset) = text.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(FramePosition { segment: number(segment)?, offset: number(offset)? })
}

/// A function that selects and renders the items of a batch; `None`: no item matches.
pub(super) type Render<T> = Arc<dyn Fn(&[u8]) -> Option<T> + Send + Sync>;

/// Reads the batches after a position in order, each once. A reader that is slower than what is
/// stored reads on from the log, and misses nothing that is still stored.
pub(super) struct Follower<T> {
    shared: Arc<Shared>,
    render: Render<T>,
    batches: Receiver<Stored>,
    /// The position behind the last batch.
    at: FramePosition,
    /// Whether batches without stories aren't rendered: they are nearly all, and rendering delays
    /// ingest.
    stories_only: bool,
    /// Whether the next batches are in the log, and not in `batches`.
    is_behind: bool,
    /// Whether batches after the first position may have been retired before they were read.
    has_gap: bool,
}

/// The batches that were read.
pub(super) struct Followed<T> {
    /// Results of [`Render`] for those that match, each with the position behind it.
    pub(super) items: Vec<(T, FramePosition)>,
    /// The position behind all of them.
    pub(super) at: FramePosition,
}

impl<T: Send + 'static> Follower<T> {
    /// Follows the log from a position on, by default from its end. What is stored once this has
    /// returned is followed.
    pub(super) fn new(
        shared: Arc<Shared>,
        after: Option<FramePosition>,
        stories_only: bool,
        render: Render<T>,
    ) -> Self {
        // Before the position: what is stored in between is in both.
        let batches = shared.tail.subscribe();
        let (end, snapshot) = {
            let storage = shared.storage();
            (storage.end(), storage.snapshot())
        };
        // A position behind the end is of another store.
        let at = after.map_or(end, |after| after.min(end));
        let has_gap =
            after.is_some_and(|after| after != end && !snapshot.has_segment(after.segment));
        Self { shared, render, batches, at, stories_only, is_behind: at < end, has_gap }
    }

    /// The position behind the last batch.
    pub(super) fn at(&self) -> FramePosition {
        self.at
    }

    /// Whether items after the first position aren't stored any more.
    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// The next batches, of which none may match; `None`: the server stops.
    ///
    /// # Errors
    /// When the log can't be read.
    pub(super) async fn next(&mut self) -> Result<Option<Followed<T>>, QueryError> {
        let mut skipped = 0;
        loop {
            if self.is_behind {
                return self.read_on().await.map(Some);
            }
            match self.batches.recv().await {
                Ok(stored) if stored.end > self.at => {
                    self.at = stored.end;
                    if self.stories_only && !stored.has_stories && skipped < BATCHES_PER_READ {
                        skipped += 1;
                        continue;
                    }
                    let item = (self.render)(&stored.bytes);
                    let items = item.map(|item| (item, self.at)).into_iter().collect();
                    return Ok(Some(Followed { items, at: self.at }));
                }
                Ok(_) => {}
                // What it has missed is in the log.
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    /// Reads a part of the log.
    async fn read_on(&mut self) -> Result<Followed<T>, QueryError> {
        let place = self.shared.enter_line().await?;
        let snapshot = self.shared.storage().snapshot();
        let (render, from) = (Arc::clone(&self.render), self.at);
        let read = move || {
            let (mut items, mut at, mut is_end) = (Vec::new(), from, true);
            let (mut batches, mut bytes) = (0, 0);
            let max_bytes = budget(1).bytes;
            snapshot.oldest_first(from, |frame| {
                if batches >= BATCHES_PER_READ || bytes >= max_bytes {
                    is_end = false;
                    return ControlFlow::Break(());
                }
                batches += 1;
                bytes += frame.payload.len();
                at = frame.end();
                items.extend(render(frame.payload).map(|item| (item, at)));
                ControlFlow::Continue(())
            })?;
            Ok((Followed { items, at }, is_end))
        };
        let (read, is_end) = place.run(read).await?;
        (self.at, self.is_behind) = (read.at, !is_end);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_position() {
        let position = FramePosition { segment: 0x1f, offset: 96 };
        assert_eq!(position_text(position), "1f-60");
        assert_eq!(parse_position("1f-60"), Some(position));
        for wrong in ["", "1f", "1f-", "x-1", "1-60-2", "-1-2"] {
            assert_eq!(parse_position(wrong), None, "{wrong}");
        }
    }
}
