//! The layout of an agent's threads on CPUs.
//!
//! Busy threads have a CPU each: first one on each physical core, then the cores' second threads,
//! and then in turn a second busy thread on each CPU. All other threads share the CPUs without a
//! busy thread. An agent that fits on one NUMA node stays there.
//! Memory is on the node of the CPU that first writes to it, so nothing else is needed to keep
//! rings and tables near the threads that use them: every thread of the agent is on that node.

use std::{fmt, io};

use super::affinity::{Placement, check_permission};
use super::config::{NumaNode, Pin, ThreadsConfig};
use super::cpu_set::CpuSet;
use super::machine::Machine;
use super::topology::CpuTopology;

/// Threads are pinned from this number of CPUs on.
const MIN_CPUS_TO_PIN: usize = 2;

/// CPUs without a busy thread that suffice for all other threads. If fewer are left, these run on
/// all CPUs.
const MIN_SHARED_CPUS: usize = 2;

/// The most shards of an agent.
const MAX_SHARDS: usize = 64;

/// The CPUs of each thread. The default leaves all threads where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadLayout {
    shards: usize,
    node: Option<u32>,
    own: Vec<(String, u32)>,
    /// The CPUs of all other threads; `None`: no thread is moved.
    shared: Option<CpuSet>,
    /// Why threads aren't pinned; empty if they are.
    unpinned: String,
    /// Whether the agent may not start without it.
    is_required: bool,
}

impl ThreadsConfig {
    /// Lays out the threads of an agent. `shards`: their number, or 0 for one for every two CPUs.
    /// `busy`: the names of the other busy threads, the busiest first.
    ///
    /// # Errors
    /// The key of a value that this machine doesn't allow, and why.
    pub fn layout(
        &self,
        machine: &Machine,
        shards: usize,
        busy: &[&str],
    ) -> Result<ThreadLayout, String> {
        let usable = self.usable(machine)?;
        let count = usable.cpus.len().min(machine.parallelism);
        let pins = match self.pin {
            Pin::Auto => count >= MIN_CPUS_TO_PIN,
            Pin::Always => usable.cpus.len() >= MIN_CPUS_TO_PIN,
            Pin::Never => false,
        };
        let number_of_shards = |cpus: usize| match (shards, cpus) {
            // The system doesn't report the CPUs.
            (0, 0) => (machine.parallelism / 2).clamp(1, MAX_SHARDS),
            (0, cpus) => (cpus.min(machine.parallelism) / 2).clamp(1, MAX_SHARDS),
            (n, _) => n,
        };
        let suffices = |cpus: &CpuSet| number_of_shards(cpus.len()) + busy.len() <= cpus.len();
        let (node, used) = self.node(&usable, |cpus| pins && suffices(cpus))?;
        let shards = number_of_shards(used.cpus.len());
        let threads = (0..shards).map(|n| format!("shard:{n}"));
        let threads = threads.chain(busy.iter().map(|name| (*name).to_owned()));
        let own = if pins { own_cpus(threads.collect(), &used) } else { Vec::new() };
        let is_limited = !self.cpus.is_empty() || node.is_some();
        let shared = (!own.is_empty() || is_limited).then(|| shared_cpus(&own, &used));
        let is_required = self.pin == Pin::Always
            || !self.cpus.is_empty()
            || matches!(self.numa_node, NumaNode::Number(_));
        let unpinned = match self.pin {
            _ if pins => String::new(),
            Pin::Never => "threads.pin is never".to_owned(),
            _ if usable.cpus.is_empty() => {
                "the system doesn't report the CPUs of this process".to_owned()
            }
            _ => format!("there is only {count} CPU"),
        };
        Ok(ThreadLayout { shards, node, own, shared, unpinned, is_required })
    }

    /// The CPUs of the machine within `cpus`.
    fn usable(&self, machine: &Machine) -> Result<CpuTopology, String> {
        if self.cpus.is_empty() {
            return Ok(machine.topology.clone());
        }
        let allowed = machine.cpus();
        let missing = self.cpus.without(&allowed);
        if !missing.is_empty() {
            let cpus = &self.cpus;
            return Err(format!(
                "cpus: {cpus}: this process may use the CPUs {allowed} only, not {missing}"
            ));
        }
        Ok(machine.topology.within(&self.cpus))
    }

    /// The node that all threads are kept on, and its CPUs among these; `None` and all of them
    /// where threads may be on any node.
    fn node(
        &self,
        usable: &CpuTopology,
        suffices: impl Fn(&CpuSet) -> bool,
    ) -> Result<(Option<u32>, CpuTopology), String> {
        let nodes = usable.nodes();
        let chosen = match self.numa_node {
            NumaNode::Any => None,
            NumaNode::Auto => {
                // The first of equals.
                let largest = nodes.iter().max_by_key(|(n, cpus)| (cpus.len(), u32::MAX - **n));
                largest.filter(|(_, cpus)| nodes.len() > 1 && suffices(cpus)).map(|(n, _)| *n)
            }
            NumaNode::Number(number) if nodes.contains_key(&number) => Some(number),
            NumaNode::Number(number) => {
                let known: Vec<_> = nodes.iter().map(|(n, cpus)| format!("{n} ({cpus})")).collect();
                return Err(format!(
                    "numa_node: {number}: no CPU of this process is on that node; nodes with CPUs: {}",
                    if known.is_empty() { "none reported".to_owned() } else { known.join(", ") }
                ));
            }
        };
        Ok(match chosen {
            Some(number) => (chosen, usable.within(&nodes[&number])),
            None => (None, usable.clone()),
        })
    }
}

/// The CPU of each busy thread: each CPU has one before a second one gets two.
fn own_cpus(threads: Vec<String>, used: &CpuTopology) -> Vec<(String, u32)> {
    let cpus = used.by_core();
    threads.into_iter().zip(cpus.iter().copied().cycle()).collect()
}

/// The CPUs of all other threads: those without a busy thread, or all where too few are left.
fn shared_cpus(own: &[(String, u32)], used: &CpuTopology) -> CpuSet {
    let left = used.set().without(&own.iter().map(|(_, cpu)| *cpu).collect());
    if left.len() >= MIN_SHARED_CPUS { left } else { used.set() }
}

impl ThreadLayout {
    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The NUMA node that all threads are kept on.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.node
    }

    /// The busy threads, each with its CPU.
    #[must_use]
    pub fn pinned(&self) -> &[(String, u32)] {
        &self.own
    }

    /// The CPUs of all other threads; `None` where no thread is moved.
    #[must_use]
    pub fn shared(&self) -> Option<&CpuSet> {
        self.shared.as_ref()
    }

    /// Why threads aren't pinned; empty if they are.
    #[must_use]
    pub fn unpinned(&self) -> &str {
        &self.unpinned
    }

    /// The place of the process's first thread, whose threads inherit it.
    #[must_use]
    pub fn main_placement(&self) -> Placement {
        self.shared.clone().map_or_else(Placement::default, Placement::on)
    }

    /// The place of the thread with this name.
    #[must_use]
    pub fn placement(&self, thread: &str) -> Placement {
        let own = self.own.iter().find(|(name, _)| name == thread);
        own.map_or_else(
            || self.main_placement(),
            |(_, cpu)| Placement::on([*cpu].into_iter().collect()),
        )
    }

    /// The layout, or one that moves no thread where the system refuses to move them, such as
    /// under a seccomp filter; that is logged.
    ///
    /// # Errors
    /// When the configuration requires a layout and the system refuses.
    pub fn permitted(self) -> Result<Self, String> {
        self.permitted_if(check_permission())
    }

    /// As [`ThreadLayout::permitted`], by the system's answer.
    pub(super) fn permitted_if(self, answer: io::Result<()>) -> Result<Self, String> {
        let refusal = match (self.shared.is_some(), answer) {
            (true, Err(error)) => format!("the system refuses sched_setaffinity: {error}"),
            _ => return Ok(self),
        };
        if self.is_required {
            return Err(format!("{refusal} (threads.pin: auto without cpus and numa_node starts)"));
        }
        tracing::info!(cause = refusal, "threads aren't pinned to CPUs");
        Ok(Self { node: None, own: Vec::new(), shared: None, unpinned: refusal, ..self })
    }
}

/// One line, for people.
impl fmt::Display for ThreadLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (thread, cpu)) in self.own.iter().enumerate() {
            write!(f, "{}{thread} on CPU {cpu}", if at == 0 { "" } else { ", " })?;
        }
        match (&self.shared, self.own.is_empty()) {
            (Some(shared), true) => {
                write!(f, "all on CPUs {shared}; not pinned: {}", self.unpinned)
            }
            (Some(shared), false) => write!(f, "; all others on CPUs {shared}"),
            (None, _) => write!(f, "not pinned: {}", self.unpinned),
        }?;
        self.node.map_or(Ok(()), |node| write!(f, "; NUMA node {node}"))
    }
}
