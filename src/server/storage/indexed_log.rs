//! The log of batches and its indexes.

use std::io;

use super::recent_ids::{RecentIds, resendable_ids};
use super::story_index::{StoryFilter, StoryIndex};
use crate::server::config::ServerConfig;
use crate::store::{LogSnapshot, SegmentLog, SegmentLogConfig};
use tapio_core::event::LinkedStory;
use tapio_wire::{Batch, Item, SequenceSet, SequenceTracker, mark_duplicates};

/// Contents of the storage, and what recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StorageStats {
    /// Segments.
    pub segments: u64,
    /// Bytes in them.
    pub stored_bytes: u64,
    /// Batches in them.
    pub batches: u64,
    /// Segments retired to make room.
    pub segments_retired: u64,
    /// Batches found at start.
    pub recovered_batches: u64,
    /// Damaged frames skipped at start.
    pub corrupt_frames: u64,
    /// Incomplete frames cut off at start.
    pub torn_tails: u64,
}

/// A batch as it was stored, where that differs from the batch as it came.
pub struct DeduplicatedBatch {
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// Events that were marked as duplicates.
    pub duplicates: u32,
}

/// Stores batches as they came and indexes them.
pub struct Storage {
    log: SegmentLog,
    index: Index,
}

/// Everything that is rebuilt from the log at start.
struct Index {
    sequences: SequenceTracker,
    recent_ids: RecentIds,
    stories: StoryIndex,
}

impl Storage {
    /// Opens or creates the storage and rebuilds the indexes.
    ///
    /// # Errors
    /// When the folder can't be used, or another process uses it.
    pub fn open(config: &ServerConfig) -> io::Result<Self> {
        let log_config = SegmentLogConfig {
            dir: config.data_dir.clone(),
            segment_bytes: config.segment_bytes,
            retention_bytes: config.retention_bytes,
        };
        let mut index = Index {
            sequences: SequenceTracker::default(),
            recent_ids: RecentIds::default(),
            stories: StoryIndex::new(config.stories_kept),
        };
        let log = SegmentLog::open(log_config, |frame| index.recover(frame.payload));
        Ok(Self { log: log.map_err(|e| in_data_dir(&e))?, index })
    }

    /// Appends a batch. Events that an earlier process of its node has sent already are marked as
    /// duplicates; then the batch as it was stored is returned.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub fn append(
        &mut self,
        batch: &Batch<'_>,
        bytes: &[u8],
        receipt_ns: u64,
    ) -> io::Result<Option<DeduplicatedBatch>> {
        let ids = resendable_ids(batch);
        let recent_ids = &mut self.index.recent_ids;
        recent_ids.begin_batch(&batch.head);
        let mut changed = None;
        if recent_ids.any_resent(&batch.head, &ids) {
            let mut bytes = bytes.to_vec();
            let duplicates = mark_duplicates(&mut bytes, |e| recent_ids.is_resent(batch, e));
            changed = Some(DeduplicatedBatch { bytes, duplicates });
        }
        let stored = changed.as_ref().map_or(bytes, |batch| &batch.bytes);
        self.log.append(stored, receipt_ns).map_err(|e| in_data_dir(&e))?;
        recent_ids.add(&batch.head, &ids);
        Ok(changed)
    }

    /// The stored and refused items of one agent process.
    pub fn sequences(&mut self, node: &str, epoch: u64) -> &mut SequenceSet {
        self.index.sequences.sender(node, epoch)
    }

    /// Adds a stored story to the index.
    pub fn index_story(&mut self, node: &str, epoch: u64, story: &[u8]) {
        self.index.stories.add(node, epoch, story);
    }

    /// The last revisions of matching stories with their links, the last updated first.
    #[must_use]
    pub fn stories(&self, limit: usize, filter: &StoryFilter) -> Vec<LinkedStory> {
        self.index.stories.list(limit, filter)
    }

    /// The last revision of a story, with its links.
    #[must_use]
    pub fn story(&self, id: [u8; 16]) -> Option<LinkedStory> {
        self.index.stories.get(id)
    }

    /// Stories in the index.
    #[must_use]
    pub fn stories_kept(&self) -> usize {
        self.index.stories.len()
    }

    /// A view of the stored batches, which can be read without access to the storage.
    #[must_use]
    pub fn snapshot(&self) -> LogSnapshot {
        self.log.snapshot()
    }

    /// The current counts.
    #[must_use]
    pub fn stats(&self) -> StorageStats {
        let log = self.log.stats();
        StorageStats {
            segments: log.segments,
            stored_bytes: log.bytes,
            batches: log.frames,
            segments_retired: log.retired_segments,
            recovered_batches: log.recovered_frames,
            corrupt_frames: log.corrupt_frames,
            torn_tails: log.torn_tails,
        }
    }
}

fn in_data_dir(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("server.data_dir: {error}"))
}

impl Index {
    /// Adds a batch found at start.
    fn recover(&mut self, bytes: &[u8]) {
        let mut stories = Vec::new();
        let parsed = Batch::parse_with(bytes, |item| {
            if let Item::Story(story) = item {
                stories.push(story);
            }
        });
        // Only valid batches are stored, and the checksum has shown that this one is unchanged.
        let Ok(batch) = parsed else {
            return;
        };
        let head = batch.head;
        self.recent_ids.begin_batch(&head);
        self.recent_ids.add(&head, &resendable_ids(&batch));
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        self.sequences.sender(head.node, head.epoch).insert(head.first_sequence, end);
        for story in stories {
            self.stories.add(head.node, head.epoch, story);
        }
    }
}
