//! Facts for the graph that events state: who runs where, who owns whom, who talks to whom, who is
//! ready and how much it matters.

use super::entity::{Entity, EntityKind, Named, endpoint};
use super::graph::{Criticality, Edge, Relation};
use crate::rules::field::value_text;
use tapio_core::event::{ArchivedEvent, Name, Severity, Value, names};

/// A fact, true in one second.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    /// An edge was seen.
    Seen(Edge),
    /// An edge ended.
    Parted(Edge),
    /// An entity ended.
    Ended(Entity),
    /// What a person calls an entity.
    Named(Entity, Box<str>),
    /// An entity began or ceased to be able to serve.
    Ready(Entity, bool),
    /// How much an entity matters.
    Matters(Entity, Criticality),
}

/// Owners of pods, by the entity key or attribute that names them.
const WORKLOADS: [(Name, &str); 6] = [
    (names::K8S_DEPLOYMENT_NAME, "deployment"),
    (names::K8S_STATEFULSET_NAME, "statefulset"),
    (names::K8S_DAEMONSET_NAME, "daemonset"),
    (names::K8S_JOB_NAME, "job"),
    (names::K8S_REPLICASET_NAME, "replicaset"),
    (names::K8S_CRONJOB_NAME, "cronjob"),
];

/// Volumes, by the attribute that names them: a claim says more than a pod's own name for it.
const VOLUMES: [Name; 2] = [names::K8S_PERSISTENTVOLUMECLAIM_NAME, names::K8S_VOLUME_NAME];

const NOT_READY: [Name; 4] = [
    names::K8S_POD_CRASH_LOOP,
    names::K8S_POD_OOM_KILLED,
    names::K8S_POD_EVICTED,
    names::K8S_POD_DELETED,
];

/// Sources whose events state facts whether or not a rule wants them: they are few. The kernel's
/// processes are many and state facts only where something is wrong.
const FACTUAL: [&str; 6] =
    ["k8s.", "cni.", "container.", "systemd.unit.", "kernel.tcp.", "entity."];

/// Whether events of a kind state facts in any case.
pub(super) fn is_factual(kind: Name) -> bool {
    kind != names::KERNEL_TCP_RETRANSMIT && FACTUAL.iter().any(|p| kind.text().starts_with(p))
}

/// The facts an event states.
pub(super) fn facts(event: &ArchivedEvent<'_>, into: &mut Vec<Fact>) {
    let kind = event.kind_name();
    if kind == names::ENTITY_RELATION {
        into.extend(stated(event));
        return;
    }
    let named = Named::of(event);
    let pod = named.pod.map(|uid| Entity::new(EntityKind::Pod, uid));
    let container = named.container.map(|id| Entity::new(EntityKind::Container, id));
    let unit = named.unit.map(|u| named.on_host(EntityKind::Unit, u));
    let node = named.host.map(|h| Entity::new(EntityKind::Node, h));
    let is_tcp = kind.text().starts_with("kernel.tcp.");
    let process = (is_tcp || event.severity() >= Severity::WARN).then(|| named.process()).flatten();
    let mut see = |from: Option<&Entity>, relation, to: Option<&Entity>| {
        if let (Some(from), Some(to)) = (from, to) {
            into.push(Fact::Seen(Edge { from: from.clone(), relation, to: to.clone() }));
        }
    };
    let within = container.as_ref().or(pod.as_ref()).or(unit.as_ref());
    see(process.as_ref(), Relation::RunsIn, within);
    see(container.as_ref(), Relation::RunsIn, pod.as_ref());
    see(pod.as_ref(), Relation::ScheduledOn, node.as_ref());
    see(unit.as_ref(), Relation::ScheduledOn, node.as_ref());
    if within.is_none() {
        of_nobody(event, &named, process.as_ref(), into);
    }
    if is_tcp {
        let who = pod.as_ref().or(unit.as_ref()).or(container.as_ref()).or(process.as_ref());
        let service = named.service.map(|s| named.in_namespace(EntityKind::Service, s));
        talks(event, &named, who.or(service.as_ref()), into);
    }
    if let Some(pod) = &pod {
        of_pod(event, &named, pod, into);
    }
    of_service(event, &named, pod.as_ref(), into);
    match kind {
        names::CONTAINER_EXITED => into.extend(container.map(Fact::Ended)),
        names::KERNEL_PROCESS_EXIT => into.extend(process.map(Fact::Ended)),
        _ => {}
    }
}

/// What those are called who belong to no container, pod or unit: a number tells people nothing.
fn of_nobody(
    event: &ArchivedEvent<'_>,
    named: &Named<'_>,
    process: Option<&Entity>,
    into: &mut Vec<Fact>,
) {
    fn base(path: &str) -> &str {
        path.rsplit('/').next().unwrap_or(path)
    }
    let text = |key| event.text(key).filter(|t| !t.is_empty());
    let command = || text(names::PROCESS_COMMAND_ARGS).and_then(|c| c.split_whitespace().next());
    let program = text(names::PROCESS_EXECUTABLE_NAME)
        .or_else(|| text(names::PROCESS_EXECUTABLE_PATH).map(base))
        .or_else(|| command().map(base));
    if let (Some(process), Some(program)) = (process, program) {
        into.push(Fact::Named(process.clone(), program.into()));
    }
    if let (Some(id), Some(path)) = (named.cgroup, text(names::TAPIO_CGROUP_PATH)) {
        let cgroup = named.on_host(EntityKind::Cgroup, &value_text(id));
        into.push(Fact::Named(cgroup, path.into()));
    }
}

/// What an event says of its pod.
fn of_pod(event: &ArchivedEvent<'_>, named: &Named<'_>, pod: &Entity, into: &mut Vec<Fact>) {
    let kind = event.kind_name();
    if let Some(name) = named.pod_name {
        let label = named.namespace.map_or_else(|| name.to_owned(), |n| format!("{n}/{name}"));
        into.push(Fact::Named(pod.clone(), label.into()));
    }
    let seen = |relation, to| Fact::Seen(Edge { from: pod.clone(), relation, to });
    for (key, word) in WORKLOADS {
        if let Some(name) = event.text(key) {
            let owner = named.in_namespace(EntityKind::Workload, &format!("{word}/{name}"));
            into.push(seen(Relation::OwnedBy, owner));
        }
    }
    if let Some(volume) = VOLUMES.iter().find_map(|key| event.text(*key)) {
        let volume = named.in_namespace(EntityKind::Volume, volume);
        into.push(seen(Relation::Mounts, volume));
    }
    let from_cni = kind == names::CNI_IP_ALLOCATED || kind == names::CNI_ADD;
    let local = from_cni.then(|| event.text(names::NETWORK_LOCAL_ADDRESS)).flatten();
    let own = event.text(names::K8S_POD_IP).or(local);
    if let Some(address) = own.or(named.address.filter(|_| from_cni)) {
        into.push(seen(Relation::Provides, Entity::new(EntityKind::Address, address)));
    }
    if let Some(criticality) = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse) {
        into.push(Fact::Matters(pod.clone(), criticality));
    }
    match kind {
        names::K8S_POD_READY => into.push(Fact::Ready(pod.clone(), true)),
        kind if NOT_READY.contains(&kind) => into.push(Fact::Ready(pod.clone(), false)),
        _ => {}
    }
    if kind == names::K8S_POD_DELETED {
        into.push(Fact::Ended(pod.clone()));
    }
}

/// What an event says of services.
fn of_service(
    event: &ArchivedEvent<'_>,
    named: &Named<'_>,
    pod: Option<&Entity>,
    into: &mut Vec<Fact>,
) {
    let names = [event.text(names::K8S_SERVICE_NAME), named.service];
    let criticality = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse);
    for name in names.into_iter().flatten() {
        let service = named.in_namespace(EntityKind::Service, name);
        if let Some(pod) = pod {
            let edge = Edge { from: service.clone(), relation: Relation::Selects, to: pod.clone() };
            into.push(Fact::Seen(edge));
        } else if let Some(criticality) = criticality {
            into.push(Fact::Matters(service, criticality));
        }
    }
}

/// Who talks to whom, and who listens. The end that opened a connection has a port that is nobody's tomorrow: only the other
/// end is a place to be found at, so an event from which it can't be known which end it is says nothing.
fn talks(event: &ArchivedEvent<'_>, named: &Named<'_>, who: Option<&Entity>, into: &mut Vec<Fact>) {
    let Some(who) = who else { return };
    knows(event, who, into);
    let kind = event.kind_name();
    let incoming = event.attribute(names::TAPIO_TCP_INCOMING);
    let accepted = kind == names::KERNEL_TCP_ACCEPT || incoming == Some(Value::Bool(true));
    let opens = [names::KERNEL_TCP_CONNECT, names::KERNEL_TCP_REFUSED, names::KERNEL_TCP_TIMEOUT];
    if !accepted && !opens.contains(&kind) && incoming.is_none() {
        return;
    }
    let (address, port, relation) = if accepted {
        (names::NETWORK_LOCAL_ADDRESS, names::NETWORK_LOCAL_PORT, Relation::Provides)
    } else {
        (names::NETWORK_PEER_ADDRESS, names::NETWORK_PEER_PORT, Relation::TalksTo)
    };
    let (Some(address), Some(port)) = (event.text(address), event.attribute(port)) else {
        return;
    };
    let to = endpoint(named.host, address, &value_text(port));
    into.push(Fact::Seen(Edge { from: who.clone(), relation, to: to.clone() }));
    let at = Entity::new(EntityKind::Address, address);
    // Loopback is an address of everybody: it leads nowhere.
    if !address.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback()) {
        into.push(Fact::Seen(Edge { from: to, relation: Relation::RunsIn, to: at }));
    }
}

/// Whom the address at the other end belongs to, where the event's collector knew it.
fn knows(event: &ArchivedEvent<'_>, who: &Entity, into: &mut Vec<Fact>) {
    let pod = event.text(names::TAPIO_PEER_POD_UID).map(|uid| Entity::new(EntityKind::Pod, uid));
    let service = event.text(names::TAPIO_PEER_SERVICE_NAME).map(|name| {
        let namespace = event.text(names::TAPIO_PEER_NAMESPACE_NAME).unwrap_or_default();
        Entity::new(EntityKind::Service, &format!("{namespace}/{name}"))
    });
    for to in pod.into_iter().chain(service).filter(|to| to != who) {
        into.push(Fact::Seen(Edge { from: who.clone(), relation: Relation::TalksTo, to }));
    }
}

/// The fact an `entity.relation` event states (docs/evidence.md).
fn stated(event: &ArchivedEvent<'_>) -> Option<Fact> {
    let entity = |kind, name| {
        let kind = EntityKind::parse(event.text(kind)?)?;
        Some(Entity::new(kind, event.text(name).filter(|n| !n.is_empty())?))
    };
    let from = entity(names::TAPIO_RELATION_FROM_TYPE, names::TAPIO_RELATION_FROM_NAME)?;
    if let Some(criticality) = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse) {
        return Some(Fact::Matters(from, criticality));
    }
    let relation = Relation::parse(event.text(names::TAPIO_RELATION_TYPE)?)?;
    let to = entity(names::TAPIO_RELATION_TO_TYPE, names::TAPIO_RELATION_TO_NAME)?;
    let edge = Edge { from, relation, to };
    let ended = event.attribute(names::TAPIO_RELATION_ENDED) == Some(Value::Bool(true));
    Some(if ended { Fact::Parted(edge) } else { Fact::Seen(edge) })
}
