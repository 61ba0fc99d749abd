//! The bridge: one pinned thread that encodes the shards' output straight from their rings into
//! batches and sends them to the server. It keeps each batch until the server has acknowledged it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`BridgeConfig`] |
//! | `parts.rs` | [`Bridge`]: the parts that it is started with |
//! | `handle.rs` | [`BridgeHandle`]: start and join |
//! | `worker.rs` | the thread: when to read, send, sleep and end |
//! | `wait.rs` | its waits |
//! | `batcher.rs` | rings → batches |
//! | `outbox.rs` | [`Outbox`]: finished batches → spool and queues, in two lanes |
//! | `failure_log.rs` | what is said of a disk that refuses batches |
//! | `room.rs` | what is dropped when room is needed |
//! | `budget.rs` | the lanes' room on disk |
//! | `lanes.rs` | which lanes there are |
//! | `lane.rs` | a lane: batches before, in and behind its spool |
//! | `spool.rs` | batches on disk |
//! | `spool_age.rs` | the age of its oldest batch |
//! | `spool_index.rs` | the events in each of its segments |
//! | `spool_ids.rs` | the ids of the latest events in it |
//! | `checkpoint.rs` | the file that says how far the server has answered, and what waits |
//! | `feed.rs` | [`SpoolFeed`]: the spool as exporters read it |
//! | `exports.rs` | what is kept for exporters, and what they have answered |
//! | `queue.rs` | unacknowledged batches in memory |
//! | `batch.rs` | a batch on its way |
//! | `split.rs` | divides a batch that the server refuses |
//! | `refused.rs` | how refusals were handled |
//! | `quarantine.rs` | the file of refused items |
//! | `link.rs` | the connection to one of the servers |
//! | `report.rs` | [`LatestReport`]: the agent's reports of its own state |
//! | `circuit.rs` | the circuit breaker of a server |
//! | `trace_context.rs` | W3C trace context of a stream |
//! | `account.rs` | the accounts of the events in batches |
//! | `flight_recorder.rs` | [`FlightRecorder`]: the batches of the last minutes |
//! | `stats.rs` | [`BridgeStats`] |

mod account;
mod batch;
mod batcher;
mod budget;
mod checkpoint;
mod circuit;
mod config;
mod exports;
mod failure_log;
mod feed;
mod flight_recorder;
mod handle;
mod lane;
mod lanes;
mod link;
mod outbox;
mod parts;
mod quarantine;
mod queue;
mod refused;
mod report;
mod room;
mod split;
mod spool;
mod spool_age;
mod spool_ids;
mod spool_index;
mod stats;
mod trace_context;
mod wait;
mod worker;

pub use circuit::CircuitState;
pub use config::{BridgeConfig, Compression};
pub use feed::{ExportCursor, LaneCursor, SpoolFeed, SpoolView};
pub use flight_recorder::{FlightRecorder, RecorderLimits};
pub use handle::BridgeHandle;
pub(crate) use handle::THREAD;
pub use lanes::{IMPORTANT, LANE_NAMES, LANES, ORDINARY};
pub use outbox::{Outbox, OutboxConfig, SpoolConfig, SpoolSync};
pub use parts::{Bridge, BridgeSpool};
pub use quarantine::QUARANTINE_FILE;
pub use queue::Acknowledged;
pub use report::LatestReport;
pub use stats::BridgeStats;
