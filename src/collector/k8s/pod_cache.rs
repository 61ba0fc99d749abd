//! Pods as the entity directory has them.

use std::sync::Arc;

use super::interner::Interner;
use super::objects::{ContainerStatus, Pod, Text, bare_id};
use super::pod_lifecycle::PodLifecycle;
use tapio_core::identity::{self, Container, Directory, Workload};

/// A watched pod, as written into the directory.
pub(super) struct CachedPod {
    pub(super) pod: Arc<identity::Pod>,
    /// The object's version. After a restart the watch repeats changes older than this one.
    pub(super) version: u64,
    /// The name of its ReplicaSet.
    pub(super) replicaset: Option<Text>,
    /// The ids of its containers.
    pub(super) containers: Vec<Text>,
}

impl CachedPod {
    pub(super) fn new(pod: &Pod, version: u64, interner: &mut Interner) -> Self {
        let owner = pod.metadata.controller().filter(|o| &*o.kind == "ReplicaSet");
        Self {
            pod: Arc::new(entry_of(pod, interner)),
            version,
            replicaset: owner.map(|o| o.name.clone()),
            containers: container_ids(pod),
        }
    }

    /// Writes its containers into the directory and removes those it no longer has.
    pub(super) fn write_containers(
        &self,
        pod: &Pod,
        before: Option<&Self>,
        directory: &Directory,
        now_ns: u64,
    ) {
        for (container, id) in pod.containers().flat_map(|c| run_ids(c).map(move |id| (c, id))) {
            let container = Container {
                id: id.into(),
                name: (&*container.name).into(),
                image: (&*container.image).into(),
                pod_uid: Arc::clone(&self.pod.uid),
                ..Container::default()
            };
            directory.container_seen(container, now_ns);
        }
        for id in before.into_iter().flat_map(|b| &b.containers) {
            if !self.containers.contains(id) {
                directory.container_gone(id, now_ns);
            }
        }
    }
}

/// The ids of a container's current and last run.
fn run_ids(container: &ContainerStatus) -> impl Iterator<Item = &str> {
    let ends = [&container.state.terminated, &container.last_state.terminated];
    let ended = ends.into_iter().flatten().map(|end| bare_id(&end.container_id));
    [bare_id(&container.container_id)].into_iter().chain(ended).filter(|id| !id.is_empty())
}

fn container_ids(pod: &Pod) -> Vec<Text> {
    let mut all: Vec<Text> = pod.containers().flat_map(run_ids).map(Text::from).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The container's name, where the pod has only one: it names every process of the pod.
fn only_container(pod: &Pod, interner: &mut Interner) -> Option<Arc<str>> {
    let spec = &pod.spec;
    match &spec.containers[..] {
        [one] if spec.init_containers.is_empty() && spec.ephemeral_containers.is_empty() => {
            Some(interner.intern(&one.name))
        }
        _ => None,
    }
}

/// The directory's entry of a pod.
fn entry_of(pod: &Pod, interner: &mut Interner) -> identity::Pod {
    let (meta, status) = (&pod.metadata, &pod.status);
    let ips = [&status.pod_ip].into_iter().chain(status.pod_ips.iter().map(|ip| &ip.ip));
    let mut addresses = Vec::new();
    for address in ips.filter_map(|ip| ip.parse().ok()) {
        // A pod that has ended has released its address, and another one may have it.
        let ended = matches!(&*status.phase, "Succeeded" | "Failed");
        if !pod.spec.host_network && !ended && !addresses.contains(&address) {
            addresses.reserve_exact(1);
            addresses.push(address);
        }
    }
    identity::Pod {
        uid: (&*meta.uid).into(),
        name: (&*meta.name).into(),
        namespace: interner.intern(&meta.namespace),
        node: interner.intern(&pod.spec.node_name),
        workload: pod.workload.as_ref().map(|(kind, name)| Workload {
            kind: interner.intern(kind),
            name: interner.intern(name),
        }),
        services: Vec::new(),
        addresses,
        host_network: pod.spec.host_network,
        criticality: meta.criticality().map(Into::into),
        rolling_out: false,
        only_container: only_container(pod, interner),
    }
}

/// The identity of a pod of which only the checkpoint is left.
fn identity_from_checkpoint(uid: &str, lifecycle: &PodLifecycle) -> identity::Pod {
    let workload = lifecycle.workload.as_ref();
    identity::Pod {
        uid: uid.into(),
        name: (&*lifecycle.name).into(),
        namespace: (&*lifecycle.namespace).into(),
        workload: workload
            .map(|(kind, name)| Workload { kind: (&**kind).into(), name: (&**name).into() }),
        ..identity::Pod::default()
    }
}

/// The identity of a cached pod, or of one of which only the checkpoint is left.
pub(super) fn identity_of(
    uid: &str,
    cached: Option<&CachedPod>,
    lifecycle: &PodLifecycle,
) -> Arc<identity::Pod> {
    match cached {
        Some(cached) => Arc::clone(&cached.pod),
        None => Arc::new(identity_from_checkpoint(uid, lifecycle)),
    }
}
