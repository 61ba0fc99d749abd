//! The server's storage: a segmented log of batches with the indexes to deduplicate and query them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `indexed_log.rs` | [`Storage`]: the log and its indexes |
//! | `batch_index.rs` | what is kept in memory: sequence numbers, stories, summaries of segments |
//! | `summary.rs` | what a segment has: its footer and its index |
//! | `filter.rs` | the filter over a segment's entities |
//! | `story_index.rs` | where the last revision of each story is |
//! | `event_filter.rs` | selects events |
//! | `event_query.rs` | events, newest first |

mod batch_index;
mod event_filter;
mod event_query;
mod filter;
mod indexed_log;
mod story_index;
mod summary;

pub use event_filter::EventFilter;
pub use event_query::{EventSelection, MatchingBatch};
pub use indexed_log::{Storage, StorageStats};
pub use story_index::{StoryFilter, StorySelection};
