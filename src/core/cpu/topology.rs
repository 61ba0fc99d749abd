//! Physical cores and NUMA nodes of CPUs, as sysfs has them
//! (Documentation/ABI/stable/sysfs-devices-system-cpu, -node).
//!
//! A container may hide the files. Without them each CPU counts as a core of its own, on no node.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::cpu_set::CpuSet;

/// A logical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub number: u32,
    /// Its physical core: the lowest number of a CPU of that core.
    pub core: u32,
    /// Its NUMA node; `None` where the system doesn't report it.
    pub node: Option<u32>,
}

/// CPUs with their cores and nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTopology {
    /// The CPUs, in ascending order.
    pub cpus: Vec<Cpu>,
}

impl CpuTopology {
    /// Reads where these CPUs are from the folder `/sys/devices/system`. CPUs that are offline are
    /// left out.
    #[must_use]
    pub fn read(system: &Path, cpus: &CpuSet) -> Self {
        let list = |path: &Path| fs::read_to_string(path).ok()?.parse::<CpuSet>().ok();
        let nodes = nodes(system);
        let online = list(&system.join("cpu/online")).filter(|online| !online.is_empty());
        let is_online = |cpu: &u32| online.as_ref().is_none_or(|online| online.contains(*cpu));
        let read = |number: u32| {
            let folder = system.join(format!("cpu/cpu{number}/topology"));
            // The second name is that of Linux before 5.3.
            let siblings = ["core_cpus_list", "thread_siblings_list"];
            let siblings = siblings.into_iter().find_map(|name| list(&folder.join(name)));
            let siblings = siblings.filter(|siblings| siblings.contains(number));
            let core = siblings.and_then(|siblings| siblings.iter().next());
            let node = nodes.iter().find(|(_, cpus)| cpus.contains(number)).map(|(node, _)| *node);
            Cpu { number, core: core.unwrap_or(number), node }
        };
        Self { cpus: cpus.iter().filter(is_online).map(read).collect() }
    }

    /// The numbers of the CPUs.
    #[must_use]
    pub fn set(&self) -> CpuSet {
        self.cpus.iter().map(|cpu| cpu.number).collect()
    }

    /// These CPUs only.
    #[must_use]
    pub(super) fn within(&self, set: &CpuSet) -> Self {
        Self { cpus: self.cpus.iter().copied().filter(|cpu| set.contains(cpu.number)).collect() }
    }

    /// The CPUs of each node that the system reports.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<u32, CpuSet> {
        let mut nodes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in &self.cpus {
            if let Some(node) = cpu.node {
                nodes.entry(node).or_default().push(cpu.number);
            }
        }
        nodes.into_iter().map(|(node, cpus)| (node, cpus.into_iter().collect())).collect()
    }

    /// The numbers of the CPUs, the first ones each on a physical core of its own: those of larger
    /// nodes first, and second threads of a core after the first ones of all cores.
    #[must_use]
    pub(super) fn by_core(&self) -> Vec<u32> {
        let nodes = self.nodes();
        let size = |node: Option<u32>| node.map_or(0, |node| nodes[&node].len());
        let mut earlier: BTreeMap<u32, usize> = BTreeMap::new();
        let mut order: Vec<_> = self
            .cpus
            .iter()
            .map(|cpu| {
                let siblings = earlier.entry(cpu.core).or_default();
                let thread = *siblings;
                *siblings += 1;
                (thread, std::cmp::Reverse(size(cpu.node)), cpu.node, cpu.number)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., number)| number).collect()
    }
}

/// The CPUs of each node.
fn nodes(system: &Path) -> Vec<(u32, CpuSet)> {
    let entries = fs::read_dir(system.join("node")).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix("node")?.parse().ok()?;
        let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        Some((number, cpus.parse().ok()?))
    };
    let mut nodes: Vec<_> = entries.filter_map(read).collect();
    nodes.sort_unstable_by_key(|(number, _)| *number);
    nodes
}
