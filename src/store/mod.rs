//! Segmented log on disk: checksummed frames in files of a fixed size, of which the oldest makes
//! room for the newest.
//!
//! The log stores opaque bytes with the time of their receipt. The server's storage and the agent's
//! recovery log write batches into it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `frame.rs` | layout of a frame; the intact frames of a segment |
//! | `segment.rs` | segment files: names, and the segment that is written to |
//! | `log.rs` | [`SegmentLog`]: open and recover, append, roll, retire |
//! | `snapshot.rs` | [`LogSnapshot`]: reads from both ends while the log is written to |
//!
//! An append returns once the kernel has the bytes, so appended frames survive a kill of the
//! process, but not a loss of power.

mod frame;
mod log;
mod segment;
mod snapshot;

pub use frame::Frame;
pub use log::{SegmentLog, SegmentLogConfig, SegmentLogStats};
pub use snapshot::LogSnapshot;
