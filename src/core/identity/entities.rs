//! The facts about a pod, a container, a unit.

use std::net::IpAddr;
use std::sync::Arc;

/// What owns a pod: the topmost owner that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, `ReplicaSet`, or another kind.
    pub kind: Arc<str>,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// A pod, as the API server tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid: what identifies it for ever.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The node it is scheduled on; empty before.
    pub node: Arc<str>,
    /// What owns it.
    pub workload: Option<Workload>,
    /// Services that select it.
    pub services: Vec<Arc<str>>,
    /// Its addresses, the first one first. Empty for a pod in its node's network.
    pub addresses: Vec<IpAddr>,
    /// Whether it shares its node's network: its addresses say nothing then.
    pub host_network: bool,
    /// The label `tapio.criticality` or `app.kubernetes.io/criticality`, where there is one.
    pub criticality: Option<Arc<str>>,
    /// Its revision is being rolled out.
    pub rolling_out: bool,
    /// Its container's name, where it has one besides the sandbox.
    pub only_container: Option<Arc<str>>,
}

/// A container. The API server and the runtime each know a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id at the runtime, 64 hex digits.
    pub id: Arc<str>,
    /// Its name in the pod; empty for the sandbox.
    pub name: Arc<str>,
    /// The image's name.
    pub image: Arc<str>,
    /// The pod; empty for a container without one.
    pub pod_uid: Arc<str>,
    /// The pod's name as the runtime knows it.
    pub pod_name: Arc<str>,
    /// The pod's namespace as the runtime knows it.
    pub pod_namespace: Arc<str>,
}

impl Container {
    /// Takes over what another source says where this one says nothing.
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

/// A unit's run, as systemd tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name.
    pub name: Arc<str>,
    /// The run's InvocationID, 32 hex digits; empty before the first one.
    pub invocation_id: Arc<str>,
    /// Its cgroup's path; empty while it has none.
    pub control_group: Arc<str>,
}
