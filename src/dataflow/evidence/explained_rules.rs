//! Built-in rules whose stories explain those of others where no fact joins their entities: a full
//! disk and the evictions that follow have nothing in common but the node.

/// The place that two stories of such rules have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Nothing: the cause is the same for the whole cluster.
    Cluster,
    /// The node.
    Node,
    /// The namespace.
    Namespace,
}

/// Rules, and the rules that each explains.
const EXPLAINED: &[(&str, Scope, &[&str])] = &[
    ("admission-refused", Scope::Namespace, &["rollout-failure", "job-failure"]),
    ("api-server-refused", Scope::Node, &["node-lost", "node-not-ready"]),
    ("api-server-unreachable", Scope::Node, &["node-lost", "node-not-ready"]),
    ("buffer-io-errors", Scope::Node, &["filesystem-error", "read-only-remount"]),
    ("certificate-expired", Scope::Node, &["kubelet-restart", "node-not-ready"]),
    ("clock-jump", Scope::Node, &["certificate-expired"]),
    ("cni-address-exhaustion", Scope::Node, &["sandbox-creation-failure"]),
    ("cni-not-ready", Scope::Node, &["node-not-ready", "sandbox-creation-failure"]),
    ("conntrack-full", Scope::Node, &["connect-timeouts", "dns-resolution-failures"]),
    (
        "device-timeout",
        Scope::Node,
        &[
            "buffer-io-errors",
            "disk-io-errors",
            "filesystem-error",
            "hung-task",
            "read-only-remount",
            "slow-disk",
        ],
    ),
    ("disk-full", Scope::Node, &["node-disk-pressure", "pod-eviction"]),
    (
        "disk-io-errors",
        Scope::Node,
        &["buffer-io-errors", "filesystem-error", "hung-task", "read-only-remount"],
    ),
    ("dns-upstream-failure", Scope::Cluster, &["dns-resolution-failures"]),
    ("etcd-no-space", Scope::Cluster, &["api-server-refused", "api-server-unreachable"]),
    (
        "etcd-peer-lost",
        Scope::Cluster,
        &["api-server-refused", "api-server-unreachable", "etcd-slow"],
    ),
    ("file-max", Scope::Node, &["fd-exhaustion"]),
    ("filesystem-error", Scope::Node, &["read-only-remount"]),
    ("fork-bomb", Scope::Node, &["node-pid-pressure", "pod-eviction"]),
    // A runtime that waits for a disk or a mount doesn't answer.
    ("hung-task", Scope::Node, &["node-lost", "node-not-ready", "runtime-unresponsive"]),
    ("kubelet-restart", Scope::Node, &["node-lost", "node-not-ready"]),
    ("network-device-leak", Scope::Node, &["hung-task", "pod-stuck-terminating"]),
    ("network-storage-lost", Scope::Node, &["filesystem-error", "hung-task", "read-only-remount"]),
    ("neighbour-table-full", Scope::Node, &["connect-timeouts"]),
    ("network-interface-flap", Scope::Node, &["connect-timeouts", "node-lost", "node-not-ready"]),
    (
        "nfs-not-responding",
        Scope::Node,
        &["hung-task", "volume-mount-failure", "volume-server-failure", "volume-wait"],
    ),
    ("node-disk-pressure", Scope::Node, &["node-lost", "node-not-ready", "pod-eviction"]),
    ("node-lost", Scope::Node, &["pod-eviction", "taint-eviction"]),
    (
        "node-memory-pressure",
        Scope::Node,
        &["node-lost", "node-not-ready", "node-oom", "pod-eviction"],
    ),
    ("node-not-ready", Scope::Node, &["node-lost", "pod-eviction", "taint-eviction"]),
    ("node-pid-pressure", Scope::Node, &["node-lost", "node-not-ready", "pod-eviction"]),
    (
        "provisioning-failure",
        Scope::Namespace,
        &["pod-stuck-pending", "pod-unschedulable", "volume-mount-failure"],
    ),
    ("quota-exceeded", Scope::Namespace, &["rollout-failure"]),
    (
        "runtime-unresponsive",
        Scope::Node,
        &["node-lost", "node-not-ready", "sandbox-creation-failure"],
    ),
    ("slow-disk", Scope::Node, &["etcd-slow", "hung-task"]),
    ("transmit-hang", Scope::Node, &["network-interface-flap", "node-not-ready"]),
];

/// Rules of which several stories at one place have one cause, which their events don't name.
const ALIKE: &[(&str, Scope)] = &[("volume-wait", Scope::Namespace)];

/// Where stories of this rule have one cause; `None` where each has its own.
pub(super) fn alike(rule: &str) -> Option<Scope> {
    ALIKE.iter().find(|(name, _)| *name == rule).map(|(_, scope)| *scope)
}

/// Where a story of the first rule explains one of the second; `None` where it doesn't.
pub(super) fn explains(cause: &str, effect: &str) -> Option<Scope> {
    let row = EXPLAINED.iter().find(|(rule, ..)| *rule == cause)?;
    row.2.contains(&effect).then_some(row.1)
}

/// Whether a rule explains another one, or is explained by one, or its stories may have one cause.
pub(super) fn is_known(rule: &str) -> bool {
    alike(rule).is_some()
        || EXPLAINED.iter().any(|(cause, _, effects)| *cause == rule || effects.contains(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rules_exist_and_none_explains_itself() {
        for (cause, _, effects) in EXPLAINED {
            for rule in effects.iter().chain([cause]) {
                let path = format!("{}/../../rules/{rule}.yaml", env!("CARGO_MANIFEST_DIR"));
                assert!(std::path::Path::new(&path).is_file(), "no rule {rule}");
                assert!(rule == cause || explains(rule, cause).is_none(), "{rule} and {cause}");
            }
            assert!(explains(cause, cause).is_none());
        }
        for (rule, _) in ALIKE {
            let path = format!("{}/../../rules/{rule}.yaml", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&path).is_file(), "no rule {rule}");
        }
    }
}
