//! Segmented log on disk: checksummed frames in files of about one size, of which the oldest is
//! removed for the newest. The server's storage, the agent's spool and its recovery log write
//! batches into it, as they go over the wire.
//!
//! ```text
//! dir/  lock  segment-…1.tapio  segment-…2.tapio  segment-…3.tapio  quarantine/
//!             └ sealed ────────────────────────┘  └ appended to
//!
//! segment   head  frame  frame  …  footer        (no footer while it is appended to)
//! head      two copies of: magic, version, number, nonce, end of the segment before, CRC32C
//! frame     mark  payload  the same mark
//! mark      nonce, payload's bytes and CRC32C, time of receipt, type, CRC32C with the offset
//! footer    the owner's index of the frames, then a frame with counts and the owner's summary
//! ```
//!
//! | file | purpose |
//! | --- | --- |
//! | `format.rs` | layout of head and mark |
//! | `frame.rs` | frames and their positions |
//! | `files.rs` | [`Files`]: the operations on files, which tests can simulate |
//! | `config.rs` | configuration and counts |
//! | `index.rs` | [`SegmentIndex`]: what the owner keeps of its frames |
//! | `index_pages.rs` | [`IndexReader`]: parts of the owner's index of a sealed segment |
//! | `copy.rs` | copies of segments |
//! | `error.rs` | causes for which a segment can't be used |
//! | `scan.rs` | the frames of a segment without a footer |
//! | `footer.rs` | the footer of a sealed segment |
//! | `segment.rs` | the segment that is appended to |
//! | `recovery.rs` | opens the segments of an earlier process |
//! | `log.rs` | [`SegmentLog`]: append, roll, retire |
//! | `sync.rs` | [`PendingSync`]: what has been appended is written to the disk |
//! | `snapshot.rs` | [`LogSnapshot`]: reads while the log is appended to |
//!
//! Properties, each with its test:
//!
//! * A payload can't contain a frame: every mark has its segment's random nonce. Recovery goes from
//!   mark to mark and never searches inside a payload.
//! * A flipped bit costs at most the frame it is in; a truncation costs the frames behind it.
//! * A file is never overwritten: positions are valid once, and a reader can't see another frame in
//!   the place of the one it means.
//! * A file that can't be used is moved to `quarantine/` or left where it is, counted and logged;
//!   it doesn't stop the log.
//! * An append returns once the kernel has the bytes: appended frames survive a kill of the
//!   process. What a [`PendingSync`] covers survives a loss of power.

mod config;
mod copy;
mod damage;
mod error;
mod files;
mod footer;
mod format;
mod frame;
mod index;
mod index_pages;
mod inspect;
mod log;
mod recovery;
mod scan;
mod scrub;
mod segment;
mod snapshot;
mod sync;
#[cfg(test)]
mod testing;

pub use config::{Durability, SegmentLogConfig, SegmentLogStats};
pub use files::{DiskFile, Files, OsFiles, lock_soon, open_own};
pub use frame::{Frame, FramePosition};
pub use index::{SealedIndex, SegmentIndex};
pub use index_pages::IndexReader;
pub use inspect::{InspectedLog, InspectedSegment, inspect, lock_holder};
pub use log::{SegmentLog, is_disk_full};
pub use scrub::Scrubber;
pub use snapshot::{LogSnapshot, SegmentFrames};
pub use sync::PendingSync;
