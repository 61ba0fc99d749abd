//! A shard: a part of the keys, and the thread that drives it.

pub(crate) mod event_time_lane;
#[expect(clippy::module_inception, reason = "the shard itself; its neighbours drive it")]
pub(crate) mod shard;
pub(crate) mod watermark;
pub(crate) mod worker;
