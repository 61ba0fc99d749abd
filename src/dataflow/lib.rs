//! The correlator: joins events into stories, and ranks their root causes and impact.
//!
//! | folder or file | purpose |
//! | --- | --- |
//! | `rules/` | rules: from YAML to plans by kind; routing of events to shards |
//! | `services/` | what services usually do, and disturbances of it |
//! | `evidence/` | facts of all shards; root causes and impact from them |
//! | `story/` | open stories, their members and texts; lifecycles of entities |
//! | `matcher/` | lanes: rules evaluated on events; partial matches and windows by key |
//! | `shard/` | [`Shard`]: owner of a part of the keys; lanes, watermark, worker thread |
//! | `driver/` | [`Topology`]: threads and rings; replay of files; rules' own tests |
//! | `lru.rs`, `key_table.rs`, `timer_wheel.rs` | bounded tables and timers that the stages share |
//! | `sampling.rs` | the part of log records that services are learned from |
//! | `robust.rs` | median and spread of samples |
//! | `shell_text.rs` | values in texts that people paste into a shell |
//! | `guard.rs` | panics while an event is correlated, as errors |
//!
//! Dependencies point one way: `rules ← evidence ← story ← matcher ← shard ← driver`. All but the
//! worker threads and `driver/` is pure: no clock, socket or thread.

mod driver;
pub mod evidence;
mod guard;
mod key_table;
mod lru;
mod matcher;
mod robust;
pub mod rules;
mod sampling;
mod services;
mod shard;
mod shell_text;
mod story;
mod timer_wheel;

pub use driver::correlator::Correlator;
pub use driver::topology::{CollectorRings, Started, Topology};
pub use driver::{replay, rule_runner};
pub use matcher::lane::LaneStats;
pub use matcher::lane_options::LaneOptions;
pub use matcher::match_line::MatchLine;
pub use matcher::order::Order;
pub use sampling::Sampling;
pub use shard::event_time_lane::EventTimeStats;
pub use shard::shard::{Shard, ShardStats, StepOutput};
pub use shard::worker_stats::WorkerStats;
