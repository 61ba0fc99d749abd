//! Identity: the containers, pods, workloads, services and units of a node, and the owners of
//! addresses and network namespaces.
//!
//! | file | purpose |
//! | --- | --- |
//! | `cgroup.rs` | container, pod and unit from the path of a cgroup |
//! | `entities.rs` | pods, containers, units |
//! | `table.rs` | bounded tables: writers lock, readers don't |
//! | `directory.rs` | [`Directory`]: the entity directory, all tables together |
//! | `directory_stats.rs` | its counters |
//!
//! Collectors that learn facts (Kubernetes, the container runtime, CNI, systemd) write them; every
//! collector reads them for its own events. A lookup never waits. An ambiguous lookup has no
//! result.

mod cgroup;
mod directory;
mod directory_stats;
mod entities;
mod table;

pub use cgroup::{CgroupNames, ContainerNames, cgroups_in, node_base};
pub use directory::{AddressOwner, Bounds, Directory};
pub use entities::{Container, Pod, Unit, Workload};
pub use table::Table;
