//! The core that each thread is pinned to.

use core_affinity::CoreId;

/// Assigns cores to threads, in turn.
#[derive(Clone, Debug, Default)]
pub struct ThreadPlan {
    /// The cores that this process may use; empty: threads aren't pinned.
    pub cores: Vec<CoreId>,
    next: usize,
}

impl ThreadPlan {
    /// Pins threads to the cores of the process's cpuset.
    #[must_use]
    pub fn pinned() -> Self {
        // core_affinity reads sched_getaffinity, so the limits of a cpuset are included.
        Self { cores: core_affinity::get_core_ids().unwrap_or_default(), next: 0 }
    }

    /// The core of the next thread.
    pub fn next_core(&mut self) -> Option<CoreId> {
        let core = self.cores.get(self.next % self.cores.len().max(1)).copied();
        self.next += 1;
        core
    }
}
