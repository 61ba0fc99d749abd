//! Layouts on synthetic trees of sysfs.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{CpuSet, CpuTopology, Machine, NumaNode, Pin, ThreadLayout, ThreadsConfig};

/// A machine whose CPUs are numbered as Linux does: the first threads of all cores, node by node,
/// then their second threads.
#[derive(Clone, Copy, Debug)]
struct Shape {
    nodes: u32,
    cores_per_node: u32,
    threads_per_core: u32,
}

/// Two nodes of 16 cores with two threads each: 64 CPUs.
const LARGE: Shape = Shape { nodes: 2, cores_per_node: 16, threads_per_core: 2 };

impl Shape {
    fn cores(self) -> u32 {
        self.nodes * self.cores_per_node
    }

    fn cpus(self) -> u32 {
        self.cores() * self.threads_per_core
    }

    fn of_core(self, core: u32) -> CpuSet {
        (0..self.threads_per_core).map(|thread| core + thread * self.cores()).collect()
    }

    fn of_node(self, node: u32) -> CpuSet {
        let cores = node * self.cores_per_node..(node + 1) * self.cores_per_node;
        cores.flat_map(|core| self.of_core(core).iter().collect::<Vec<_>>()).collect()
    }

    /// The files of the machine, with these CPUs online.
    fn write(self, online: &CpuSet) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: String| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text + "\n").unwrap();
        };
        write("cpu/online".into(), online.to_string());
        for core in 0..self.cores() {
            let living = self.of_core(core).intersection(online);
            for cpu in living.iter() {
                write(format!("cpu/cpu{cpu}/topology/core_cpus_list"), living.to_string());
            }
        }
        for node in 0..self.nodes {
            let living = self.of_node(node).intersection(online);
            write(format!("node/node{node}/cpulist"), living.to_string());
        }
        write("node/has_cpu".into(), "0".into());
        dir
    }

    fn machine(self, allowed: &CpuSet, online: &CpuSet) -> Machine {
        machine(self.write(online).path(), allowed)
    }

    /// The machine with all CPUs.
    fn whole(self) -> Machine {
        let all: CpuSet = (0..self.cpus()).collect();
        self.machine(&all, &all)
    }
}

fn machine(system: &Path, allowed: &CpuSet) -> Machine {
    let topology = CpuTopology::read(system, allowed);
    let parallelism = topology.cpus.len().max(1);
    Machine { topology, parallelism }
}

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn config(pin: Pin) -> ThreadsConfig {
    ThreadsConfig { pin, ..ThreadsConfig::default() }
}

const BUSY: &[&str] = &["bridge", "c:ebpf"];

fn layout(machine: &Machine) -> ThreadLayout {
    ThreadsConfig::default().layout(machine, 0, BUSY).unwrap()
}

fn shared(layout: &ThreadLayout) -> String {
    layout.shared().map(ToString::to_string).unwrap_or_default()
}

/// Machine of one node without second threads.
fn small(cpus: u32) -> Machine {
    Shape { nodes: 1, cores_per_node: cpus, threads_per_core: 1 }.whole()
}

#[test]
fn one_cpu_leaves_nothing_to_choose() {
    for pin in [Pin::Auto, Pin::Always] {
        let layout = config(pin).layout(&small(1), 0, BUSY).unwrap();
        assert_eq!((layout.shared(), layout.pinned().len()), (None, 0));
        assert_eq!(layout.placement("shard:0").cpus(), None);
        assert_eq!(layout.to_string(), "not pinned: there is only 1 CPU");
    }
    // A cgroup's limit counts as well.
    let limited = Machine { parallelism: 1, ..LARGE.whole() };
    let layout = layout(&limited);
    assert_eq!((layout.shards(), layout.shared()), (1, None));
}

#[test]
fn few_cpus_have_several_busy_threads_in_turn() {
    let layout = layout(&small(2));
    let expected = "shard:0 on CPU 0, bridge on CPU 1, c:ebpf on CPU 0; all others on CPUs 0-1";
    assert_eq!(layout.to_string(), expected);
    assert_eq!(layout.placement("c:ebpf").cpus(), Some(&set("0")));
    assert_eq!(layout.placement("c:kmsg").cpus(), Some(&set("0-1")));
}

#[test]
fn busy_threads_get_cpus_of_their_own() {
    let layout = layout(&small(8));
    let expected = "shard:0 on CPU 0, shard:1 on CPU 1, shard:2 on CPU 2, shard:3 on CPU 3, \
                    bridge on CPU 4, c:ebpf on CPU 5; all others on CPUs 6-7";
    assert_eq!(layout.to_string(), expected);
    assert_eq!(layout.placement("c:ebpf").cpus(), Some(&set("5")));
    for quiet in ["c:kmsg", "assessor", "recorder"] {
        assert_eq!(layout.placement(quiet).cpus(), Some(&set("6-7")));
    }
    // One CPU is left for all others: too few.
    let layout = ThreadsConfig::default().layout(&small(4), 1, BUSY).unwrap();
    assert_eq!((layout.pinned().len(), shared(&layout).as_str()), (3, "0-3"));
}

#[test]
fn agent_fills_the_cores_of_one_node_before_their_second_threads() {
    let machine = LARGE.whole();
    let layout = layout(&machine);
    assert_eq!((layout.node(), layout.shards()), (Some(0), 16));
    let cpus: Vec<u32> = layout.pinned().iter().map(|(_, cpu)| *cpu).collect();
    assert_eq!(cpus, (0..16).chain([32, 33]).collect::<Vec<_>>());
    assert_eq!(shared(&layout), "34-47");
    let four = ThreadsConfig::default().layout(&machine, 4, BUSY).unwrap();
    assert_eq!(shared(&four), "6-15,32-47");
}

#[test]
fn node_is_left_where_it_does_not_suffice() {
    let machine = LARGE.whole();
    let layout = ThreadsConfig::default().layout(&machine, 40, BUSY).unwrap();
    assert_eq!((layout.node(), layout.pinned().len()), (None, 42));
    let any = ThreadsConfig { numa_node: NumaNode::Any, ..ThreadsConfig::default() };
    let layout = any.layout(&machine, 0, BUSY).unwrap();
    assert_eq!((layout.node(), layout.shards()), (None, 32));
    // The 32 physical cores of both nodes come first.
    assert!(layout.pinned()[..32].iter().all(|(_, cpu)| *cpu < 32));
}

#[test]
fn cpuset_with_half_of_each_node_decides_for_the_larger_half() {
    let all: CpuSet = (0..64).collect();
    // 8 CPUs on node 0 are 8 cores; 12 on node 1 are 6 cores with both threads.
    let machine = LARGE.machine(&set("0-7,26-31,58-63"), &all);
    let nodes = machine.topology.nodes();
    assert_eq!((&nodes[&0], &nodes[&1]), (&set("0-7"), &set("26-31,58-63")));
    let layout = layout(&machine);
    assert_eq!((layout.node(), layout.shards()), (Some(1), 6));
    let cpus: Vec<u32> = layout.pinned().iter().map(|(_, cpu)| *cpu).collect();
    assert_eq!(cpus, [26, 27, 28, 29, 30, 31, 58, 59]);
    let first = ThreadsConfig { numa_node: NumaNode::Number(0), ..ThreadsConfig::default() };
    let layout = first.layout(&machine, 0, BUSY).unwrap();
    assert_eq!((layout.node(), layout.pinned().len(), shared(&layout)), (Some(0), 6, "6-7".into()));
}

#[test]
fn offline_cpus_are_not_used() {
    // Core 0 has lost its first thread, core 1 its second one; node 1 is offline.
    let online = set("1-15,32,34-47");
    let machine = LARGE.machine(&(0..64).collect(), &online);
    assert_eq!(machine.cpus(), online);
    let layout = ThreadsConfig::default().layout(&machine, 2, BUSY).unwrap();
    let cpus: Vec<u32> = layout.pinned().iter().map(|(_, cpu)| *cpu).collect();
    assert_eq!(cpus, [1, 2, 3, 4]);
    let core = |number| machine.topology.cpus.iter().find(|cpu| cpu.number == number).unwrap().core;
    assert_eq!((core(32), core(1), core(34)), (32, 1, 2));
}

#[test]
fn without_sysfs_each_cpu_is_a_core() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(dir.path(), &set("2-9"));
    assert_eq!(machine.cpus(), set("2-9"));
    let layout = layout(&machine);
    let cpus: Vec<u32> = layout.pinned().iter().map(|(_, cpu)| *cpu).collect();
    assert_eq!(
        (cpus, layout.node(), shared(&layout)),
        (vec![2, 3, 4, 5, 6, 7], None, "8-9".into())
    );
    // Files that can't be understood are as good as none.
    fs::create_dir_all(dir.path().join("cpu/cpu2/topology")).unwrap();
    fs::write(dir.path().join("cpu/cpu2/topology/core_cpus_list"), "x").unwrap();
    fs::write(dir.path().join("cpu/online"), "").unwrap();
    assert_eq!(CpuTopology::read(dir.path(), &set("2-9")), machine.topology);
    // The name before Linux 5.3.
    fs::write(dir.path().join("cpu/cpu2/topology/thread_siblings_list"), "0,2").unwrap();
    assert_eq!(CpuTopology::read(dir.path(), &set("2")).cpus[0].core, 0);
}

#[test]
fn configured_cpus_limit_all_threads() {
    let machine = small(8);
    let limited = |pin| ThreadsConfig { cpus: set("2-7"), ..config(pin) };
    let layout = limited(Pin::Auto).layout(&machine, 0, &["bridge"]).unwrap();
    assert_eq!((layout.shards(), layout.pinned()[0].1, shared(&layout)), (3, 2, "6-7".into()));
    let layout = limited(Pin::Never).layout(&machine, 0, BUSY).unwrap();
    assert_eq!((layout.pinned().len(), shared(&layout)), (0, "2-7".into()));
    assert_eq!(layout.placement("shard:0").cpus(), Some(&set("2-7")));
    assert_eq!(layout.to_string(), "all on CPUs 2-7; not pinned: threads.pin is never");
}

#[test]
fn impossible_values_are_errors() {
    let machine = small(4);
    let bad = ThreadsConfig { cpus: set("2-5"), ..ThreadsConfig::default() };
    assert_eq!(
        bad.layout(&machine, 0, BUSY).unwrap_err(),
        "cpus: 2-5: this process may use the CPUs 0-3 only, not 4-5"
    );
    let bad = ThreadsConfig { numa_node: NumaNode::Number(1), ..ThreadsConfig::default() };
    assert_eq!(
        bad.layout(&machine, 0, BUSY).unwrap_err(),
        "numa_node: 1: no CPU of this process is on that node; nodes with CPUs: 0 (0-3)"
    );
    let unknown = Machine { topology: CpuTopology::default(), parallelism: 8 };
    let layout = layout(&unknown);
    assert_eq!((layout.shards(), layout.shared()), (4, None));
    assert_eq!(layout.unpinned(), "the system doesn't report the CPUs of this process");
}

#[test]
fn refused_layout_is_given_up_unless_it_is_required() {
    let machine = small(8);
    let refused = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    let planned = layout(&machine);
    assert_eq!(planned.clone().permitted_if(Ok(())).unwrap(), planned);
    let given_up = planned.permitted_if(refused()).unwrap();
    assert_eq!((given_up.shards(), given_up.placement("shard:0").cpus()), (4, None));
    let expected = "not pinned: the system refuses sched_setaffinity: permission denied";
    assert_eq!(given_up.to_string(), expected);
    for required in [
        config(Pin::Always),
        ThreadsConfig { cpus: set("1"), ..config(Pin::Never) },
        ThreadsConfig { numa_node: NumaNode::Number(0), ..config(Pin::Auto) },
    ] {
        let layout = required.layout(&machine, 0, BUSY).unwrap();
        assert!(layout.permitted_if(refused()).unwrap_err().contains("refuses sched_setaffinity"));
    }
    // Nothing is moved, so nothing is refused.
    let never = config(Pin::Never).layout(&machine, 0, BUSY).unwrap();
    assert_eq!(never.clone().permitted_if(refused()).unwrap(), never);
}

fn shapes() -> impl Strategy<Value = (Shape, CpuSet, CpuSet)> {
    let shape = (1u32..=4, 1u32..=12, 1u32..=4).prop_map(|(nodes, cores_per_node, threads)| {
        Shape { nodes, cores_per_node, threads_per_core: threads }
    });
    shape.prop_flat_map(|shape| {
        let some = proptest::collection::vec(any::<bool>(), shape.cpus() as usize);
        let chosen = |bits: Vec<bool>| {
            (0u32..).zip(bits).filter(|(_, is_in)| *is_in).map(|(cpu, _)| cpu).collect::<CpuSet>()
        };
        (Just(shape), some.clone().prop_map(chosen), some.prop_map(chosen))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn layouts_are_sound(
        (shape, allowed, offline) in shapes(),
        shards in 0usize..20,
        collectors in 0usize..4,
        pin in prop_oneof![Just(Pin::Auto), Just(Pin::Always), Just(Pin::Never)],
        any_node in any::<bool>(),
    ) {
        let online = (0..shape.cpus()).collect::<CpuSet>().without(&offline);
        let machine = shape.machine(&allowed, &online);
        let usable = machine.cpus();
        if online.is_empty() {
            // The system doesn't report it then.
            prop_assert_eq!(&usable, &allowed);
            return Ok(());
        }
        prop_assert_eq!(&usable, &allowed.intersection(&online));
        let numa_node = if any_node { NumaNode::Any } else { NumaNode::Auto };
        let config = ThreadsConfig { numa_node, ..config(pin) };
        let busy = &["bridge", "c:ebpf", "c:otlp", "otlp"][..collectors];
        let layout = config.layout(&machine, shards, busy).unwrap();
        prop_assert!(layout.shards() >= 1 && (shards == 0 || layout.shards() == shards));
        let own: CpuSet = layout.pinned().iter().map(|(_, cpu)| *cpu).collect();
        prop_assert!(own.is_empty() || layout.pinned().len() == layout.shards() + busy.len());
        let Some(shared) = layout.shared() else {
            prop_assert!(own.is_empty() && !layout.unpinned().is_empty());
            return Ok(());
        };
        prop_assert!(!shared.is_empty());
        let all: CpuSet = own.iter().chain(shared.iter()).collect();
        prop_assert!(all.without(&usable).is_empty());
        if let Some(node) = layout.node() {
            prop_assert!(all.without(&shape.of_node(node)).is_empty());
        }
        let is_separate = own.intersection(shared).is_empty();
        prop_assert!(is_separate || all == *shared, "others share the rest, or everything");
        prop_assert!(is_separate || shared.len() < own.len() + 2);
        let on = |cpu: u32| layout.pinned().iter().filter(|(_, own)| *own == cpu).count();
        let most = own.iter().map(on).max().unwrap_or(0);
        prop_assert!(most <= 1 || own == all, "no CPU has two while another one has none");
        prop_assert!(own.iter().all(|cpu| on(cpu) + 1 >= most));
        // No two busy threads are on one physical core while another core has none.
        let threads_on = |core: u32| shape.of_core(core).iter().map(on).sum::<usize>();
        let is_usable = |core: &u32| !all.intersection(&shape.of_core(*core)).is_empty();
        let counts: Vec<usize> = (0..shape.cores()).filter(is_usable).map(threads_on).collect();
        let has_idle = counts.contains(&0);
        prop_assert!(!has_idle || counts.iter().all(|n| *n <= 1), "{counts:?}");
    }
}
