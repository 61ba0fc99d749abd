//! The bridge: one pinned thread that encodes the shards' output straight from their rings into
//! batches and sends them to the server. It keeps each batch until the server has acknowledged it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`BridgeConfig`] |
//! | `handle.rs` | [`BridgeHandle`]: start and join |
//! | `worker.rs` | the thread: when to read, send, sleep, reconnect and end |
//! | `batcher.rs` | rings → batches |
//! | `queue.rs` | unacknowledged batches, and the accounts of their events |
//! | `stats.rs` | [`BridgeStats`] |

mod batcher;
mod config;
mod handle;
mod queue;
mod stats;
mod worker;

pub use config::BridgeConfig;
pub use handle::BridgeHandle;
pub use stats::BridgeStats;
pub use worker::Bridge;
