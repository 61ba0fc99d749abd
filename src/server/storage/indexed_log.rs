//! The log of batches and its indexes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::batch_index::BatchIndex;
use super::event_query::EventSelection;
use super::page::Cursor;
use super::query_filter::Filter;
use super::story_index::RuleUse;
use super::story_query::StorySelection;
use crate::server::config::ServerConfig;
use crate::store::{
    Files, FramePosition, LogSnapshot, PendingSync, SegmentLog, SegmentLogConfig, SegmentLogStats,
};
use tapio_core::event::TraceId;
use tapio_wire::SequenceSet;

/// With an age as the retention, the segment that is appended to is ended after this part of it: a
/// batch is retired at most this part later than its age requires.
const SEGMENTS_PER_AGE: u64 = 8;

/// Contents of the storage, and what recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StorageStats {
    /// Segments.
    pub segments: u64,
    /// Bytes in them.
    pub stored_bytes: u64,
    /// Batches in them.
    pub batches: u64,
    /// Segments retired to make room, or because of their age.
    pub segments_retired: u64,
    /// Batches found at start.
    pub recovered_batches: u64,
    /// Batches that are damaged or missing: found at start, by queries and by the scrubber.
    pub corrupt_frames: u64,
    /// Bytes between damaged marks, skipped at start.
    pub lost_bytes: u64,
    /// Segments whose last frame was incomplete.
    pub torn_tails: u64,
    /// Bytes of incomplete frames, cut off at start.
    pub torn_bytes: u64,
    /// Files that aren't intact segments, moved to `quarantine/` at start.
    pub segments_quarantined: u64,
    /// Segments that couldn't be read.
    pub segments_unreadable: u64,
    /// Segments that somebody deleted.
    pub segments_deleted: u64,
    /// Batches that the disk failed to write; none of them was acknowledged.
    pub batches_unwritten: u64,
}

/// Stores batches as they came and indexes them.
pub struct Storage {
    log: SegmentLog<BatchIndex>,
    /// 0 for no limit.
    retention_age_ns: u64,
}

impl Storage {
    /// Opens or creates the storage, whose contents are known by the footers of its segments.
    ///
    /// # Errors
    /// When the folder can't be used, or another process uses it.
    pub fn open(config: &ServerConfig, files: Arc<dyn Files>) -> io::Result<Self> {
        let log_config = SegmentLogConfig {
            dir: config.data_dir.clone(),
            segment_bytes: config.segment_bytes,
            retention_bytes: config.retention_bytes,
            retires_when_full: true,
            durability: config.durability,
            acknowledges_recovered: true,
        };
        let index = BatchIndex::new(config.stories_kept);
        let log = SegmentLog::open(log_config, files, index).map_err(|e| in_data_dir(&e))?;
        let retention_age_ns = as_ns(config.retention_age);
        Ok(Self { log, retention_age_ns })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// When the disk refuses it; nothing has changed then.
    pub fn append(&mut self, bytes: &[u8], receipt_ns: u64) -> io::Result<()> {
        self.log.append(bytes, receipt_ns).map(drop).map_err(|e| in_data_dir(&e))
    }

    /// Makes sure that what is stored may be acknowledged: a start on a failing disk leaves that to
    /// be done.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn sync_recovered(&mut self) -> io::Result<()> {
        self.log.sync_recovered().map_err(|e| in_data_dir(&e))
    }

    /// The stored items of one agent process.
    pub fn sequences(&mut self, node: &str, epoch: u64) -> &mut SequenceSet {
        self.log.index_mut().sequences.sender(node, epoch)
    }

    /// The epoch of the process that sent the last revision of a node's story; `None` for a story
    /// that isn't known.
    #[must_use]
    pub fn story_epoch(&self, id: TraceId, node: &str) -> Option<u64> {
        self.log.index().stories.epoch(id, node)
    }

    /// The position behind the last batch.
    #[must_use]
    pub fn end(&self) -> FramePosition {
        self.log.end()
    }

    /// Ends the segment that is appended to.
    pub fn seal(&mut self) {
        self.log.seal();
    }

    /// Notes what has to be written to the disk; `None` if nothing has.
    pub fn begin_sync(&mut self) -> Option<PendingSync> {
        self.log.begin_sync()
    }

    /// Takes the result of a sync. After an error the batches that weren't synced aren't stored any
    /// more, and are new when they are sent again.
    ///
    /// # Errors
    /// The error of the disk.
    pub fn finish_sync(&mut self, sync: &PendingSync, result: io::Result<()>) -> io::Result<()> {
        self.log.finish_sync(sync, result).map_err(|(_, error)| in_data_dir(&error))
    }

    /// Applies the limits of a new configuration to what is stored.
    pub fn set_limits(&mut self, config: &ServerConfig) {
        self.retention_age_ns = as_ns(config.retention_age);
        self.log.set_retention_bytes(config.retention_bytes);
        self.log.index_mut().stories.set_max(config.stories_kept);
    }

    /// The age at which segments are retired, in nanoseconds; 0 for no limit.
    #[must_use]
    pub fn retention_age_ns(&self) -> u64 {
        self.retention_age_ns
    }

    /// Retires the segments whose batches were all received longer than the retention's age ago.
    /// The segment that is appended to is ended early, so that few of its batches outlast the age
    /// because of later ones. To be called about once a second; `now_ns` is the wall clock.
    pub fn retire_expired(&mut self, now_ns: u64) {
        if self.retention_age_ns == 0 {
            return;
        }
        let ended_ns = now_ns.saturating_sub(self.retention_age_ns / SEGMENTS_PER_AGE);
        if self.log.appended_since_ns().is_some_and(|since_ns| since_ns < ended_ns) {
            self.log.seal();
        }
        self.log.retire_before(now_ns.saturating_sub(self.retention_age_ns));
    }

    /// Notices deleted segments ([`SegmentLog::check`]).
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn check(&mut self) -> io::Result<()> {
        self.log.check().map_err(|e| in_data_dir(&e))
    }

    /// A view of the batches for the scrubber.
    #[must_use]
    pub fn snapshot(&self) -> LogSnapshot {
        self.log.snapshot()
    }

    /// Selects the last revisions of matching stories, the last updated first.
    #[must_use]
    pub fn select_stories(&self, filter: Filter, before: Cursor) -> StorySelection {
        let stories = &self.log.index().stories;
        StorySelection {
            filter,
            before,
            log: self.log.snapshot(),
            stories: stories.newest_first(),
            evicted_ns: stories.evicted_ns(),
        }
    }

    /// Selects matching events.
    #[must_use]
    pub fn select_events(&self, filter: Filter, before: Cursor) -> EventSelection {
        let log = self.log.snapshot();
        let mut segments = self.log.index().select(&filter);
        segments.reverse();
        EventSelection { filter, before, log, segments }
    }

    /// The rules of the stories in the index, by name.
    pub(crate) fn rules_of_stories(&self) -> BTreeMap<String, RuleUse> {
        self.log.index().stories.rules()
    }

    /// Stories in the index.
    #[must_use]
    pub fn stories_kept(&self) -> usize {
        self.log.index().stories.len()
    }

    /// The current counts.
    #[must_use]
    pub fn stats(&self) -> StorageStats {
        let SegmentLogStats {
            segments,
            bytes,
            frames,
            retired_segments,
            recovered_frames,
            corrupt_frames,
            lost_bytes,
            torn_tails,
            torn_bytes,
            quarantined_segments,
            unreadable_segments,
            deleted_segments,
            unwritten_frames,
        } = self.log.stats();
        StorageStats {
            segments,
            stored_bytes: bytes,
            batches: frames,
            segments_retired: retired_segments,
            recovered_batches: recovered_frames,
            corrupt_frames,
            lost_bytes,
            torn_tails,
            torn_bytes,
            segments_quarantined: quarantined_segments,
            segments_unreadable: unreadable_segments,
            segments_deleted: deleted_segments,
            batches_unwritten: unwritten_frames,
        }
    }
}

fn as_ns(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn in_data_dir(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("server.data_dir: {error}"))
}
