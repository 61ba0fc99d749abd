//! The server's storage: a segmented log of batches with the indexes to deduplicate and query them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `indexed_log.rs` | [`Storage`]: the log and its indexes |
//! | `story_index.rs` | the last revision of each story |
//! | `event_query.rs` | [`newest_events`]: events, newest first |
//! | `recent_ids.rs` | recognises events that a restarted agent sends again |

mod event_query;
mod indexed_log;
mod recent_ids;
mod story_index;

pub use event_query::{EventFilter, MatchingBatch, newest_events};
pub use indexed_log::{Storage, StorageStats};
pub use story_index::StoryFilter;
