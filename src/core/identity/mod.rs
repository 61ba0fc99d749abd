//! Who is who on this node: containers, pods, workloads, services, units, and whose an address or a network
//! namespace is.
//!
//! | file | purpose |
//! | --- | --- |
//! | `cgroup.rs` | what a cgroup's path says of container, pod and unit |
//! | `entities.rs` | the facts about a pod, a container, a unit |
//! | `table.rs` | bounded tables: written under a lock of the writers, read without one |
//! | `directory.rs` | [`Directory`]: all tables together, and what they answer |
//!
//! Collectors that learn facts (Kubernetes, the container runtime, CNI, systemd) write them; every collector
//! reads them for its own events. A look-up never waits, and an answer that could be two things is none.

mod cgroup;
mod directory;
mod entities;
mod table;

pub use cgroup::{CgroupNames, cgroups_in};
pub use directory::{Bounds, Directory, Whose};
pub use entities::{Container, Pod, Unit, Workload};
pub use table::Table;
