//! Pods as the directory has them.

use std::sync::Arc;

use super::objects::{ContainerStatus, Pod, Text, bare_id};
use super::pods::Told;
use super::texts::Texts;
use tapio_core::identity::{self, Container, Directory, Workload};

/// A pod that is watched, as the directory was told of it.
pub(super) struct Known {
    pub(super) pod: Arc<identity::Pod>,
    /// The object's version: changes are told again after a restart, older than what is known already.
    pub(super) version: u64,
    /// The ReplicaSet it is of.
    pub(super) replicaset: Option<Text>,
    /// Its containers' ids.
    pub(super) containers: Vec<Text>,
}

impl Known {
    /// What a pod's object says.
    pub(super) fn of(pod: &Pod, version: u64, texts: &mut Texts) -> Self {
        let owner = pod.metadata.controller().filter(|o| &*o.kind == "ReplicaSet");
        Self {
            pod: Arc::new(identity_of(pod, texts)),
            version,
            replicaset: owner.map(|o| o.name.clone()),
            containers: containers_of(pod),
        }
    }

    /// Writes its containers into the directory; those it had before and has no more are gone.
    pub(super) fn write_containers(
        &self,
        pod: &Pod,
        before: Option<&Self>,
        directory: &Directory,
        now_ns: u64,
    ) {
        for (container, id) in pod.containers().flat_map(|c| ids(c).map(move |id| (c, id))) {
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

/// The ids of a container's present and last run.
fn ids(container: &ContainerStatus) -> impl Iterator<Item = &str> {
    let ends = [&container.state.terminated, &container.last_state.terminated];
    let ended = ends.into_iter().flatten().map(|end| bare_id(&end.container_id));
    [bare_id(&container.container_id)].into_iter().chain(ended).filter(|id| !id.is_empty())
}

pub(super) fn containers_of(pod: &Pod) -> Vec<Text> {
    let mut all: Vec<Text> = pod.containers().flat_map(ids).map(Text::from).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn workload((kind, name): &(Text, Text)) -> Workload {
    Workload { kind: (&**kind).into(), name: (&**name).into() }
}

/// The name that a process of this pod has for its container, where there is only one.
fn only_container(pod: &Pod, texts: &mut Texts) -> Option<Arc<str>> {
    let spec = &pod.spec;
    match &spec.containers[..] {
        [one] if spec.init_containers.is_empty() && spec.ephemeral_containers.is_empty() => {
            Some(texts.shared(&one.name))
        }
        _ => None,
    }
}

/// A pod as the directory has it.
fn identity_of(pod: &Pod, texts: &mut Texts) -> identity::Pod {
    let (meta, status) = (&pod.metadata, &pod.status);
    let ips = [&status.pod_ip].into_iter().chain(status.pod_ips.iter().map(|ip| &ip.ip));
    let mut addresses = Vec::new();
    for address in ips.filter_map(|ip| ip.parse().ok()) {
        // A pod that has ended gave its address back, and another one may have it.
        let ended = matches!(&*status.phase, "Succeeded" | "Failed");
        if !pod.spec.host_network && !ended && !addresses.contains(&address) {
            addresses.reserve_exact(1);
            addresses.push(address);
        }
    }
    identity::Pod {
        uid: (&*meta.uid).into(),
        name: (&*meta.name).into(),
        namespace: texts.shared(&meta.namespace),
        node: texts.shared(&pod.spec.node_name),
        workload: pod
            .workload
            .as_ref()
            .map(|(kind, name)| Workload { kind: texts.shared(kind), name: texts.shared(name) }),
        services: Vec::new(),
        addresses,
        host_network: pod.spec.host_network,
        criticality: meta.criticality().map(Into::into),
        rolling_out: false,
        only_container: only_container(pod, texts),
    }
}

/// A pod that is only remembered.
pub(super) fn identity_of_told(uid: &str, told: &Told) -> identity::Pod {
    identity::Pod {
        uid: uid.into(),
        name: (&*told.name).into(),
        namespace: (&*told.namespace).into(),
        workload: told.workload.as_ref().map(workload),
        ..identity::Pod::default()
    }
}
