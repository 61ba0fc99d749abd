//! The correlator: which events belong to one story, what caused it, what it means.
//!
//! | file | purpose |
//! | --- | --- |
//! | `rules/` | rules, from YAML to tables by kind; routing |
//! | `worker.rs` | a shard's thread: rings in, rings out |
//! | `shard.rs` | [`Shard`]: a pure step |
//! | `lane.rs` | rules over events in one order |
//! | `sequence.rs`, `aggregate.rs` | what a lane does for a sequence, for a measure over a window |
//! | `run.rs`, `window.rs` | what is pending for a key: runs of a sequence, a window |
//! | `gauge.rs` | what is measured over a window |
//! | `members.rs` | the events of a story |
//! | `settled.rs`, `watermark.rs` | the second lane: the order of the events' times, while they stream |
//! | `keys.rs` | bounded tables by rule and key |
//! | `wheel.rs` | deadlines |
//! | `open_stories.rs` | open stories and their closing |
//! | `render.rs` | what a story's events say: names, texts, actions |
//! | `evidence/` | facts of all shards; causes and impact from them |
//! | `lifecycle.rs` | lives of pods, units and processes |
//! | `lru.rs` | a bounded map |

mod driver;
pub mod evidence;
mod lru;
mod matcher;
pub mod rules;
mod shard;
mod story;

pub use driver::{Correlator, CorrelatorPlan, Entrance, Started, ThreadPlan, replay, rule_runner};
pub use matcher::lane::{LaneOptions, LaneStats, MatchLine};
pub use shard::event_time_lane::SettledStats;
pub use shard::shard::{Found, Shard, ShardStats};
pub use shard::worker::{Order, ShardOutput, Wiring, Worker, WorkerStats};
pub use story::open::Unknown;
