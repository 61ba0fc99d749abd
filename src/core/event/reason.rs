//! Where and why an event can be lost: closed lists, so that CONS-1 can be summed.

macro_rules! closed {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $type { $($(#[$vdoc])* $variant),* }
        impl $type {
            /// Every value, in order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The word used in metrics, `/status` and reports.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

closed! {
    /// A stage of the pipeline that can drop an event.
    Stage {
        /// The kernel's side of the eBPF collector.
        Kernel = "kernel",
        /// A collector's thread.
        Collect = "collect",
        /// A correlator shard.
        Correlate = "correlate",
        /// The bridge to the server.
        Bridge = "bridge",
    }
}

closed! {
    /// Why an event was dropped.
    Reason {
        /// The source's line or message couldn't be understood.
        BadInput = "bad_input",
        /// The event is larger than a record may be.
        Oversize = "oversize",
        /// The ring to the next stage was full and the collector's policy is to drop.
        RingFull = "ring_full",
        /// The eBPF ring buffer was full.
        KernelRingFull = "kernel_ring_full",
        /// A cgroup's token bucket in the kernel was empty.
        KernelThrottled = "kernel_throttled",
        /// The bridge's queue was full while the server was away.
        QueueFull = "queue_full",
        /// The server refused the batch for what it holds.
        ServerRefused = "server_refused",
        /// The drain at the end ran out of time.
        Shutdown = "shutdown",
        /// A collector died with the event in its hands.
        CollectorPanic = "collector_panic",
        /// A table in the kernel that sums events up was full.
        KernelMapFull = "kernel_map_full",
        /// A source told more than its rate allows.
        Throttled = "throttled",
        /// A source threw it away before it was read.
        SourceGone = "source_gone",
    }
}

/// How many reasons there are: the size of a counter table.
pub const REASONS: usize = Reason::ALL.len();

impl Reason {
    /// Whether the event never left the kernel.
    #[must_use]
    pub fn is_kernels(self) -> bool {
        matches!(self, Self::KernelRingFull | Self::KernelThrottled | Self::KernelMapFull)
    }
}
