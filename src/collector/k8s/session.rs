//! Applies feed messages to the entity directory and the state machines, and emits the new facts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::addresses::{DirectoryWriter, Selection, ServiceAddresses};
use super::checkpoint::{Checkpoint, version_number};
use super::conditions::RolloutPhase;
use super::config::Config;
use super::events::{EventCounts, EventScope, KubeletStart};
use super::interner::Interner;
use super::lists::Lists;
use super::messages::{Resource, WatchEvent};
use super::objects::{Deployment, Endpoints, Event, Node, ObjectMeta, Pod, Service, Text};
use super::pod_cache::{CachedPod, identity_of};
use super::pod_lifecycle::{PodFact, Transition};
use super::to_event::EventWriter;
use crate::runtime::StatusReport;
use tapio_core::identity::Directory;
use tapio_core::ring::Sink;

/// The state of one run.
pub(super) struct Session {
    config: Config,
    /// The node's name in the cluster.
    node: String,
    directory: Arc<Directory>,
    writer: EventWriter,
    pub(super) checkpoint: Checkpoint,
    /// Whether `checkpoint` changed since the last one was taken.
    pub(super) changed: bool,
    started_ns: u64,
    pods: HashMap<Text, CachedPod>,
    addresses: ServiceAddresses,
    interner: Interner,
    counts: EventCounts,
    kubelet_start: KubeletStart,
    /// ReplicaSets that are being rolled out: namespace and name, by the Deployment's uid.
    rolling: HashMap<Text, (Text, Text)>,
    lists: Lists,
    /// A list's Events up to this version were emitted before.
    emitted_events: Option<u64>,
    foreign_events: u64,
}

/// Where and when events are emitted.
pub(super) struct Output<'a> {
    /// The agent's clock, ns since the Unix epoch.
    pub(super) now_ns: u64,
    pub(super) sink: &'a mut Sink,
}

impl Session {
    pub(super) fn new(
        config: &Config,
        node: &str,
        directory: Arc<Directory>,
        writer: EventWriter,
        checkpoint: Checkpoint,
        started_ns: u64,
    ) -> Self {
        Self {
            config: config.clone(),
            node: node.to_owned(),
            directory,
            writer,
            checkpoint,
            changed: false,
            started_ns,
            pods: HashMap::new(),
            addresses: ServiceAddresses::default(),
            interner: Interner::default(),
            counts: EventCounts::default(),
            kubelet_start: KubeletStart::default(),
            rolling: HashMap::new(),
            lists: Lists::default(),
            emitted_events: None,
            foreign_events: 0,
        }
    }

    /// Whether the agent has no earlier position of the resource.
    fn is_first_start(&self, resource: Resource) -> bool {
        self.checkpoint.position(resource).is_none()
    }

    fn advance(&mut self, resource: Resource, version: &str) {
        // During a list the position stays; the end of the list is the next one.
        if !self.lists.is_in_progress(resource) {
            self.changed |= self.checkpoint.set_position(resource, version);
        }
    }

    /// Ends a list. Returns the uids that it contained.
    fn end_list(&mut self, resource: Resource, version: &str) -> HashSet<Text> {
        let listed = self.lists.end(resource);
        self.advance(resource, version);
        self.changed = true;
        listed
    }

    pub(super) fn pod(&mut self, event: WatchEvent<Pod>, out: &mut Output<'_>) {
        let resource = Resource::Pods;
        match event {
            WatchEvent::ListBegin => self.lists.begin(resource),
            WatchEvent::Identify(pod) => {
                self.cache_pod(&pod, out.now_ns);
                self.emit_relations(&pod.metadata.uid, out);
            }
            WatchEvent::Apply(pod) => self.apply_pod(&pod, out),
            WatchEvent::Delete(pod) => {
                self.cache_pod(&pod, out.now_ns);
                if *pod.spec.node_name == *self.node {
                    self.emit_facts(&pod, out);
                }
                self.remove_pod(&pod.metadata.uid, out);
                self.advance(resource, &pod.metadata.resource_version);
            }
            WatchEvent::ListEnd(version) => {
                let known = self.checkpoint.pods.keys().chain(self.pods.keys());
                let known: HashSet<Text> = known.cloned().collect();
                let listed = self.end_list(resource, &version);
                for uid in known.difference(&listed) {
                    self.remove_pod(uid, out);
                }
            }
            WatchEvent::Bookmark(version) => self.advance(resource, &version),
        }
    }

    fn apply_pod(&mut self, pod: &Pod, out: &mut Output<'_>) {
        let (resource, uid) = (Resource::Pods, &pod.metadata.uid);
        self.lists.add(resource, uid);
        let is_new = self.cache_pod(pod, out.now_ns);
        if *pod.spec.node_name == *self.node {
            let was_emitted = self.checkpoint.pods.contains_key(uid);
            self.emit_facts(pod, out);
            if is_new && (was_emitted || self.is_first_start(resource)) {
                self.emit_relations(uid, out);
            }
        }
        self.advance(resource, &pod.metadata.resource_version);
    }

    /// Writes a pod and its containers into the directory. Returns whether it is new.
    fn cache_pod(&mut self, pod: &Pod, now_ns: u64) -> bool {
        let uid = &pod.metadata.uid;
        let version = version_number(&pod.metadata.resource_version).unwrap_or(u64::MAX);
        let before = self.pods.get(uid);
        if before.is_some_and(|cached| cached.version > version) {
            return false;
        }
        let is_new = before.is_none();
        let mut cached = CachedPod::new(pod, version, &mut self.interner);
        cached.write_containers(pod, before, &self.directory, now_ns);
        self.complete(&mut cached);
        self.directory.pod_seen(Arc::clone(&cached.pod), now_ns);
        self.pods.insert(uid.clone(), cached);
        is_new
    }

    /// Adds the parts of a pod's identity that come from other objects.
    fn complete(&self, cached: &mut CachedPod) {
        let services = self.addresses.services_of(&cached.pod.uid);
        let rolling_out = cached.replicaset.as_ref().is_some_and(|rs| {
            self.rolling.values().any(|(ns, name)| **ns == *cached.pod.namespace && name == rs)
        });
        let pod = Arc::make_mut(&mut cached.pod);
        (pod.services, pod.rolling_out) = (services, rolling_out);
    }

    /// Completes a cached pod again, after another object changed.
    fn refresh(&mut self, uid: &str, now_ns: u64) {
        let Some(mut cached) = self.pods.remove(uid) else { return };
        let before = (cached.pod.services.len(), cached.pod.rolling_out);
        self.complete(&mut cached);
        if before != (cached.pod.services.len(), cached.pod.rolling_out) {
            self.directory.pod_seen(Arc::clone(&cached.pod), now_ns);
        }
        self.pods.insert(uid.into(), cached);
    }

    /// Emits the new facts of a pod's lifecycle.
    fn emit_facts(&mut self, pod: &Pod, out: &mut Output<'_>) {
        let uid = &pod.metadata.uid;
        let lifecycle = self.checkpoint.pods.entry(uid.clone()).or_default();
        let mut transitions = Vec::new();
        lifecycle.step(pod, &mut transitions);
        if transitions.is_empty() {
            return;
        }
        self.changed = true;
        let is_first = self.is_first_start(Resource::Pods);
        let Some(identity) = self.pods.get(uid).map(|cached| Arc::clone(&cached.pod)) else {
            return;
        };
        for transition in transitions {
            if !(is_first && is_over(&transition, self.started_ns)) {
                self.writer.pod(&identity, &transition, out.now_ns, out.sink);
            }
        }
    }

    fn remove_pod(&mut self, uid: &str, out: &mut Output<'_>) {
        let cached = self.pods.remove(uid);
        if let Some(lifecycle) = self.checkpoint.pods.remove(uid) {
            self.changed = true;
            let identity = identity_of(uid, cached.as_ref(), &lifecycle);
            self.writer.pod(&identity, &lifecycle.deleted(), out.now_ns, out.sink);
        }
        for id in cached.iter().flat_map(|c| &c.containers) {
            self.directory.container_gone(id, out.now_ns);
        }
        self.directory.pod_gone(uid, out.now_ns);
    }

    /// Emits the relations of a pod whose lifecycle an earlier run emitted, or began before the
    /// first run.
    fn emit_relations(&mut self, uid: &str, out: &mut Output<'_>) {
        let Some(CachedPod { pod, .. }) = self.pods.get(uid) else { return };
        if *pod.node != *self.node {
            return;
        }
        let from = ("pod", uid);
        let (now_ns, sink) = (out.now_ns, &mut *out.sink);
        if let Some(owner) = &pod.workload {
            let kind = owner.kind.to_lowercase();
            let owner = format!("{}/{kind}/{}", pod.namespace, owner.name);
            self.writer.relation(from, "owned-by", ("workload", &owner), false, now_ns, sink);
        }
        let host = Arc::clone(&self.writer.host);
        self.writer.relation(from, "scheduled-on", ("node", &host), false, now_ns, sink);
        if let Some(address) = pod.addresses.first() {
            let address = address.to_string();
            self.writer.relation(from, "provides", ("address", &address), false, now_ns, sink);
        }
        if let Some(criticality) = &pod.criticality {
            self.writer.criticality(from, criticality, now_ns, sink);
        }
    }

    /// Emits the facts that are due because time has passed.
    pub(super) fn tick(&mut self, out: &mut Output<'_>) {
        for (uid, lifecycle) in &mut self.checkpoint.pods {
            let Some(transition) = lifecycle.tick(out.now_ns) else { continue };
            self.changed = true;
            let identity = identity_of(uid, self.pods.get(uid), lifecycle);
            self.writer.pod(&identity, &transition, out.now_ns, out.sink);
        }
    }

    pub(super) fn node(&mut self, event: WatchEvent<Node>, out: &mut Output<'_>) {
        let resource = Resource::Nodes;
        match event {
            WatchEvent::ListBegin => self.lists.begin(resource),
            WatchEvent::Apply(node) => {
                let meta = &node.metadata;
                for change in self.checkpoint.conditions.step(&node) {
                    self.writer.condition(&meta.uid, &meta.name, &change, out.now_ns, out.sink);
                    self.changed = true;
                }
                self.advance(resource, &meta.resource_version);
            }
            WatchEvent::Identify(_) => {}
            WatchEvent::Delete(node) => self.advance(resource, &node.metadata.resource_version),
            WatchEvent::ListEnd(version) => drop(self.end_list(resource, &version)),
            WatchEvent::Bookmark(version) => self.advance(resource, &version),
        }
    }

    pub(super) fn deployment(&mut self, event: WatchEvent<Deployment>, out: &mut Output<'_>) {
        let resource = Resource::Deployments;
        match event {
            WatchEvent::ListBegin => self.lists.begin(resource),
            WatchEvent::Identify(deployment) => self.update_rolling(&deployment, out.now_ns),
            WatchEvent::Apply(deployment) => self.apply_deployment(&deployment, out),
            WatchEvent::Delete(deployment) => {
                self.remove_deployment(&deployment.metadata.uid, out.now_ns);
                self.advance(resource, &deployment.metadata.resource_version);
            }
            WatchEvent::ListEnd(version) => {
                let listed = self.end_list(resource, &version);
                let known = self.checkpoint.rollouts.keys();
                let gone: Vec<Text> = known.filter(|u| !listed.contains(*u)).cloned().collect();
                gone.iter().for_each(|uid| self.remove_deployment(uid, out.now_ns));
            }
            WatchEvent::Bookmark(version) => self.advance(resource, &version),
        }
    }

    fn apply_deployment(&mut self, deployment: &Deployment, out: &mut Output<'_>) {
        let (resource, meta) = (Resource::Deployments, &deployment.metadata);
        self.lists.add(resource, &meta.uid);
        let rollout = self.checkpoint.rollouts.entry(meta.uid.clone()).or_default();
        let change = rollout.step(deployment);
        self.update_rolling(deployment, out.now_ns);
        if let Some(change) = change {
            self.changed = true;
            // On the first start only rollouts that aren't complete are emitted.
            let is_old = self.is_first_start(resource) && change.phase == RolloutPhase::Complete;
            if !is_old && (self.config.objects_without_node || self.has_pods_here(meta)) {
                self.writer.rollout(deployment, &change, out.now_ns, out.sink);
            }
        }
        self.advance(resource, &meta.resource_version);
    }

    /// Whether a Deployment has cached pods.
    fn has_pods_here(&self, deployment: &ObjectMeta) -> bool {
        self.pods.values().any(|cached| {
            let workload = cached.pod.workload.as_ref();
            *cached.pod.namespace == *deployment.namespace
                && workload.is_some_and(|w| &*w.kind == "Deployment" && *w.name == *deployment.name)
        })
    }

    /// Updates which ReplicaSet of a Deployment is being rolled out, and marks its pods.
    fn update_rolling(&mut self, deployment: &Deployment, now_ns: u64) {
        let meta = &deployment.metadata;
        let rollout = self.checkpoint.rollouts.get(&meta.uid);
        let replicaset = rollout.and_then(|rollout| rollout.progressing.clone());
        let new = replicaset.map(|name| (meta.namespace.clone(), name));
        let before = match new.clone() {
            Some(new) => self.rolling.insert(meta.uid.clone(), new),
            None => self.rolling.remove(&meta.uid),
        };
        if before != new {
            self.refresh_replicasets(before.into_iter().chain(new).collect(), now_ns);
        }
    }

    fn refresh_replicasets(&mut self, replicasets: Vec<(Text, Text)>, now_ns: u64) {
        let is_affected = |cached: &CachedPod| {
            replicasets.iter().any(|(ns, name)| {
                **ns == *cached.pod.namespace && cached.replicaset.as_ref() == Some(name)
            })
        };
        let affected = self.pods.iter().filter(|(_, cached)| is_affected(cached));
        let uids: Vec<Text> = affected.map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.refresh(uid, now_ns));
    }

    fn remove_deployment(&mut self, uid: &str, now_ns: u64) {
        self.changed |= self.checkpoint.rollouts.remove(uid).is_some();
        if let Some(replicaset) = self.rolling.remove(uid) {
            self.refresh_replicasets(vec![replicaset], now_ns);
        }
    }

    pub(super) fn event(&mut self, event: WatchEvent<Event>, out: &mut Output<'_>) {
        let resource = Resource::Events;
        match event {
            WatchEvent::ListBegin => {
                self.lists.begin(resource);
                // This covers a list older than the position, too: it belongs to another history.
                self.emitted_events = self.checkpoint.position(resource).and_then(version_number);
            }
            WatchEvent::Apply(event) => {
                let version = version_number(&event.metadata.resource_version);
                let was_emitted = self.lists.is_in_progress(resource)
                    && version.zip(self.emitted_events).is_some_and(|(v, emitted)| v <= emitted);
                if self.counts.record(&event) && !was_emitted {
                    self.emit_event(&event, out);
                }
                self.advance(resource, &event.metadata.resource_version);
            }
            WatchEvent::Identify(_) => {}
            WatchEvent::Delete(event) => {
                self.counts.remove(&event);
                self.advance(resource, &event.metadata.resource_version);
            }
            WatchEvent::ListEnd(version) => drop(self.end_list(resource, &version)),
            WatchEvent::Bookmark(version) => self.advance(resource, &version),
        }
    }

    /// Emits an Event of this node, or of no node.
    fn emit_event(&mut self, event: &Event, out: &mut Output<'_>) {
        let object = &event.involved_object;
        let local_pod = self.pods.get(&object.uid).filter(|c| *c.pod.node == *self.node);
        let is_local_pod = local_pod.is_some();
        let pod = match local_pod {
            Some(cached) => Some(Arc::clone(&cached.pod)),
            None => self.directory.pod(&object.uid),
        };
        let hosts = [event.host(), event.assigned_node().unwrap_or("")];
        let host = hosts.into_iter().find(|host| !host.is_empty());
        let node = match &*object.kind {
            "Node" => Some(&*object.name),
            _ => host.or(pod.as_ref().map(|pod| &*pod.node).filter(|n| !n.is_empty())),
        };
        let scope = if is_local_pod {
            EventScope::WatchedPod
        } else if node == Some(&self.node) {
            match self.kubelet_start.observe(event) {
                true => EventScope::ThisNodeReplayed,
                false => EventScope::ThisNode,
            }
        } else if node.is_none() && self.config.objects_without_node {
            EventScope::NoNode
        } else {
            self.foreign_events += 1;
            return;
        };
        self.writer.event(event, pod.as_deref(), scope, out.now_ns, out.sink);
    }

    pub(super) fn service(&mut self, event: WatchEvent<Service>, out: &mut Output<'_>) {
        let resource = Resource::Services;
        match event {
            WatchEvent::ListBegin => self.lists.begin(resource),
            WatchEvent::Identify(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Apply(service) => {
                let meta = &service.metadata;
                self.lists.add(resource, &meta.uid);
                self.addresses.apply_service(&service, &self.directory, out.now_ns);
                if let Some(criticality) = meta.criticality() {
                    let name = format!("{}/{}", meta.namespace, meta.name);
                    let from = ("service", &*name);
                    self.writer.criticality(from, criticality, out.now_ns, out.sink);
                }
            }
            WatchEvent::Delete(service) => {
                let uid = &service.metadata.uid;
                self.addresses.remove_service(uid, &self.directory, out.now_ns);
            }
            WatchEvent::ListEnd(_) => {
                let listed = self.lists.end(resource);
                for uid in self.addresses.missing_services(&listed) {
                    self.addresses.remove_service(&uid, &self.directory, out.now_ns);
                }
            }
        }
    }

    pub(super) fn endpoints(&mut self, event: WatchEvent<Endpoints>, out: &mut Output<'_>) {
        let resource = Resource::Endpoints;
        let pods = &self.pods;
        let is_watched = |uid: &str| pods.contains_key(uid);
        let directory = Arc::clone(&self.directory);
        let writer =
            DirectoryWriter { directory: &directory, now_ns: out.now_ns, is_watched: &is_watched };
        let selections = match event {
            WatchEvent::ListBegin => return self.lists.begin(resource),
            WatchEvent::Identify(_) | WatchEvent::Bookmark(_) => return,
            WatchEvent::Apply(slice) => {
                self.lists.add(resource, &slice.metadata.uid);
                self.addresses.apply_slice(&slice, &writer)
            }
            WatchEvent::Delete(slice) => self.addresses.remove_slice(&slice.metadata.uid, &writer),
            WatchEvent::ListEnd(_) => {
                let listed = self.lists.end(resource);
                let gone = self.addresses.missing_slices(&listed);
                gone.iter().flat_map(|uid| self.addresses.remove_slice(uid, &writer)).collect()
            }
        };
        selections.iter().for_each(|selection| self.emit_selection(selection, out));
    }

    /// Emits that a service selects, or no longer selects, a pod of this node.
    fn emit_selection(&mut self, selection: &Selection, out: &mut Output<'_>) {
        let uid = &*selection.pod_uid;
        if self.pods.get(uid).is_none_or(|cached| *cached.pod.node != *self.node) {
            return;
        }
        self.refresh(uid, out.now_ns);
        let service = format!("{}/{}", selection.namespace, selection.service);
        let (from, to) = (("service", &*service), ("pod", uid));
        self.writer.relation(from, "selects", to, selection.ended, out.now_ns, out.sink);
    }

    /// Reports the sizes of the caches.
    pub(super) fn report(&self, report: &StatusReport) {
        let [services, slices, backends] = self.addresses.sizes();
        report.count("pods", self.pods.len() as u64);
        report.count("services", services as u64);
        report.count("endpoint_slices", slices as u64);
        report.count("pods_behind_services", backends as u64);
        report.count("deployments", self.checkpoint.rollouts.len() as u64);
        report.count("foreign_events", self.foreign_events);
    }
}

/// Whether a fact was over before the agent's first start. Back-off and termination still hold.
fn is_over(transition: &Transition, started_ns: u64) -> bool {
    let holds = matches!(transition.fact, PodFact::CrashLoop { .. } | PodFact::Terminating { .. });
    !holds && transition.time_ns.is_none_or(|ns| ns < started_ns)
}
