//! The correlator: which events belong to one story, what caused it, what it means.
//!
//! | file | purpose |
//! | --- | --- |
//! | `rules/` | rules, from YAML to tables by kind; routing |
//! | `worker.rs` | a shard's thread: rings in, rings out |
//! | `shard.rs` | [`Shard`]: a pure step |
//! | `lane.rs` | rules over events in one order |
//! | `sequence.rs`, `count.rs` | what a lane does for a sequence, for a count |
//! | `run.rs` | partial matches: runs of a sequence, windows of a count |
//! | `keys.rs` | bounded tables by rule and key |
//! | `wheel.rs` | deadlines |
//! | `groups.rs` | open groups and their closing |
//! | `story.rs` | cause, impact, actions |
//! | `lifecycle.rs` | lives of pods, units and processes |

mod count;
mod groups;
mod keys;
mod lane;
mod lifecycle;
pub mod rules;
mod run;
mod sequence;
mod shard;
mod story;
mod wheel;
mod worker;

pub use lane::{LaneOptions, LaneStats, MatchLine};
pub use shard::{Found, Shard, ShardStats, next_header};
pub use worker::{Order, ShardOutput, Wiring, Worker, WorkerStats};
