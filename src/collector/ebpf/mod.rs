//! The eBPF collector: process, TCP, block and system call events from the kernel.
//!
//! | file | purpose |
//! | --- | --- |
//! | `config.rs` | [`Config`] and its layout in the programs' configuration map |
//! | `collector.rs` | [`Ebpf`]: the loop that drains the ring buffer, and housekeeping |
//! | `kinds.rs` | [`Kind`], names of signals, errors and system calls |
//! | `loader.rs` | the table of programs; each is loaded on its own and may fail on its own |
//! | `kernel.rs` | the maps: ring buffer, waiting on it, losses counted in the kernel |
//! | `ring_reader.rs` | reads the ring buffer through a window |
//! | `raw.rs` | layouts of the records |
//! | `decode.rs` | [`Decoder`](decode::Decoder): from a record to an event |
//! | `process.rs`, `tcp.rs`, `block.rs`, `syscalls.rs` | decoding by family |
//! | `cni.rs`, `plugin_runs.rs` | events of CNI plugins, from their exec and exit |
//! | `processes.rs`, `cgroups.rs` | tables of processes and cgroups |
//! | `users.rs` | names of users |
//! | `tombstones.rs` | keeps entries of these tables for a while after their end |
//! | `enrichment_queue.rs` | events that wait for the names of their pod |
//! | `fatal_signals.rs` | the senders of signals by which processes end |
//! | `display.rs` | sizes and durations in messages |
//! | `probe.rs` | [`findings`]: what this kernel and these privileges allow |
//!
//! The programs are in `ebpf/`; `docs/ebpf.md` lists them with their purpose.

mod block;
mod cgroups;
mod cni;
mod collector;
mod config;
mod decode;
mod display;
mod enrichment_queue;
mod fatal_signals;
mod kernel;
mod kinds;
mod loader;
mod plugin_runs;
mod probe;
mod process;
mod processes;
mod raw;
mod ring_reader;
mod syscalls;
mod tcp;
mod tombstones;
mod users;

pub use collector::Ebpf;
pub use config::{Config, SyscallErrors};
pub use kinds::{ErrorSet, Kind, SignalSet};
pub use probe::{Finding, findings};
