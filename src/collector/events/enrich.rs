//! Entity keys of pods and containers, looked up in the entity directory: the same for every
//! collector.

use std::net::SocketAddr;
use std::sync::Arc;

use super::event_builder::EventBuilder;
use crate::runtime::Site;
use tapio_core::event::{Name, names};
use tapio_core::identity::{AddressOwner, CgroupNames, Container, ContainerNames, Directory, Pod};
use tapio_core::log_line::cgroup_in;

/// The entity key of a workload's name.
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

/// The container and pod of an event, as far as its collector knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    /// The container's id.
    pub(crate) container_id: Option<&'a str>,
    /// The pod's uid.
    pub(crate) pod_uid: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// The container of a cgroup. In containers inside each other it is the innermost one that
    /// this node's runtime or API server knows, else the outermost, which is on this node in any
    /// case.
    pub(crate) fn of(names: &'a CgroupNames, directory: &Directory) -> Self {
        let is_known = |level: &&ContainerNames| {
            level.container_id.as_deref().is_some_and(|id| directory.container(id).is_some())
                || level.pod_uid.as_deref().is_some_and(|uid| directory.pod(uid).is_some())
        };
        match names.inner.iter().rev().find(is_known) {
            Some(level) => Self {
                container_id: level.container_id.as_deref(),
                pod_uid: level.pod_uid.as_deref(),
            },
            None => Self {
                container_id: names.container_id.as_deref(),
                pod_uid: names.pod_uid.as_deref(),
            },
        }
    }
}

/// Whether the entity directory had all names of a [`Subject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// All names were found, or there was none to look up.
    Complete,
    /// The pod or the container's name is missing (so far).
    Incomplete,
}

impl EventBuilder {
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

    /// Adds the entity keys of a connection's peer, if its address belongs to one pod or one
    /// service, or a unit was reached there before. Returns the unit.
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

    /// Adds the entity keys of a container and its pod that the directory has, and at least those
    /// of the subject itself. Never waits.
    pub(crate) fn enrich(&mut self, subject: Subject<'_>, directory: &Directory) -> Resolution {
        let before = self.len();
        let resolution = self.push_subject(subject, directory);
        self.enriched = before..self.len();
        resolution
    }

    /// Repeats [`EventBuilder::enrich`] for the same event: the directory's present names replace
    /// the earlier ones.
    pub(crate) fn re_enrich(&mut self, subject: Subject<'_>, directory: &Directory) -> Resolution {
        self.replace_enriched(|event| event.push_subject(subject, directory))
    }

    /// Adds the entity keys of the cgroup that a line of the kernel's log names. The line has its
    /// path from the kernel's root, whatever namespace this process is in.
    pub(crate) fn cgroup_of_kernel_line(&mut self, message: &str, site: &Site) {
        let Some(path) = cgroup_in(message) else { return };
        let cgroup = CgroupNames::parse_below(&site.cgroup_base, path);
        self.enrich(Subject::of(&cgroup, &site.directory), &site.directory);
        if let Some(unit) = &cgroup.unit {
            self.text(names::SYSTEMD_UNIT, unit);
        }
    }

    fn push_subject(&mut self, subject: Subject<'_>, directory: &Directory) -> Resolution {
        let container = subject.container_id.and_then(|id| directory.container(id));
        match (&container, subject.container_id) {
            (Some(container), _) => self.container(container),
            (None, Some(id)) => self.text(names::CONTAINER_ID, id),
            (None, None) => {}
        }
        let has_all_of_container = container.is_some() || subject.container_id.is_none();
        let of_container = container.as_ref().map(|c| &*c.pod_uid).filter(|uid| !uid.is_empty());
        let Some(uid) = subject.pod_uid.or(of_container) else {
            // A container without a pod has no more names.
            return Resolution::complete_if(has_all_of_container);
        };
        if let Some(pod) = directory.pod(uid) {
            self.pod(&pod);
            return Resolution::complete_if(has_all_of_container);
        }
        self.text(names::K8S_POD_UID, uid);
        // The container runtime has a pod's names even if the API server doesn't answer.
        match &container {
            Some(container) if !container.pod_name.is_empty() => {
                self.text(names::K8S_POD_NAME, &container.pod_name);
                self.text(names::K8S_NAMESPACE_NAME, &container.pod_namespace);
                Resolution::Complete
            }
            _ => Resolution::Incomplete,
        }
    }

    /// Adds the name of a pod's only container, after [`EventBuilder::enrich`] didn't find the
    /// container. The API reports a container's id a second or two after its start, when a
    /// short-lived one has already ended. Only for events that can't come from the pod's sandbox,
    /// whose id looks the same.
    pub(crate) fn only_container(
        &mut self,
        subject: Subject<'_>,
        directory: &Directory,
    ) -> Resolution {
        let pod = subject.pod_uid.and_then(|uid| directory.pod(uid));
        let is_known = subject.container_id.is_none_or(|id| directory.container(id).is_some());
        match pod.as_ref().and_then(|pod| pod.only_container.as_ref()) {
            Some(name) if !is_known => {
                self.text(names::K8S_CONTAINER_NAME, name);
                Resolution::Complete
            }
            _ => Resolution::Incomplete,
        }
    }
}

impl Resolution {
    fn complete_if(has_all: bool) -> Self {
        if has_all { Self::Complete } else { Self::Incomplete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::{Field, Value};
    use tapio_core::identity::Workload;

    fn enriched(
        subject: Subject<'_>,
        directory: &Directory,
    ) -> (Resolution, Vec<(String, String)>) {
        let mut event = EventBuilder::default();
        let resolution = event.enrich(subject, directory);
        event.end_entities();
        let text = |value: Value<'_>| match value {
            Value::Str(s) => s.to_owned(),
            other => format!("{other:?}"),
        };
        let field = |f: &Field<'_>| (f.key.to_string(), text(f.value));
        (resolution, event.fields(|fields| fields.iter().map(field).collect()))
    }

    #[test]
    fn enrichment_finds_pod_of_container_and_reports_missing_names() {
        let directory = Directory::default();
        let subject = Subject { container_id: Some("c1"), pod_uid: Some("u1") };
        let keys = |fields: Vec<(String, String)>| -> Vec<String> {
            fields.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
        };
        let (resolution, fields) = enriched(subject, &directory);
        assert_eq!(resolution, Resolution::Incomplete);
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
        assert_eq!(
            enriched(subject, &directory).0,
            Resolution::Incomplete,
            "the container's name is missing"
        );
        let container = Container { id: "c1".into(), name: "app".into(), ..Container::default() };
        directory.container_seen(container, 1);
        let (resolution, fields) = enriched(subject, &directory);
        assert_eq!(resolution, Resolution::Complete);
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
    fn unknown_container_gets_name_of_pods_only_container() {
        let directory = Directory::default();
        let subject = Subject { container_id: Some("c1"), pod_uid: Some("u1") };
        let mut event = EventBuilder::default();
        assert_eq!(event.only_container(subject, &directory), Resolution::Incomplete);
        let only = Pod { uid: "u1".into(), only_container: Some("app".into()), ..Pod::default() };
        directory.pod_seen(only, 1);
        assert_eq!(event.only_container(subject, &directory), Resolution::Complete);
        let name = event.fields(|f| (f[0].key, f.len()));
        assert_eq!(name, (names::K8S_CONTAINER_NAME, 1));
        directory.container_seen(Container { id: "c1".into(), ..Container::default() }, 1);
        assert_eq!(
            event.only_container(subject, &directory),
            Resolution::Incomplete,
            "it is another one"
        );
    }

    #[test]
    fn innermost_container_that_the_node_knows_is_the_subject() {
        let (outer, inner) = ("3".repeat(64), "a".repeat(64));
        let uid = "0af76519-16cd-43dd-8448-eb211c80319c";
        let names = CgroupNames::parse(&format!("/docker/{outer}/kubepods/pod{uid}/{inner}"));
        let directory = Directory::default();
        let is_outer = Subject { container_id: Some(&outer), pod_uid: None };
        assert_eq!(Subject::of(&names, &directory), is_outer);
        let id: Arc<str> = inner.as_str().into();
        directory.container_seen(Container { id, ..Container::default() }, 1);
        let is_inner = Subject { container_id: Some(&inner), pod_uid: Some(uid) };
        assert_eq!(Subject::of(&names, &directory), is_inner);
    }

    #[test]
    fn line_of_the_kernel_names_the_container_inside_the_node() {
        let (outer, inner) = ("3".repeat(64), "a".repeat(64));
        let path =
            format!("/docker/{outer}/kubepods/pod0af76519-16cd-43dd-8448-eb211c80319c/{inner}");
        let line = format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,\
            mems_allowed=0,oom_memcg={path},task_memcg={path},task=hog,pid=966,uid=0"
        );
        let mut site = Site::new("n", 1);
        let id = |site: &Site| {
            let mut event = EventBuilder::default();
            event.cgroup_of_kernel_line(&line, site);
            event.end_entities();
            event.fields(|fields| format!("{:?}", fields.first().map(|f| f.value)))
        };
        assert!(id(&site).contains(&outer), "{}", id(&site));
        site.cgroup_base = format!("/docker/{outer}").into();
        assert!(id(&site).contains(&inner), "{}", id(&site));
    }

    #[test]
    fn container_runtime_alone_names_pod() {
        let directory = Directory::default();
        let container = Container {
            id: "c1".into(),
            pod_uid: "u1".into(),
            pod_name: "web-0".into(),
            pod_namespace: "shop".into(),
            ..Container::default()
        };
        directory.container_seen(container, 1);
        let (resolution, fields) =
            enriched(Subject { container_id: Some("c1"), pod_uid: None }, &directory);
        assert_eq!((resolution, fields.len()), (Resolution::Complete, 4));
        assert_eq!(enriched(Subject::default(), &directory).0, Resolution::Complete);
    }
}
