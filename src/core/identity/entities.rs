//! Pods, containers and units.

use std::net::IpAddr;
use std::sync::Arc;

/// The topmost known owner of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, `ReplicaSet`, or another kind.
    pub kind: Arc<str>,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// A pod, from the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid, unique for all time.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its node; empty before it is scheduled.
    pub node: Arc<str>,
    /// Its owner.
    pub workload: Option<Workload>,
    /// Services that select it.
    pub services: Vec<Arc<str>>,
    /// Its addresses, the primary one first. Empty for a pod in the network of its node.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares the network of its node: then its addresses don't identify it.
    pub host_network: bool,
    /// The label `tapio.criticality` or `app.kubernetes.io/criticality`, where there is one.
    pub criticality: Option<Arc<str>>,
    /// Whether its revision is being rolled out.
    pub rolling_out: bool,
    /// The name of its container, if it has exactly one besides the sandbox.
    pub only_container: Option<Arc<str>>,
}

/// A container. The API server and the runtime each report a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id in the runtime, 64 hex digits.
    pub id: Arc<str>,
    /// Its name in the pod; empty for the sandbox.
    pub name: Arc<str>,
    /// The name of its image.
    pub image: Arc<str>,
    /// The uid of its pod; empty without a pod.
    pub pod_uid: Arc<str>,
    /// The name of its pod, from the runtime.
    pub pod_name: Arc<str>,
    /// The namespace of its pod, from the runtime.
    pub pod_namespace: Arc<str>,
}

impl Container {
    /// Fills empty fields from another source's report.
    pub fn complete(&mut self, other: &Self) {
        let fields = [
            (&mut self.name, &other.name),
            (&mut self.image, &other.image),
            (&mut self.pod_uid, &other.pod_uid),
            (&mut self.pod_name, &other.pod_name),
            (&mut self.pod_namespace, &other.pod_namespace),
        ];
        for (mine, theirs) in fields {
            if mine.is_empty() {
                mine.clone_from(theirs);
            }
        }
    }
}

/// A run of a unit, from systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name.
    pub name: Arc<str>,
    /// The run's InvocationID, 32 hex digits; empty before the first one.
    pub invocation_id: Arc<str>,
    /// The path of its cgroup; empty while it has none.
    pub control_group: Arc<str>,
}
