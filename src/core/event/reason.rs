//! Closed lists of the stages and reasons of dropped events, so that CONS-1 can be summed.

use crate::closed_list;

closed_list! {
    /// A stage of the pipeline that can drop an event.
    pub Stage {
        /// The eBPF collector's programs in the kernel.
        Kernel = "kernel",
        /// A collector's thread.
        Collect = "collect",
        /// A correlator shard.
        Correlate = "correlate",
        /// The bridge to the server.
        Bridge = "bridge",
    }
}

closed_list! {
    /// Why an event was dropped.
    pub Reason {
        /// The source's line or message is invalid.
        BadInput = "bad_input",
        /// The event exceeds the maximum size of a record.
        Oversize = "oversize",
        /// The ring to the next stage was full and the collector's policy is to drop.
        RingFull = "ring_full",
        /// The eBPF ring buffer was full.
        KernelRingFull = "kernel_ring_full",
        /// A cgroup's token bucket in the kernel was empty.
        KernelThrottled = "kernel_throttled",
        /// The server rejected the batch's content.
        ServerRefused = "server_refused",
        /// The oldest events made room in the spool.
        SpoolFull = "spool_full",
        /// The event was read again after a restart; the one read before is in the spool.
        ReadAgain = "read_again",
        /// The event was damaged or deleted in the spool.
        SpoolLost = "spool_lost",
        /// The drain at shutdown exceeded its time limit.
        Shutdown = "shutdown",
        /// A collector panicked while it held the event.
        CollectorPanic = "collector_panic",
        /// A table in the kernel that aggregates events was full.
        KernelMapFull = "kernel_map_full",
        /// A source exceeded its rate.
        Throttled = "throttled",
        /// The source discarded the event before the collector read it.
        SourceGone = "source_gone",
    }
}

/// Number of reasons: the size of a counter table.
pub const REASON_COUNT: usize = Reason::ALL.len();

impl Reason {
    /// Whether the event was dropped in the kernel.
    #[must_use]
    pub fn is_in_kernel(self) -> bool {
        matches!(self, Self::KernelRingFull | Self::KernelThrottled | Self::KernelMapFull)
    }
}
