//! Drives shards: as threads with rings when live, from files in replay.
//!
//! | file | purpose |
//! | --- | --- |
//! | `topology.rs` | [`Topology`](topology::Topology): builds the threads and their rings |
//! | `correlator.rs` | [`Correlator`](correlator::Correlator): the running threads |
//! | `replay.rs` | runs events from files through the same shards, in total order |
//! | `rule_runner.rs` | runs the tests that rules contain |

pub(crate) mod correlator;
pub mod replay;
pub mod rule_runner;
pub(crate) mod topology;
