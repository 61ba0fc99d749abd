//! The CPUs that the process was started with.

use std::path::Path;
use std::sync::OnceLock;

use super::affinity::allowed_cpus;
use super::cpu_set::CpuSet;
use super::topology::CpuTopology;

/// The folder of sysfs with CPUs and nodes.
const SYSTEM: &str = "/sys/devices/system";

/// The CPUs that a process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its CPUs: those of its cpuset and affinity that are online. Empty where the system doesn't
    /// report them.
    pub topology: CpuTopology,
    /// How many CPUs' time it may use: at most those above, and fewer where a cgroup limits it.
    pub parallelism: usize,
}

impl Machine {
    /// The machine as this process found it at the first call. A thread that was moved to some CPUs
    /// since doesn't change it: the first call has to be made before.
    pub fn of_process() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| Self {
            topology: CpuTopology::read(Path::new(SYSTEM), &allowed_cpus()),
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// The numbers of its CPUs.
    #[must_use]
    pub fn cpus(&self) -> CpuSet {
        self.topology.set()
    }
}
