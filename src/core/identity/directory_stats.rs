//! The entity directory's counters.

crate::counters! {
    /// Sizes of the entity directory's tables, and its losses.
    pub(super) struct DirectoryStats {
        pods: Gauge = "Pods.",
        containers: Gauge = "Containers of this node.",
        addresses: Gauge = "Addresses of pods and services.",
        networks: Gauge = "Network namespaces of pods.",
        units: Gauge = "Units of this node.",
        endpoints: Gauge = "Addresses and ports on which units accept connections.",
        refused: Counter = "Entries refused because their table of the entity directory was full.",
        evicted: Counter = "Ended entities evicted from the entity directory for lack of room.",
        ambiguous: Counter =
            "Address lookups without a result because two entities claim the address.",
    }
}
