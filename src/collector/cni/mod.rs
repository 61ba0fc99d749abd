//! Collector `cni`: networks of pods, and the node's own links, addresses and default routes.
//!
//! | file | purpose |
//! | --- | --- |
//! | `report.rs` | the report of a call, from the plugin `tapio-cni` (`src/bin/tapio-cni/`) |
//! | `socket.rs` | the socket that receives the reports |
//! | `allocations.rs` | addresses allocated by host-local, from its files |
//! | `ipam_cursor.rs` | the cursor: which allocations were emitted, across restarts |
//! | `netlink.rs` | the kernel's route netlink: sockets and decoding |
//! | `links.rs` | the state of the node's network, and its changes |
//! | `attachments.rs` | which container is attached to which network through which link |
//! | `collector.rs` | [`Config`], and the loop over the three sources |
//! | `to_event.rs` | from reports, allocations and changes to events and the entity directory |
//! | `fuzz_entry.rs` | entry point of the fuzz target |
//!
//! Three sources share one thread, and each may be missing: a node without CNI still has links, and
//! addresses are emitted without the plugin. Runs of plugins as the kernel sees them are emitted by
//! the eBPF collector (`src/collector/ebpf/cni.rs`), which has process numbers, times and exit
//! codes.

mod allocations;
mod attachments;
mod collector;
#[cfg(any(test, fuzzing))]
pub mod fuzz_entry;
mod ipam_cursor;
mod links;
mod netlink;
mod socket;
mod to_event;

pub use collector::Config;
