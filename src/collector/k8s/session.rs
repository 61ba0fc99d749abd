//! One connection's worth of work: what the feeds say goes into the directory, the state machines and out as events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::addresses::{Addresses, Place, Selects};
use super::conditions::Rollout;
use super::events::{Counts, KubeletStart, Of};
use super::feed::Said;
use super::known::{Known, identity_of_told};
use super::objects::{Deployment, Endpoints, Event, Meta, Node, Pod, Service, Text};
use super::pods::{Transition, What};
use super::saved::{Saved, number};
use super::tell::Teller;
use super::texts::Texts;
use super::{Config, Resource};
use tapio_core::identity::Directory;
use tapio_core::ring::Sink;

/// What is known while the collector runs.
pub(super) struct Session {
    config: Config,
    /// The node's name in the cluster.
    node: String,
    directory: Arc<Directory>,
    teller: Teller,
    pub(super) saved: Saved,
    /// Whether `saved` changed since it was written last.
    pub(super) changed: bool,
    started_ns: u64,
    pods: HashMap<Text, Known>,
    addresses: Addresses,
    texts: Texts,
    counts: Counts,
    kubelet_start: KubeletStart,
    /// ReplicaSets that are being rolled out: by Deployment, its namespace and the ReplicaSet's name.
    rolling: HashMap<Text, (Text, Text)>,
    /// Lists that are under way: what they held so far.
    listing: HashMap<Resource, HashSet<Text>>,
    /// Events of a list up to this version were told before.
    events_told: Option<u64>,
    pub(super) elsewhere: u64,
}

/// When, and into what.
pub(super) struct Now<'a> {
    pub(super) ns: u64,
    pub(super) sink: &'a mut Sink,
}

impl Session {
    pub(super) fn new(
        config: &Config,
        node: &str,
        directory: Arc<Directory>,
        teller: Teller,
        saved: Saved,
        started_ns: u64,
    ) -> Self {
        Self {
            config: config.clone(),
            node: node.to_owned(),
            directory,
            teller,
            saved,
            changed: false,
            started_ns,
            pods: HashMap::new(),
            addresses: Addresses::default(),
            texts: Texts::default(),
            counts: Counts::default(),
            kubelet_start: KubeletStart::default(),
            rolling: HashMap::new(),
            listing: HashMap::new(),
            events_told: None,
            elsewhere: 0,
        }
    }

    /// Whether there is no earlier time of this agent that the resource goes on from.
    fn is_first(&self, resource: Resource) -> bool {
        self.saved.position(resource).is_none()
    }

    fn at(&mut self, resource: Resource, version: &str) {
        // While a list is under way its end is the next position.
        if !self.listing.contains_key(&resource) {
            self.changed |= self.saved.set_position(resource, version);
        }
    }

    /// Ends a list. Returns what it held.
    fn listed(&mut self, resource: Resource, version: &str) -> HashSet<Text> {
        let seen = self.listing.remove(&resource).unwrap_or_default();
        self.at(resource, version);
        self.changed = true;
        seen
    }

    pub(super) fn pod(&mut self, said: Said<Pod>, now: &mut Now<'_>) {
        match said {
            Said::Begins(_) => drop(self.listing.insert(Resource::Pods, HashSet::new())),
            Said::Named(pod) => {
                self.know(&pod, now.ns);
                self.state(&pod.metadata.uid, now);
            }
            Said::Is(pod) => {
                if let Some(seen) = self.listing.get_mut(&Resource::Pods) {
                    seen.insert(pod.metadata.uid.clone());
                }
                let is_new = self.know(&pod, now.ns);
                if *pod.spec.node_name == *self.node {
                    let told = self.saved.pods.contains_key(&pod.metadata.uid);
                    self.live(&pod, now);
                    if is_new && (told || self.is_first(Resource::Pods)) {
                        self.state(&pod.metadata.uid, now);
                    }
                }
                self.at(Resource::Pods, &pod.metadata.resource_version);
            }
            Said::Gone(pod) => {
                self.know(&pod, now.ns);
                if *pod.spec.node_name == *self.node {
                    self.live(&pod, now);
                }
                self.pod_gone(&pod.metadata.uid, now);
                self.at(Resource::Pods, &pod.metadata.resource_version);
            }
            Said::Listed(version) => {
                let known = self.saved.pods.keys().chain(self.pods.keys());
                let all: HashSet<Text> = known.cloned().collect();
                let seen = self.listed(Resource::Pods, &version);
                for uid in all.difference(&seen) {
                    self.pod_gone(uid, now);
                }
            }
            Said::At(version) => self.at(Resource::Pods, &version),
        }
    }

    /// Writes a pod and its containers into the directory. Returns whether it wasn't known.
    fn know(&mut self, pod: &Pod, now_ns: u64) -> bool {
        let uid = &pod.metadata.uid;
        let version = number(&pod.metadata.resource_version).unwrap_or(u64::MAX);
        let before = self.pods.get(uid);
        if before.is_some_and(|known| known.version > version) {
            return false;
        }
        let is_new = before.is_none();
        let mut known = Known::of(pod, version, &mut self.texts);
        known.write_containers(pod, before, &self.directory, now_ns);
        self.complete(&mut known);
        self.directory.pod_seen(Arc::clone(&known.pod), now_ns);
        self.pods.insert(uid.clone(), known);
        is_new
    }

    /// Adds what other objects say of a pod.
    fn complete(&self, known: &mut Known) {
        let services = self.addresses.services_of(&known.pod.uid);
        let rolling_out = known.replicaset.as_ref().is_some_and(|rs| {
            self.rolling.values().any(|(ns, name)| **ns == *known.pod.namespace && name == rs)
        });
        let pod = Arc::make_mut(&mut known.pod);
        (pod.services, pod.rolling_out) = (services, rolling_out);
    }

    /// Completes a known pod again, after something else changed.
    fn again(&mut self, uid: &str, now_ns: u64) {
        let Some(mut known) = self.pods.remove(uid) else { return };
        let before = (known.pod.services.len(), known.pod.rolling_out);
        self.complete(&mut known);
        if before != (known.pod.services.len(), known.pod.rolling_out) {
            self.directory.pod_seen(Arc::clone(&known.pod), now_ns);
        }
        self.pods.insert(uid.into(), known);
    }

    /// Tells what is new in a pod's life.
    fn live(&mut self, pod: &Pod, now: &mut Now<'_>) {
        let uid = &pod.metadata.uid;
        let told = self.saved.pods.entry(uid.clone()).or_default();
        let mut out = Vec::new();
        told.step(pod, &mut out);
        if out.is_empty() {
            return;
        }
        self.changed = true;
        let is_first = self.is_first(Resource::Pods);
        let Some(named) = self.pods.get(uid).map(|known| Arc::clone(&known.pod)) else { return };
        for transition in out {
            if !(is_first && is_past(&transition, self.started_ns)) {
                self.teller.pod(&named, &transition, now.ns, now.sink);
            }
        }
    }

    fn pod_gone(&mut self, uid: &str, now: &mut Now<'_>) {
        let known = self.pods.remove(uid);
        if let Some(told) = self.saved.pods.remove(uid) {
            self.changed = true;
            let named = known
                .as_ref()
                .map_or_else(|| Arc::new(identity_of_told(uid, &told)), |k| Arc::clone(&k.pod));
            self.teller.pod(&named, &told.gone(), now.ns, now.sink);
        }
        for id in known.iter().flat_map(|k| &k.containers) {
            self.directory.container_gone(id, now.ns);
        }
        self.directory.pod_gone(uid, now.ns);
    }

    /// States what the graph of entities is to know of a pod whose life was told by an earlier run, or began before the first.
    fn state(&mut self, uid: &str, now: &mut Now<'_>) {
        let Some(Known { pod, .. }) = self.pods.get(uid) else { return };
        if *pod.node != *self.node {
            return;
        }
        let from = ("pod", uid);
        if let Some(owner) = &pod.workload {
            let kind = owner.kind.to_lowercase();
            let owner = format!("{}/{kind}/{}", pod.namespace, owner.name);
            self.teller.relation(from, "owned-by", ("workload", &owner), false, now.ns, now.sink);
        }
        let host = Arc::clone(&self.teller.host);
        self.teller.relation(from, "scheduled-on", ("node", &host), false, now.ns, now.sink);
        if let Some(address) = pod.addresses.first() {
            let address = address.to_string();
            self.teller.relation(from, "provides", ("address", &address), false, now.ns, now.sink);
        }
        if let Some(criticality) = &pod.criticality {
            self.teller.matters(from, criticality, now.ns, now.sink);
        }
    }

    /// Tells what is due because time has passed.
    pub(super) fn tick(&mut self, now: &mut Now<'_>) {
        for (uid, told) in &mut self.saved.pods {
            let Some(transition) = told.tick(now.ns) else { continue };
            self.changed = true;
            let named = self
                .pods
                .get(uid)
                .map_or_else(|| Arc::new(identity_of_told(uid, told)), |k| Arc::clone(&k.pod));
            self.teller.pod(&named, &transition, now.ns, now.sink);
        }
    }

    pub(super) fn node(&mut self, said: Said<Node>, now: &mut Now<'_>) {
        match said {
            Said::Begins(_) => drop(self.listing.insert(Resource::Nodes, HashSet::new())),
            Said::Is(node) => {
                for changed in self.saved.conditions.step(&node) {
                    let meta = &node.metadata;
                    self.teller.condition(&meta.uid, &meta.name, &changed, now.ns, now.sink);
                    self.changed = true;
                }
                self.at(Resource::Nodes, &node.metadata.resource_version);
            }
            Said::Named(_) => {}
            Said::Gone(node) => self.at(Resource::Nodes, &node.metadata.resource_version),
            Said::Listed(version) => drop(self.listed(Resource::Nodes, &version)),
            Said::At(version) => self.at(Resource::Nodes, &version),
        }
    }

    pub(super) fn deployment(&mut self, said: Said<Deployment>, now: &mut Now<'_>) {
        let resource = Resource::Deployments;
        match said {
            Said::Begins(_) => drop(self.listing.insert(resource, HashSet::new())),
            Said::Named(deployment) => self.rolls(&deployment, now.ns),
            Said::Is(deployment) => {
                let meta = &deployment.metadata;
                if let Some(seen) = self.listing.get_mut(&resource) {
                    seen.insert(meta.uid.clone());
                }
                let told =
                    self.saved.rollouts.entry(meta.uid.clone()).or_default().step(&deployment);
                self.rolls(&deployment, now.ns);
                if let Some(told) = told {
                    self.changed = true;
                    // Of what was there before the first start only what isn't over is news.
                    let is_old = self.is_first(resource) && told.state == Rollout::Complete;
                    if !is_old && (self.config.objects_without_node || self.owns_here(meta)) {
                        self.teller.rollout(&deployment, &told, now.ns, now.sink);
                    }
                }
                self.at(resource, &deployment.metadata.resource_version);
            }
            Said::Gone(deployment) => {
                self.deployment_gone(&deployment.metadata.uid, now.ns);
                self.at(resource, &deployment.metadata.resource_version);
            }
            Said::Listed(version) => {
                let seen = self.listed(resource, &version);
                let gone: Vec<Text> =
                    self.saved.rollouts.keys().filter(|u| !seen.contains(*u)).cloned().collect();
                gone.iter().for_each(|uid| self.deployment_gone(uid, now.ns));
            }
            Said::At(version) => self.at(resource, &version),
        }
    }

    fn owns_here(&self, meta: &Meta) -> bool {
        self.pods.values().any(|known| {
            *known.pod.namespace == *meta.namespace
                && known
                    .pod
                    .workload
                    .as_ref()
                    .is_some_and(|w| &*w.kind == "Deployment" && *w.name == *meta.name)
        })
    }

    /// Notes which ReplicaSet of a Deployment is being rolled out; its pods say so.
    fn rolls(&mut self, deployment: &Deployment, now_ns: u64) {
        let meta = &deployment.metadata;
        let progressing =
            self.saved.rollouts.get(&meta.uid).and_then(|told| told.progressing.clone());
        let new = progressing.map(|rs| (meta.namespace.clone(), rs));
        let before = match new.clone() {
            Some(new) => self.rolling.insert(meta.uid.clone(), new),
            None => self.rolling.remove(&meta.uid),
        };
        if before != new {
            self.rolled([before, new].into_iter().flatten().collect(), now_ns);
        }
    }

    fn rolled(&mut self, replicasets: Vec<(Text, Text)>, now_ns: u64) {
        let of = |known: &Known| {
            replicasets.iter().any(|(ns, rs)| {
                **ns == *known.pod.namespace && known.replicaset.as_ref() == Some(rs)
            })
        };
        let uids: Vec<Text> =
            self.pods.iter().filter(|(_, k)| of(k)).map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.again(uid, now_ns));
    }

    fn deployment_gone(&mut self, uid: &str, now_ns: u64) {
        self.changed |= self.saved.rollouts.remove(uid).is_some();
        if let Some(replicaset) = self.rolling.remove(uid) {
            self.rolled(vec![replicaset], now_ns);
        }
    }

    pub(super) fn event(&mut self, said: Said<Event>, now: &mut Now<'_>) {
        let resource = Resource::Events;
        match said {
            Said::Begins(version) => {
                self.listing.insert(resource, HashSet::new());
                // A list that is older than what was told is of another history: it tells nothing new.
                let told = self.saved.position(resource).and_then(number);
                self.events_told =
                    told.max(number(&version).filter(|v| told.is_some_and(|t| t > *v)));
            }
            Said::Is(event) => {
                let version = number(&event.metadata.resource_version);
                let listed = self.listing.contains_key(&resource);
                let is_old =
                    listed && version.zip(self.events_told).is_some_and(|(v, told)| v <= told);
                if self.counts.is_new(&event) && !is_old {
                    self.event_is(&event, now);
                }
                self.at(resource, &event.metadata.resource_version);
            }
            Said::Named(_) => {}
            Said::Gone(event) => {
                self.counts.gone(&event);
                self.at(resource, &event.metadata.resource_version);
            }
            Said::Listed(version) => drop(self.listed(resource, &version)),
            Said::At(version) => self.at(resource, &version),
        }
    }

    /// Tells an Event of this node, or of no node.
    fn event_is(&mut self, event: &Event, now: &mut Now<'_>) {
        let about = &event.involved_object;
        let known = self.pods.get(&about.uid).filter(|k| *k.pod.node == *self.node);
        let named = match known {
            Some(known) => Some(Arc::clone(&known.pod)),
            None => self.directory.pod(&about.uid),
        };
        let host = event.host();
        let node_of = [host, event.assigned_to().unwrap_or("")].into_iter().find(|n| !n.is_empty());
        let node = match &*about.kind {
            "Node" => Some(&*about.name),
            _ => node_of.or(named.as_ref().map(|pod| &*pod.node).filter(|n| !n.is_empty())),
        };
        let here = known.is_some() || node == Some(&self.node);
        if here || (node.is_none() && self.config.objects_without_node) {
            let of = match here {
                true if self.kubelet_start.rereads(event) => Of::ThisNodesPast,
                true => Of::ThisNode,
                false => Of::NoNode,
            };
            self.teller.event(event, named.as_deref(), of, now.ns, now.sink);
        } else {
            self.elsewhere += 1;
        }
    }

    pub(super) fn service(&mut self, said: Said<Service>, now: &mut Now<'_>) {
        let resource = Resource::Services;
        match said {
            Said::Begins(_) => drop(self.listing.insert(resource, HashSet::new())),
            Said::Named(_) | Said::At(_) => {}
            Said::Is(service) => {
                let meta = &service.metadata;
                if let Some(seen) = self.listing.get_mut(&resource) {
                    seen.insert(meta.uid.clone());
                }
                self.addresses.service(&service, &self.directory, now.ns);
                if let Some(criticality) = meta.criticality() {
                    let name = format!("{}/{}", meta.namespace, meta.name);
                    self.teller.matters(("service", &name), criticality, now.ns, now.sink);
                }
            }
            Said::Gone(service) => {
                self.addresses.service_gone(&service.metadata.uid, &self.directory, now.ns);
            }
            Said::Listed(_) => {
                let seen = self.listing.remove(&resource).unwrap_or_default();
                for uid in self.addresses.missing_services(&seen) {
                    self.addresses.service_gone(&uid, &self.directory, now.ns);
                }
            }
        }
    }

    pub(super) fn endpoints(&mut self, said: Said<Endpoints>, now: &mut Now<'_>) {
        let resource = Resource::Endpoints;
        let pods = &self.pods;
        let is_watched = |uid: &str| pods.contains_key(uid);
        let directory = Arc::clone(&self.directory);
        let place = Place { directory: &directory, now_ns: now.ns, is_watched: &is_watched };
        let selected = match said {
            Said::Begins(_) => return drop(self.listing.insert(resource, HashSet::new())),
            Said::Named(_) | Said::At(_) => return,
            Said::Is(slice) => {
                if let Some(seen) = self.listing.get_mut(&resource) {
                    seen.insert(slice.metadata.uid.clone());
                }
                self.addresses.slice(&slice, &place)
            }
            Said::Gone(slice) => self.addresses.slice_gone(&slice.metadata.uid, &place),
            Said::Listed(_) => {
                let seen = self.listing.remove(&resource).unwrap_or_default();
                let gone = self.addresses.missing_slices(&seen);
                gone.iter().flat_map(|uid| self.addresses.slice_gone(uid, &place)).collect()
            }
        };
        selected.iter().for_each(|one| self.selects(one, now));
    }

    /// A service selects a pod, or ceased to: said of this node's pods.
    fn selects(&mut self, one: &Selects, now: &mut Now<'_>) {
        if self.pods.get(&*one.pod_uid).is_none_or(|known| *known.pod.node != *self.node) {
            return;
        }
        self.again(&one.pod_uid, now.ns);
        let service = format!("{}/{}", one.namespace, one.service);
        let (from, to) = (("service", &*service), ("pod", &*one.pod_uid));
        self.teller.relation(from, "selects", to, one.ended, now.ns, now.sink);
    }

    /// Named sizes of the caches.
    pub(super) fn sizes(&self) -> [(&'static str, u64); 6] {
        let [services, slices, backends] = self.addresses.sizes();
        [
            ("pods", self.pods.len() as u64),
            ("services", services as u64),
            ("endpoint_slices", slices as u64),
            ("pods_behind_services", backends as u64),
            ("deployments", self.saved.rollouts.len() as u64),
            ("events_of_other_nodes", self.elsewhere),
        ]
    }
}

/// Whether something was over before the agent ever ran here. What still holds (back-off, termination) isn't.
fn is_past(transition: &Transition, started_ns: u64) -> bool {
    let holds = matches!(transition.what, What::CrashLoop { .. } | What::Terminating { .. });
    !holds && transition.time_ns.is_none_or(|ns| ns < started_ns)
}
