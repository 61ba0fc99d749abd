//! Drives shards: threads and rings live, files in replay.
//!
//! | file | purpose |
//! | --- | --- |
//! | `topology.rs` | [`Correlator`]: the shards' and the assessor's threads and the rings between them |
//! | `thread_plan.rs` | [`ThreadPlan`]: the core of each thread |
//! | `replay.rs` | events from files through the same shards, in total order |
//! | `rule_runner.rs` | runs the tests that rules carry |

pub mod replay;
pub mod rule_runner;
mod thread_plan;
mod topology;

pub use thread_plan::ThreadPlan;
pub use topology::{Correlator, CorrelatorPlan, Entrance, Started};
