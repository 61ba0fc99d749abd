//! Blocks of log records that pass as they came: in a batch, they are as OTLP has them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `encode.rs` | from a ring into a batch |
//! | `expand.rs` | [`expanded`]: a batch with an event for each record |

mod encode;
mod expand;

pub use expand::{expanded, log_id, log_ids};
