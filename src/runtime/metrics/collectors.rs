//! The metrics of the collectors' own counters, which `/status` lists by name.

use crate::metrics::Metric;

/// A counter of a collector and its metric. Several counters may share a metric: then `label` is
/// the value of its label.
pub(super) struct CollectorCounter {
    pub(super) collector: &'static str,
    /// The counter's name in `/status`.
    pub(super) counter: &'static str,
    pub(super) label: Option<&'static str>,
    pub(super) metric: Metric,
}

const fn total(
    collector: &'static str,
    counter: &'static str,
    name: &'static str,
    help: &'static str,
) -> CollectorCounter {
    CollectorCounter { collector, counter, label: None, metric: Metric::counter(name, &[], help) }
}

const fn level(
    collector: &'static str,
    counter: &'static str,
    name: &'static str,
    help: &'static str,
) -> CollectorCounter {
    CollectorCounter { collector, counter, label: None, metric: Metric::gauge(name, &[], help) }
}

const fn k8s_objects(counter: &'static str) -> CollectorCounter {
    CollectorCounter {
        collector: "k8s",
        counter,
        label: Some(counter),
        metric: Metric::gauge(
            "tapio_k8s_objects",
            &["kind"],
            "Kubernetes objects that the collector tracks, by kind.",
        ),
    }
}

/// Prefix of the eBPF collector's counters of records, before the kind.
pub(super) const EMITTED: &str = "records_emitted.";
pub(super) const EBPF_EMITTED: Metric = Metric::counter(
    "tapio_ebpf_records_emitted_total",
    &["kind"],
    "Records that the eBPF programs put into the ring buffer, by kind.",
);

/// All counters but the eBPF collector's [`EMITTED`]. Rows of one metric follow each other.
pub(super) const COLLECTOR_COUNTERS: &[CollectorCounter] = &[
    total(
        "ebpf",
        "records_drained",
        "tapio_ebpf_records_drained_total",
        "Records read from the ring buffer.",
    ),
    total(
        "ebpf",
        "control_records_lost",
        "tapio_ebpf_control_records_lost_total",
        "Records about cgroups lost because the ring buffer was full.",
    ),
    level("ebpf", "processes", "tapio_ebpf_processes", "Processes in the process table."),
    total(
        "ebpf",
        "processes_untracked",
        "tapio_ebpf_processes_untracked_total",
        "Processes not tracked because the process table was full.",
    ),
    level("ebpf", "cgroups", "tapio_ebpf_cgroups", "Cgroups whose path is known."),
    total(
        "ebpf",
        "cgroups_untracked",
        "tapio_ebpf_cgroups_untracked_total",
        "Cgroups not tracked because the table of paths was full.",
    ),
    total(
        "ebpf",
        "cgroups_unresolved",
        "tapio_ebpf_cgroups_unresolved_total",
        "Events without a cgroup path, because their cgroup was not known.",
    ),
    total(
        "ebpf",
        "names_patched",
        "tapio_ebpf_names_patched_total",
        "Events enriched after waiting for their container's names.",
    ),
    total(
        "ebpf",
        "names_unresolved",
        "tapio_ebpf_names_unresolved_total",
        "Events emitted without the names of their container after waiting for them.",
    ),
    total(
        "ebpf",
        "cni_calls_unread",
        "tapio_ebpf_cni_calls_unread_total",
        "Runs of CNI plugins whose environment could not be read.",
    ),
    total(
        "ebpf",
        "program_runs_missed",
        "tapio_ebpf_program_runs_missed_total",
        "Runs of eBPF programs that the kernel skipped.",
    ),
    level("journal", "files", "tapio_journal_files", "Journal files that are open."),
    total("journal", "records_read", "tapio_journal_records_read_total", "Journal records read."),
    total(
        "journal",
        "records_throttled",
        "tapio_journal_records_throttled_total",
        "Journal records dropped by the rate limit of their unit.",
    ),
    total(
        "journal",
        "entries_corrupt",
        "tapio_journal_entries_corrupt_total",
        "Journal entries that are damaged.",
    ),
    total(
        "journal",
        "entries_gone",
        "tapio_journal_entries_gone_total",
        "Journal entries that were deleted before they were read.",
    ),
    total(
        "journal",
        "fields_corrupt",
        "tapio_journal_fields_corrupt_total",
        "Fields of journal entries that are damaged.",
    ),
    level("systemd", "units", "tapio_systemd_units", "Units that the collector tracks."),
    total(
        "systemd",
        "connections",
        "tapio_systemd_connections_total",
        "Connections established to the D-Bus daemon.",
    ),
    total(
        "systemd",
        "units_refused",
        "tapio_systemd_units_refused_total",
        "Units not tracked because the table of units was full.",
    ),
    k8s_objects("pods"),
    k8s_objects("services"),
    k8s_objects("endpoint_slices"),
    k8s_objects("pods_behind_services"),
    k8s_objects("deployments"),
    total(
        "k8s",
        "foreign_events",
        "tapio_k8s_foreign_events_total",
        "Kubernetes Events about objects of other nodes, which are skipped.",
    ),
    total("k8s", "watches", "tapio_k8s_watches_total", "Watches established with the API server."),
    total(
        "k8s",
        "watches_expired",
        "tapio_k8s_watches_expired_total",
        "Watches that were listed again because their version was too old (410 Gone).",
    ),
    total(
        "k8s",
        "requests_throttled",
        "tapio_k8s_requests_throttled_total",
        "Requests that the API server asked to repeat later (429).",
    ),
    total(
        "k8s",
        "requests_forbidden",
        "tapio_k8s_requests_forbidden_total",
        "Requests that the API server refused for lack of permission.",
    ),
    total(
        "k8s",
        "connections_lost",
        "tapio_k8s_connections_lost_total",
        "Requests and watches that failed.",
    ),
    total(
        "k8s",
        "objects_invalid",
        "tapio_k8s_objects_invalid_total",
        "Kubernetes objects that could not be decoded.",
    ),
    level(
        "k8s",
        "checkpoint_bytes",
        "tapio_k8s_checkpoint_bytes",
        "Size of the collector's checkpoint, in bytes.",
    ),
    total("cni", "reports", "tapio_cni_reports_total", "Reports received from tapio-cni."),
    total(
        "cni",
        "reports_invalid",
        "tapio_cni_reports_invalid_total",
        "Reports from tapio-cni that could not be decoded.",
    ),
    total(
        "cni",
        "connections_refused",
        "tapio_cni_connections_refused_total",
        "Connections refused because their user is not allowed to report.",
    ),
    total(
        "cni",
        "repeated_dels",
        "tapio_cni_repeated_dels_total",
        "DEL calls for an attachment that was deleted already, which are skipped.",
    ),
    total(
        "cni",
        "unresolved",
        "tapio_cni_unresolved_total",
        "Events emitted without the names of their pod.",
    ),
    level("cni", "attachments", "tapio_cni_attachments", "Attachments of pods to networks."),
    level("cni", "addresses", "tapio_cni_addresses", "Addresses allocated by host-local."),
    total(
        "cni",
        "allocations_missed",
        "tapio_cni_allocations_missed_total",
        "Allocations of host-local that were released before their file could be read.",
    ),
    level("cni", "links", "tapio_cni_links", "Network links of the node."),
    total(
        "cni",
        "netlink_overruns",
        "tapio_cni_netlink_overruns_total",
        "Overruns of the netlink socket, after which the links are listed again.",
    ),
    total("otlp", "requests", "tapio_otlp_requests_total", "Export requests received."),
    total(
        "otlp",
        "requests_refused",
        "tapio_otlp_requests_refused_total",
        "Export requests refused because they could not be decoded.",
    ),
    total(
        "otlp",
        "attributes_dropped",
        "tapio_otlp_attributes_dropped_total",
        "Attributes dropped for lack of room in their event.",
    ),
    total(
        "otlp",
        "records_passed",
        "tapio_otlp_records_passed_total",
        "Log records passed on as they came, because nothing had to look at them.",
    ),
    total(
        "otlp",
        "series_forgotten",
        "tapio_otlp_series_forgotten_total",
        "Series of metrics whose last point was forgotten for lack of room.",
    ),
    level("receiver", "streams", "tapio_receiver_streams", "Streams of senders that are open."),
    total("receiver", "batches", "tapio_receiver_batches_total", "Batches received."),
    total(
        "receiver",
        "duplicate_items",
        "tapio_receiver_duplicate_items_total",
        "Items received more than once; the later ones are skipped.",
    ),
    total(
        "receiver",
        "batches_refused",
        "tapio_receiver_batches_refused_total",
        "Batches refused.",
    ),
    total(
        "receiver",
        "events_invalid",
        "tapio_receiver_events_invalid_total",
        "Events that could not be decoded.",
    ),
    total(
        "otlp",
        "handshakes_failed",
        "tapio_otlp_handshakes_failed_total",
        "TLS handshakes that failed.",
    ),
    total(
        "otlp",
        "requests_denied",
        "tapio_otlp_requests_denied_total",
        "Requests refused for lack of an identity or a right, or because of the name they are for.",
    ),
    total(
        "otlp",
        "access_reload_failures",
        "tapio_otlp_access_reload_failures_total",
        "Changed certificates and token files that could not be used; those before stay in use.",
    ),
    total(
        "receiver",
        "handshakes_failed",
        "tapio_receiver_handshakes_failed_total",
        "TLS handshakes that failed.",
    ),
    total(
        "receiver",
        "requests_denied",
        "tapio_receiver_requests_denied_total",
        "Requests refused for lack of an identity or a right, or because of the name they are for.",
    ),
    total(
        "receiver",
        "access_reload_failures",
        "tapio_receiver_access_reload_failures_total",
        "Changed certificates and token files that could not be used; those before stay in use.",
    ),
    total(
        "receiver",
        "jumps_refused",
        "tapio_receiver_jumps_refused_total",
        "Batches refused because their sequence or epoch is further ahead than any sender can be.",
    ),
    total(
        "receiver",
        "batches_denied",
        "tapio_receiver_batches_denied_total",
        "Batches of another node than their sender; each ends its stream.",
    ),
    level("container", "containers", "tapio_container_containers", "Containers that are tracked."),
    total(
        "container",
        "untracked",
        "tapio_container_untracked_total",
        "Containers not tracked because the table of containers was full.",
    ),
    total(
        "container",
        "runtime_events",
        "tapio_container_runtime_events_total",
        "Events received from the container runtime.",
    ),
    total(
        "container",
        "unknown_events",
        "tapio_container_unknown_events_total",
        "Events of the container runtime of a type that tapio does not decode.",
    ),
    total(
        "container",
        "connections",
        "tapio_container_connections_total",
        "Connections established to the container runtime.",
    ),
    total(
        "kmsg",
        "records_lost",
        "tapio_kmsg_records_lost_total",
        "Kernel log records overwritten before they were read.",
    ),
    total(
        "kmsg",
        "user_records",
        "tapio_kmsg_user_records_total",
        "Kernel log records written by programs, which are skipped.",
    ),
    level("node", "cgroups", "tapio_node_cgroups", "Cgroups whose pressure (PSI) is observed."),
];
