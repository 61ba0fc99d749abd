//! Configuration of a log, and what it counts.

use std::path::PathBuf;

/// Where a log is and how large it may become.
#[derive(Clone, Debug)]
pub struct SegmentLogConfig {
    /// The folder; created if missing.
    pub dir: PathBuf,
    /// The size of a segment. A larger frame gets a segment of its own.
    pub segment_bytes: u64,
    /// About the size of all segments.
    pub retention_bytes: u64,
    /// Whether the oldest segments make room for a frame on a full disk.
    pub retires_when_full: bool,
    /// The faults that appended frames survive.
    pub durability: Durability,
    /// Whether the owner acknowledges frames of earlier processes: with [`Durability::Power`] they
    /// are synced at start then.
    pub acknowledges_recovered: bool,
}

/// The faults that appended frames survive.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A kill of the process: the kernel has the bytes.
    Process,
    /// A loss of power: the owner syncs the log before it acknowledges a frame.
    Power,
}

/// Contents of a log, and what recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentLogStats {
    /// Segments.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames in them.
    pub frames: u64,
    /// Segments removed because of the log's size, their age, or a full disk.
    pub retired_segments: u64,
    /// Intact frames found by recovery.
    pub recovered_frames: u64,
    /// Frames that are damaged or missing: found by recovery, by reads and by a
    /// [`super::Scrubber`].
    pub corrupt_frames: u64,
    /// Bytes that recovery skipped between damaged marks.
    pub lost_bytes: u64,
    /// Segments whose last frame was incomplete.
    pub torn_tails: u64,
    /// Bytes of incomplete frames that recovery cut off.
    pub torn_bytes: u64,
    /// Files that aren't intact segments, moved to `quarantine/`.
    pub quarantined_segments: u64,
    /// Segments that couldn't be read.
    pub unreadable_segments: u64,
    /// Segments that somebody deleted.
    pub deleted_segments: u64,
    /// Appended frames that the disk failed to write.
    pub unwritten_frames: u64,
}
