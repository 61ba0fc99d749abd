//! The agents: what the server has received of each node, and the last status that its agent has
//! reported. Kept in memory, within bounds, and noted on disk once a minute and at the end.
//!
//! | file | purpose |
//! | --- | --- |
//! | `entry.rs` | one agent |
//! | `table.rs` | all of them: bounds, eviction, pages |
//! | `check.rs` | whether a reported status is taken |
//! | `file.rs` | the file in the data folder |

mod check;
mod entry;
mod file;
mod table;

pub(super) use check::status_refusal;
pub(super) use entry::StoredBatch;
pub(super) use file::{read, write};
pub(super) use table::{AgentPage, AgentTable};
