//! `tapio demo`: causes faults and prints the stories that tapio emits for them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `args.rs`, `command.rs` | arguments; the sequence of the demo |
//! | `fault.rs` | the faults: child processes that fail |
//! | `cgroup.rs` | the small memory cgroup in which one of them fails |
//! | `environment.rs` | the agent, the children, queries to the server |
//! | `report.rs` | the output |
//! | `recorded.rs` | recorded stories, where the kernel can't be observed |

mod args;
mod cgroup;
mod command;
mod environment;
mod fault;
mod recorded;
mod report;

pub(super) use args::Args;
pub(super) use command::run;
pub(super) use fault::{FaultArgs, fault};
