//! The server's storage: a segmented log of batches with the indexes to deduplicate and query them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `indexed_log.rs` | [`Storage`]: the log and its indexes |
//! | `batch_index.rs` | what is kept in memory: sequence numbers, stories, summaries of segments |
//! | `summary.rs` | what a segment has: its footer and its index |
//! | `filter.rs` | the filter over a segment's entities |
//! | `story_index.rs` | where the last revision of each story is |
//! | `query_filter.rs` | [`Filter`]: selects events and stories |
//! | `entity_key.rs` | the keys of entities in filters |
//! | `story_entity.rs` | the entities that a story is about |
//! | `page.rs` | [`Page`]: pages of an answer, their tokens, and the work for one |
//! | `event_query.rs` | events, newest first |
//! | `story_query.rs` | stories, last updated first |
//! | `incident_query.rs` | incidents: stories of one cause, last updated first |

mod batch_index;
mod entity_key;
mod event_query;
mod filter;
mod frames;
mod incident_query;
mod indexed_log;
mod located;
mod page;
mod query_filter;
mod segment_index;
mod story_entity;
mod story_index;
mod story_query;
mod summary;

pub use event_query::{EventSelection, MatchingBatch};
pub use indexed_log::{Storage, StorageStats};
pub use page::{Budget, Cursor, List, Page};
pub(crate) use query_filter::LIFECYCLE;
pub use query_filter::{Filter, InvalidParameter, StateFilter};
pub(crate) use story_index::RuleUse;
pub use story_query::StorySelection;
