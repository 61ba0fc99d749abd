//! The entity keys of pods, containers and units, the same from every collector.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::events::event_builder::Draft;
use tapio_core::event::{Name, names};
use tapio_core::identity::{AddressOwner, Container, Directory, Pod};

/// The key under which a workload's name stands.
pub(crate) fn workload_key(kind: &str) -> Option<Name> {
    Some(match kind {
        "Deployment" => names::K8S_DEPLOYMENT_NAME,
        "StatefulSet" => names::K8S_STATEFULSET_NAME,
        "DaemonSet" => names::K8S_DAEMONSET_NAME,
        "Job" => names::K8S_JOB_NAME,
        "ReplicaSet" => names::K8S_REPLICASET_NAME,
        "CronJob" => names::K8S_CRONJOB_NAME,
        _ => return None,
    })
}

/// Whose an event is, as far as its collector knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known<'a> {
    /// The container's id.
    pub(crate) container_id: Option<&'a str>,
    /// The pod's uid.
    pub(crate) pod_uid: Option<&'a str>,
}

/// How much of it could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Everything, or nothing was asked for.
    All,
    /// The pod or the container's name isn't known (yet).
    Missing,
}

impl Draft {
    /// Adds the entity keys of a pod.
    pub(crate) fn pod(&mut self, pod: &Pod) {
        self.text(names::K8S_POD_UID, &pod.uid);
        self.text(names::K8S_POD_NAME, &pod.name);
        self.text(names::K8S_NAMESPACE_NAME, &pod.namespace);
        if let Some(workload) = &pod.workload
            && let Some(key) = workload_key(&workload.kind)
        {
            self.text(key, &workload.name);
        }
    }

    /// Adds the entity keys of a container: its id, its name in the pod, its image.
    pub(crate) fn container(&mut self, container: &Container) {
        self.text(names::CONTAINER_ID, &container.id);
        self.text(names::K8S_CONTAINER_NAME, &container.name);
        self.text(names::CONTAINER_IMAGE_NAME, &container.image);
    }

    /// Adds who is at the other end of a connection, where the address is one pod's or one service's, or a unit was
    /// reached there before. Returns the unit.
    pub(crate) fn peer(&mut self, peer: SocketAddr, directory: &Directory) -> Option<Arc<str>> {
        // Every network namespace has a loopback of its own.
        if peer.ip().is_loopback() {
            return None;
        }
        match directory.address_owner(peer.ip()) {
            Some(AddressOwner::Pod(uid)) => {
                self.text(names::TAPIO_PEER_POD_UID, &uid);
                if let Some(pod) = directory.pod(&uid) {
                    self.text(names::TAPIO_PEER_POD_NAME, &pod.name);
                    self.text(names::TAPIO_PEER_NAMESPACE_NAME, &pod.namespace);
                }
            }
            Some(AddressOwner::Service(namespace, name)) => {
                self.text(names::TAPIO_PEER_NAMESPACE_NAME, &namespace);
                self.text(names::TAPIO_PEER_SERVICE_NAME, &name);
            }
            None => {
                let unit = directory.unit_at(peer)?;
                self.text(names::TAPIO_PEER_SYSTEMD_UNIT, &unit);
                return Some(unit);
            }
        }
        None
    }

    /// Adds the entity keys of a container and its pod, as far as the directory knows them; at the least
    /// what was given. Never waits.
    pub(crate) fn whose(&mut self, known: Known<'_>, directory: &Directory) -> Found {
        let before = self.len();
        let found = self.push_whose(known, directory);
        self.whose = before..self.len();
        found
    }

    /// The same for an event that was told whose it is before: what is known now takes its place.
    pub(crate) fn whose_now(&mut self, known: Known<'_>, directory: &Directory) -> Found {
        self.replace_whose(|draft| draft.push_whose(known, directory))
    }

    fn push_whose(&mut self, known: Known<'_>, directory: &Directory) -> Found {
        let container = known.container_id.and_then(|id| directory.container(id));
        match (&container, known.container_id) {
            (Some(container), _) => self.container(container),
            (None, Some(id)) => self.text(names::CONTAINER_ID, id),
            (None, None) => {}
        }
        let of_container = container.as_ref().map(|c| &*c.pod_uid).filter(|uid| !uid.is_empty());
        let Some(uid) = known.pod_uid.or(of_container) else {
            // A container without a pod has nothing more to be found.
            return if container.is_some() { Found::All } else { missing(known.container_id) };
        };
        if let Some(pod) = directory.pod(uid) {
            self.pod(&pod);
            return missing(known.container_id.filter(|_| container.is_none()));
        }
        self.text(names::K8S_POD_UID, uid);
        // The runtime knows a pod's names even where the API server doesn't answer.
        match &container {
            Some(container) if !container.pod_name.is_empty() => {
                self.text(names::K8S_POD_NAME, &container.pod_name);
                self.text(names::K8S_NAMESPACE_NAME, &container.pod_namespace);
                Found::All
            }
            _ => Found::Missing,
        }
    }

    /// Adds the name of the container of a pod that has only one, after [`Draft::whose`] didn't know the container. The API
    /// tells a container's id a second or two after its start, and a short-lived one is gone by then. Only for what can't
    /// happen in the pod's sandbox, whose id looks alike.
    pub(crate) fn only_container(&mut self, known: Known<'_>, directory: &Directory) -> Found {
        let pod = known.pod_uid.and_then(|uid| directory.pod(uid));
        let is_known = known.container_id.is_none_or(|id| directory.container(id).is_some());
        match pod.as_ref().and_then(|pod| pod.only_container.as_ref()) {
            Some(name) if !is_known => {
                self.text(names::K8S_CONTAINER_NAME, name);
                Found::All
            }
            _ => Found::Missing,
        }
    }
}

fn missing(id: Option<&str>) -> Found {
    if id.is_some() { Found::Missing } else { Found::All }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Field, Value};
    use tapio_core::identity::Workload;

    fn told(known: Known<'_>, directory: &Directory) -> (Found, Vec<(String, String)>) {
        let mut draft = Draft::default();
        let found = draft.whose(known, directory);
        draft.entities_end();
        let text = |value: Value<'_>| match value {
            Value::Str(s) => s.to_owned(),
            other => format!("{other:?}"),
        };
        let told = |f: &Field<'_>| (f.key.to_string(), text(f.value));
        (found, draft.fields(|fields| fields.iter().map(told).collect()))
    }

    #[test]
    fn a_containers_pod_is_found_and_what_is_missing_is_said() {
        let directory = Directory::default();
        let known = Known { container_id: Some("c1"), pod_uid: Some("u1") };
        let keys = |fields: Vec<(String, String)>| -> Vec<String> {
            fields.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
        };
        let (found, fields) = told(known, &directory);
        assert_eq!(found, Found::Missing);
        assert_eq!(keys(fields), ["container.id=c1", "k8s.pod.uid=u1"]);
        directory.pod_seen(
            Pod {
                uid: "u1".into(),
                name: "web-0".into(),
                namespace: "shop".into(),
                workload: Some(Workload { kind: "StatefulSet".into(), name: "web".into() }),
                ..Pod::default()
            },
            1,
        );
        assert_eq!(told(known, &directory).0, Found::Missing, "the container's name isn't known");
        let container = Container { id: "c1".into(), name: "app".into(), ..Container::default() };
        directory.container_seen(container, 1);
        let (found, fields) = told(known, &directory);
        assert_eq!(found, Found::All);
        assert_eq!(
            keys(fields),
            [
                "container.id=c1",
                "k8s.container.name=app",
                "k8s.pod.uid=u1",
                "k8s.pod.name=web-0",
                "k8s.namespace.name=shop",
                "k8s.statefulset.name=web"
            ]
        );
    }

    #[test]
    fn a_container_nobody_knows_yet_is_its_pods_only_one() {
        let directory = Directory::default();
        let known = Known { container_id: Some("c1"), pod_uid: Some("u1") };
        let mut draft = Draft::default();
        assert_eq!(draft.only_container(known, &directory), Found::Missing);
        let only = Pod { uid: "u1".into(), only_container: Some("app".into()), ..Pod::default() };
        directory.pod_seen(only, 1);
        assert_eq!(draft.only_container(known, &directory), Found::All);
        let name = draft.fields(|f| (f[0].key, f.len()));
        assert_eq!(name, (names::K8S_CONTAINER_NAME, 1));
        directory.container_seen(Container { id: "c1".into(), ..Container::default() }, 1);
        assert_eq!(draft.only_container(known, &directory), Found::Missing, "it is another one");
    }

    #[test]
    fn the_runtime_alone_names_a_pod() {
        let directory = Directory::default();
        let container = Container {
            id: "c1".into(),
            pod_uid: "u1".into(),
            pod_name: "web-0".into(),
            pod_namespace: "shop".into(),
            ..Container::default()
        };
        directory.container_seen(container, 1);
        let (found, fields) = told(Known { container_id: Some("c1"), pod_uid: None }, &directory);
        assert_eq!((found, fields.len()), (Found::All, 4));
        assert_eq!(told(Known::default(), &directory).0, Found::All);
    }
}
