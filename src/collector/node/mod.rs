//! Collector `node`: state of the node that no other source reports: pressure and resource use of
//! units and pods, zombie processes, steps of the wall clock. It samples at intervals.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | [`Config`], and the loop with its intervals |
//! | `cgroups.rs` | the cgroups of units and pods, and the files in them |
//! | `pressure.rs` | stall times and shares of use between two samples |
//! | `zombies.rs` | processes with zombie children |
//! | `to_event.rs` | from a sample to an event |

mod cgroups;
mod collector;
mod pressure;
mod to_event;
mod zombies;

pub use collector::Config;
