//! The bridge: one pinned thread that encodes the shards' output straight from their rings into
//! batches and sends them to the server. It keeps each batch until the server has acknowledged it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`BridgeConfig`] |
//! | `handle.rs` | [`BridgeHandle`]: start and join |
//! | `worker.rs` | the thread: when to read, send, sleep, reconnect and end |
//! | `batcher.rs` | rings → batches |
//! | `outbox.rs` | finished batches → spool and queue |
//! | `spool.rs` | batches on disk |
//! | `queue.rs` | unacknowledged batches in memory |
//! | `batch.rs` | a batch on its way |
//! | `account.rs` | the accounts of the events in batches |
//! | `stats.rs` | [`BridgeStats`] |

mod account;
mod batch;
mod batcher;
mod config;
mod handle;
mod outbox;
mod queue;
mod spool;
mod stats;
mod worker;

pub use config::BridgeConfig;
pub use handle::BridgeHandle;
pub use spool::SpoolConfig;
pub use stats::BridgeStats;
pub use worker::{Bridge, BridgeSpool};
