//! Collector `container`: lifecycles of containers, and pulled images, from the container runtime.
//!
//! | file | purpose |
//! | --- | --- |
//! | `collector.rs` | [`Config`], connecting and reconnecting, the cursor |
//! | `api.rs` | types and clients generated from `proto/containerd/` and `proto/cri.proto` |
//! | `client.rs` | requests to the runtime, with time limits |
//! | `table.rs` | the known containers; detects which observations are new |
//! | `containerd.rs` | one connection to containerd: its events, compared with its lists |
//! | `runtime_event.rs` | decoding of containerd's events |
//! | `cri.rs` | one connection to a runtime with the CRI only, by its lists |
//! | `to_event.rs` | from a transition to an event, and to the entity directory |
//!
//! containerd doesn't repeat events that were missed. So its lists are compared with the table at
//! the start, after each reconnection and once a minute. What changed in between is emitted then,
//! as far as the lists show it.

mod api;
mod client;
mod collector;
mod containerd;
mod cri;
mod runtime_event;
mod table;
mod to_event;

pub use collector::Config;
