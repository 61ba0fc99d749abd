//! Which core each thread is pinned to.

use core_affinity::CoreId;

/// Where threads run.
#[derive(Clone, Debug, Default)]
pub struct ThreadPlan {
    /// Cores this process may use, as its cpuset says; empty: don't pin.
    pub cores: Vec<CoreId>,
    next: usize,
}

impl ThreadPlan {
    /// Pins to the cores the cpuset allows, in turn.
    #[must_use]
    pub fn pinned() -> Self {
        // core_affinity reads sched_getaffinity, so a cpuset's limits are in.
        Self { cores: core_affinity::get_core_ids().unwrap_or_default(), next: 0 }
    }

    /// The next thread's core.
    pub fn next_core(&mut self) -> Option<CoreId> {
        let core = self.cores.get(self.next % self.cores.len().max(1)).copied();
        self.next += 1;
        core
    }
}
