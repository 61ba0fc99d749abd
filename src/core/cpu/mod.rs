//! The CPUs of the machine, and the threads that run on them.
//!
//! | file | purpose |
//! | --- | --- |
//! | `cpu_set.rs` | [`CpuSet`]: logical CPUs, written as the kernel writes them |
//! | `topology.rs` | [`CpuTopology`]: physical cores and NUMA nodes, from sysfs |
//! | `machine.rs` | [`Machine`]: the CPUs that the process was started with |
//! | `config.rs` | [`ThreadsConfig`]: the section `threads` |
//! | `layout.rs` | [`ThreadLayout`]: the CPU of each busy thread |
//! | `affinity.rs` | [`Placement`]: moves the current thread to its CPUs |
//!
//! A CPU is what the kernel numbers: a hardware thread. Two or more of them can be one physical
//! core (SMT).

mod affinity;
mod config;
mod cpu_set;
mod layout;
mod machine;
mod topology;

pub use affinity::{Placement, cpus_of_threads};
pub use config::{NumaNode, Pin, ThreadsConfig};
pub use cpu_set::{CpuSet, MAX_CPUS};
pub use layout::ThreadLayout;
pub use machine::Machine;
pub use topology::{Cpu, CpuTopology};

#[cfg(test)]
mod tests;
