//! Commands that list and follow the stories and events of a server.
//!
//! | file | purpose |
//! | --- | --- |
//! | `filter.rs` | the filters, and the range of a list |
//! | `time.rs` | times as people write them |
//! | `pages.rs` | lists in pages, oldest first or newest first |
//! | `stream.rs` | follows what is stored, over lost connections |
//! | `growing_table.rs` | the table of a list that may go on |
//! | `events.rs` | `tapio events` |
//! | `stories.rs` | `tapio stories` |
//! | `state.rs` | the state of a story |
//! | `view.rs` | one story |
//! | `annotated.rs` | a story with what operators noted about it |
//! | `annotate.rs` | `tapio annotate` |
//! | `annotations.rs` | `tapio annotations` |
//! | `silence.rs` | `tapio silence` |
//! | `explain.rs` | `tapio explain` |
//! | `explain_markdown.rs` | its Markdown |
//! | `terms.rs` | the terms of a candidate's score |
//! | `tail.rs` | `tapio tail` |

pub(super) mod annotate;
pub(super) mod annotated;
pub(super) mod annotations;
pub(super) mod events;
pub(super) mod explain;
mod explain_markdown;
mod filter;
mod growing_table;
mod pages;
pub(super) mod silence;
pub(super) mod state;
pub(super) mod stories;
mod stream;
pub(super) mod tail;
mod terms;
mod time;
pub(super) mod view;
