//! A shard: the owner of a part of the join keys, and the thread that drives it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `shard.rs` | [`Shard`](shard::Shard): processes events; no clock, socket or thread |
//! | `event_time_lane.rs` | final stories in event-time order, while events stream |
//! | `reorder.rs` | the events that wait for the watermark |
//! | `watermark.rs` | the watermark: clocks of the sources and slack |
//! | `catch_up.rs` | the watermark's hold after a restart |
//! | `worker.rs` | the thread: rings in, rings out |
//! | `failure_report.rs` | what failed, in the log |
//! | `shard_output.rs` | the rings that it writes |
//! | `worker_stats.rs` | the counters of a shard |

pub(crate) mod catch_up;
pub(crate) mod event_time_lane;
mod failure_report;
pub(crate) mod reorder;
#[expect(clippy::module_inception, reason = "the shard itself; its neighbours drive it")]
pub(crate) mod shard;
pub(crate) mod shard_output;
pub(crate) mod watermark;
pub(crate) mod worker;
pub(crate) mod worker_stats;
