//! Names tapio itself knows: kinds, sources, entity and attribute keys. Attribute names are
//! OpenTelemetry semantic conventions where one exists and `tapio.*` where none does.

use super::Name;

macro_rules! known {
    ($($constant:ident = $text:literal),* $(,)?) => {
        /// Texts of the known names; a name's number is its place here.
        pub const KNOWN: &[&str] = &[$($text),*];

        /// Counts the names: a macro that counted by recursion would be bounded in length.
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        #[repr(u16)]
        enum Number { $($constant),* }

        $(
            #[doc = concat!("`", $text, "`")]
            pub const $constant: Name = Name(Number::$constant as u16);
        )*
    };
}

known! {
    // kinds
    KERNEL_PROCESS_EXEC = "kernel.process.exec",
    KERNEL_PROCESS_FORK = "kernel.process.fork",
    KERNEL_PROCESS_EXIT = "kernel.process.exit",
    KERNEL_PROCESS_OOM_KILL = "kernel.process.oom_kill",
    KERNEL_PROCESS_SIGNAL = "kernel.process.signal",
    KERNEL_TCP_CONNECT = "kernel.tcp.connect",
    KERNEL_TCP_ACCEPT = "kernel.tcp.accept",
    KERNEL_TCP_CLOSE = "kernel.tcp.close",
    KERNEL_TCP_REFUSED = "kernel.tcp.refused",
    KERNEL_TCP_RESET = "kernel.tcp.reset",
    KERNEL_TCP_RETRANSMIT = "kernel.tcp.retransmit",
    KERNEL_TCP_TIMEOUT = "kernel.tcp.timeout",
    KERNEL_BLOCK_ERROR = "kernel.block.error",
    KERNEL_BLOCK_SLOW = "kernel.block.slow",
    KERNEL_SYSCALL_ERROR_RATE = "kernel.syscall.error_rate",
    KERNEL_SYSCALL_ENTER = "kernel.syscall.enter",
    SYSTEMD_UNIT_STARTED = "systemd.unit.started",
    SYSTEMD_UNIT_STOPPED = "systemd.unit.stopped",
    SYSTEMD_UNIT_FAILED = "systemd.unit.failed",
    SYSTEMD_UNIT_RESTARTING = "systemd.unit.restarting",
    SYSTEMD_UNIT_RELOADED = "systemd.unit.reloaded",
    SYSTEMD_UNIT_OOM = "systemd.unit.oom",
    JOURNAL_MESSAGE = "journal.message",
    JOURNAL_COREDUMP = "journal.coredump",
    K8S_POD_SCHEDULED = "k8s.pod.scheduled",
    K8S_POD_RUNNING = "k8s.pod.running",
    K8S_POD_READY = "k8s.pod.ready",
    K8S_POD_CRASH_LOOP = "k8s.pod.crash_loop",
    K8S_POD_OOM_KILLED = "k8s.pod.oom_killed",
    K8S_POD_EVICTED = "k8s.pod.evicted",
    K8S_POD_DELETED = "k8s.pod.deleted",
    K8S_NODE_CONDITION = "k8s.node.condition",
    K8S_DEPLOYMENT_ROLLOUT = "k8s.deployment.rollout",
    K8S_EVENT = "k8s.event",
    CNI_ADD = "cni.add",
    CNI_DEL = "cni.del",
    CNI_CHECK = "cni.check",
    CNI_FAILED = "cni.failed",
    CNI_IP_ALLOCATED = "cni.ip.allocated",
    CNI_IP_RELEASED = "cni.ip.released",
    CONTAINER_CREATED = "container.created",
    CONTAINER_STARTED = "container.started",
    CONTAINER_EXITED = "container.exited",
    CONTAINER_OOM = "container.oom",
    OTLP_LOG = "otlp.log",
    OTLP_SPAN = "otlp.span",
    TAPIO_KERNEL_LOST = "tapio.kernel.lost",
    // sources
    EBPF = "ebpf",
    SYSTEMD = "systemd",
    JOURNAL = "journal",
    K8S = "k8s",
    CNI = "cni",
    CONTAINER = "container",
    OTLP = "otlp",
    JSONL = "jsonl",
    SYNTHETIC = "synthetic",
    RECEIVER = "receiver",
    // entities
    HOST_NAME = "host.name",
    HOST_ID = "host.id",
    HOST_IP = "host.ip",
    K8S_NODE_NAME = "k8s.node.name",
    K8S_POD_UID = "k8s.pod.uid",
    K8S_POD_NAME = "k8s.pod.name",
    K8S_NAMESPACE_NAME = "k8s.namespace.name",
    K8S_CONTAINER_NAME = "k8s.container.name",
    K8S_DEPLOYMENT_NAME = "k8s.deployment.name",
    K8S_CLUSTER_NAME = "k8s.cluster.name",
    CONTAINER_ID = "container.id",
    CONTAINER_NAME = "container.name",
    CONTAINER_IMAGE_NAME = "container.image.name",
    CGROUP_ID = "cgroup.id",
    PROCESS_PID = "process.pid",
    TAPIO_PROCESS_EXEC_ID = "tapio.process.exec_id",
    TAPIO_PROCESS_TREE = "tapio.process.tree",
    SYSTEMD_UNIT = "systemd.unit",
    SYSTEMD_INVOCATION_ID = "systemd.invocation_id",
    SERVICE_NAME = "service.name",
    // attributes
    PROCESS_PARENT_PID = "process.parent_pid",
    PROCESS_EXECUTABLE_PATH = "process.executable.path",
    PROCESS_EXECUTABLE_NAME = "process.executable.name",
    PROCESS_COMMAND_ARGS = "process.command_args",
    PROCESS_EXIT_CODE = "process.exit.code",
    PROCESS_OWNER_UID = "process.owner.uid",
    PROCESS_CREATION_TIME = "process.creation.time",
    TAPIO_PROCESS_DURATION_NS = "tapio.process.duration_ns",
    TAPIO_CGROUP_PATH = "tapio.cgroup.path",
    TAPIO_SIGNAL_NUMBER = "tapio.signal.number",
    TAPIO_SIGNAL_NAME = "tapio.signal.name",
    TAPIO_SIGNAL_CODE = "tapio.signal.code",
    TAPIO_SIGNAL_SENDER_PID = "tapio.signal.sender.pid",
    TAPIO_SIGNAL_SENDER_NAME = "tapio.signal.sender.name",
    TAPIO_SIGNAL_FATAL = "tapio.signal.fatal",
    TAPIO_OOM_KILLER_PID = "tapio.oom.killer.pid",
    TAPIO_OOM_KILLER_NAME = "tapio.oom.killer.name",
    TAPIO_OOM_RSS_BYTES = "tapio.oom.rss_bytes",
    TAPIO_OOM_LIMIT_BYTES = "tapio.oom.limit_bytes",
    TAPIO_OOM_USAGE_BYTES = "tapio.oom.usage_bytes",
    TAPIO_OOM_CGROUP = "tapio.oom.cgroup",
    TAPIO_OOM_SCOPE = "tapio.oom.scope",
    TAPIO_OOM_SCORE_ADJ = "tapio.oom.score_adj",
    NETWORK_TRANSPORT = "network.transport",
    NETWORK_TYPE = "network.type",
    NETWORK_LOCAL_ADDRESS = "network.local.address",
    NETWORK_LOCAL_PORT = "network.local.port",
    NETWORK_PEER_ADDRESS = "network.peer.address",
    NETWORK_PEER_PORT = "network.peer.port",
    NETWORK_IO_DIRECTION = "network.io.direction",
    TAPIO_TCP_STATE = "tapio.tcp.state",
    TAPIO_TCP_DURATION_NS = "tapio.tcp.duration_ns",
    TAPIO_TCP_RETRANSMITS = "tapio.tcp.retransmits",
    ERROR_TYPE = "error.type",
    TAPIO_COUNT = "tapio.count",
    TAPIO_WINDOW_NS = "tapio.window_ns",
    TAPIO_SYSCALL_NUMBER = "tapio.syscall.number",
    TAPIO_SYSCALL_NAME = "tapio.syscall.name",
    TAPIO_BLOCK_DEVICE = "tapio.block.device",
    TAPIO_BLOCK_SECTOR = "tapio.block.sector",
    TAPIO_BLOCK_BYTES = "tapio.block.bytes",
    TAPIO_BLOCK_OPERATION = "tapio.block.operation",
    TAPIO_BLOCK_LATENCY_NS = "tapio.block.latency_ns",
    TAPIO_LOST_KIND = "tapio.lost.kind",
    TAPIO_LOST_REASON = "tapio.lost.reason",
    TAPIO_LOST_COUNT = "tapio.lost.count",
    TAPIO_SYSTEMD_RESULT = "tapio.systemd.result",
    TAPIO_EVENT_ID = "tapio.event.id",
    TAPIO_EXTRA = "tapio.extra",
    TAPIO_OOM_CGROUP_ID = "tapio.oom.cgroup.id",
    TAPIO_PROCESS_ARGS_TRUNCATED = "tapio.process.args_truncated",
    ENTITY_RELATION = "entity.relation",
    K8S_STATEFULSET_NAME = "k8s.statefulset.name",
    K8S_DAEMONSET_NAME = "k8s.daemonset.name",
    K8S_JOB_NAME = "k8s.job.name",
    K8S_REPLICASET_NAME = "k8s.replicaset.name",
    K8S_SERVICE_NAME = "k8s.service.name",
    K8S_VOLUME_NAME = "k8s.volume.name",
    K8S_PERSISTENTVOLUMECLAIM_NAME = "k8s.persistentvolumeclaim.name",
    K8S_POD_IP = "k8s.pod.ip",
    TAPIO_CRITICALITY = "tapio.criticality",
    TAPIO_RELATION_TYPE = "tapio.relation.type",
    TAPIO_RELATION_FROM_TYPE = "tapio.relation.from.type",
    TAPIO_RELATION_FROM_NAME = "tapio.relation.from.name",
    TAPIO_RELATION_TO_TYPE = "tapio.relation.to.type",
    TAPIO_RELATION_TO_NAME = "tapio.relation.to.name",
    TAPIO_RELATION_ENDED = "tapio.relation.ended",
}

/// Keys that name an entity: they stand under `entity` in the JSON form, and a rule may name them
/// without the `attributes.` prefix.
pub const ENTITIES: &[Name] = &[
    HOST_NAME,
    HOST_ID,
    HOST_IP,
    K8S_NODE_NAME,
    K8S_POD_UID,
    K8S_POD_NAME,
    K8S_NAMESPACE_NAME,
    K8S_CONTAINER_NAME,
    K8S_DEPLOYMENT_NAME,
    K8S_CLUSTER_NAME,
    CONTAINER_ID,
    CONTAINER_NAME,
    CONTAINER_IMAGE_NAME,
    CGROUP_ID,
    PROCESS_PID,
    TAPIO_PROCESS_EXEC_ID,
    TAPIO_PROCESS_TREE,
    SYSTEMD_UNIT,
    SYSTEMD_INVOCATION_ID,
    SERVICE_NAME,
];

/// The canonical spelling of an entity key: `node` and `systemd.unit.name` are other words for
/// `host.name` and `systemd.unit`.
#[must_use]
pub fn canonical(key: &str) -> &str {
    match key {
        "node" => "host.name",
        "systemd.unit.name" => "systemd.unit",
        other => other,
    }
}
