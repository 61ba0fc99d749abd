//! Facts for the entity graph that an event states: where an entity runs, its owner, its
//! connections, its readiness and its criticality.

use super::entity::{Entity, EntityKind, EventEntities, endpoint};
use super::relation::{Criticality, Edge, Relation};
use crate::rules::field::value_text;
use tapio_core::event::{ArchivedEvent, Name, Severity, Value, names};

/// A fact for the graph, true in one second.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum GraphFact {
    /// An edge was seen.
    EdgeSeen(Edge),
    /// An edge ended.
    EdgeEnded(Edge),
    /// An entity ended.
    EntityEnded(Entity),
    /// An entity's name for people.
    Labelled(Entity, Box<str>),
    /// An entity became ready, or ceased to be.
    Ready(Entity, bool),
    /// An entity's criticality.
    Criticality(Entity, Criticality),
}

/// Keys and attributes that name the owner of a pod.
const WORKLOADS: [(Name, &str); 6] = [
    (names::K8S_DEPLOYMENT_NAME, "deployment"),
    (names::K8S_STATEFULSET_NAME, "statefulset"),
    (names::K8S_DAEMONSET_NAME, "daemonset"),
    (names::K8S_JOB_NAME, "job"),
    (names::K8S_REPLICASET_NAME, "replicaset"),
    (names::K8S_CRONJOB_NAME, "cronjob"),
];

/// Attributes that name a volume. A claim identifies it better than the pod's own name for it.
const VOLUMES: [Name; 2] = [names::K8S_PERSISTENTVOLUMECLAIM_NAME, names::K8S_VOLUME_NAME];

/// Kinds after which a pod isn't ready.
const NOT_READY: [Name; 4] = [
    names::K8S_POD_CRASH_LOOP,
    names::K8S_POD_OOM_KILLED,
    names::K8S_POD_EVICTED,
    names::K8S_POD_DELETED,
];

/// Kinds whose events state facts whether or not they are relevant to a rule: such events are few.
/// Events of the kernel's processes are many and state facts from severity warn on only.
const FACTUAL: [&str; 6] =
    ["k8s.", "cni.", "container.", "systemd.unit.", "kernel.tcp.", "entity."];

/// Whether events of a kind state facts at any severity.
pub(super) fn is_factual(kind: Name) -> bool {
    kind != names::KERNEL_TCP_RETRANSMIT && FACTUAL.iter().any(|p| kind.text().starts_with(p))
}

/// Extracts the facts that an event states.
pub(super) fn extract(event: &ArchivedEvent<'_>, into: &mut Vec<GraphFact>) {
    let kind = event.kind_name();
    if kind == names::ENTITY_RELATION {
        into.extend(stated_relation(event));
        return;
    }
    let entities = EventEntities::of(event);
    let pod = entities.pod.map(|uid| Entity::new(EntityKind::Pod, uid));
    let container = entities.container.map(|id| Entity::new(EntityKind::Container, id));
    let unit = entities.unit.map(|u| entities.on_host(EntityKind::Unit, u));
    let node = entities.host.map(|h| Entity::new(EntityKind::Node, h));
    let is_tcp = kind.text().starts_with("kernel.tcp.");
    let with_process = is_tcp || event.severity() >= Severity::WARN;
    let process = with_process.then(|| entities.process()).flatten();
    let mut edge = |from: Option<&Entity>, relation, to: Option<&Entity>| {
        if let (Some(from), Some(to)) = (from, to) {
            into.push(GraphFact::EdgeSeen(Edge { from: from.clone(), relation, to: to.clone() }));
        }
    };
    let within = container.as_ref().or(pod.as_ref()).or(unit.as_ref());
    edge(process.as_ref(), Relation::RunsIn, within);
    // The kernel's events identify a process by its execution, applications and the kernel's log by
    // its number.
    let numbered = entities.exec_id.and(entities.pid.filter(|_| with_process));
    let numbered = numbered.map(|pid| entities.on_host(EntityKind::Process, &value_text(pid)));
    edge(numbered.as_ref(), Relation::RunsIn, process.as_ref());
    edge(container.as_ref(), Relation::RunsIn, pod.as_ref());
    edge(pod.as_ref(), Relation::ScheduledOn, node.as_ref());
    edge(unit.as_ref(), Relation::ScheduledOn, node.as_ref());
    if within.is_none() {
        label_standalone(event, &entities, process.as_ref(), into);
    }
    if is_tcp {
        let owner = pod.as_ref().or(unit.as_ref()).or(container.as_ref()).or(process.as_ref());
        let service = entities.service.map(|s| entities.in_namespace(EntityKind::Service, s));
        connection_facts(event, &entities, owner.or(service.as_ref()), into);
    }
    if let Some(pod) = &pod {
        pod_facts(event, &entities, pod, into);
    }
    // Outside of Kubernetes a service is a unit, a container or a process.
    service_facts(event, &entities, within.or(process.as_ref()), into);
    match kind {
        names::CONTAINER_EXITED => into.extend(container.map(GraphFact::EntityEnded)),
        names::KERNEL_PROCESS_EXIT => into.extend(process.map(GraphFact::EntityEnded)),
        _ => {}
    }
}

/// Labels processes and cgroups outside of any container, pod and unit: people can't relate their
/// numbers to anything.
fn label_standalone(
    event: &ArchivedEvent<'_>,
    entities: &EventEntities<'_>,
    process: Option<&Entity>,
    into: &mut Vec<GraphFact>,
) {
    fn base_name(path: &str) -> &str {
        path.rsplit('/').next().unwrap_or(path)
    }
    let text = |key| event.text(key).filter(|t| !t.is_empty());
    let command = || text(names::PROCESS_COMMAND_ARGS).and_then(|c| c.split_whitespace().next());
    let program = text(names::PROCESS_EXECUTABLE_NAME)
        .or_else(|| text(names::PROCESS_EXECUTABLE_PATH).map(base_name))
        .or_else(|| command().map(base_name));
    if let (Some(process), Some(program)) = (process, program) {
        into.push(GraphFact::Labelled(process.clone(), program.into()));
    }
    if let (Some(id), Some(path)) = (entities.cgroup, text(names::TAPIO_CGROUP_PATH)) {
        let cgroup = entities.on_host(EntityKind::Cgroup, &value_text(id));
        into.push(GraphFact::Labelled(cgroup, path.into()));
    }
}

/// Extracts the name of the event's pod. Candidates and impact name pods of members by it, and the
/// members of a rule about spans or normal events state no other facts.
pub(super) fn extract_name(event: &ArchivedEvent<'_>, into: &mut Vec<GraphFact>) {
    let entities = EventEntities::of(event);
    if let Some(uid) = entities.pod {
        label_pod(&entities, &Entity::new(EntityKind::Pod, uid), into);
    }
}

fn label_pod(entities: &EventEntities<'_>, pod: &Entity, into: &mut Vec<GraphFact>) {
    if let Some(name) = entities.pod_name {
        let label = entities.namespace.map_or_else(|| name.to_owned(), |n| format!("{n}/{name}"));
        into.push(GraphFact::Labelled(pod.clone(), label.into()));
    }
}

/// Facts about the event's pod.
fn pod_facts(
    event: &ArchivedEvent<'_>,
    entities: &EventEntities<'_>,
    pod: &Entity,
    into: &mut Vec<GraphFact>,
) {
    let kind = event.kind_name();
    label_pod(entities, pod, into);
    let edge = |relation, to| GraphFact::EdgeSeen(Edge { from: pod.clone(), relation, to });
    for (key, workload) in WORKLOADS {
        if let Some(name) = event.text(key) {
            let owner = entities.in_namespace(EntityKind::Workload, &format!("{workload}/{name}"));
            into.push(edge(Relation::OwnedBy, owner));
        }
    }
    if let Some(volume) = VOLUMES.iter().find_map(|key| event.text(*key)) {
        let volume = entities.in_namespace(EntityKind::Volume, volume);
        into.push(edge(Relation::Mounts, volume));
    }
    let from_cni = kind == names::CNI_IP_ALLOCATED || kind == names::CNI_ADD;
    let local = from_cni.then(|| event.text(names::NETWORK_LOCAL_ADDRESS)).flatten();
    let own = event.text(names::K8S_POD_IP).or(local);
    if let Some(address) = own.or(entities.address.filter(|_| from_cni)) {
        into.push(edge(Relation::Provides, Entity::new(EntityKind::Address, address)));
    }
    if let Some(criticality) = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse) {
        into.push(GraphFact::Criticality(pod.clone(), criticality));
    }
    match kind {
        names::K8S_POD_READY => into.push(GraphFact::Ready(pod.clone(), true)),
        kind if NOT_READY.contains(&kind) => into.push(GraphFact::Ready(pod.clone(), false)),
        _ => {}
    }
    if kind == names::K8S_POD_DELETED {
        into.push(GraphFact::EntityEnded(pod.clone()));
    }
}

/// Facts about services that the event names, and that run in `within`.
fn service_facts(
    event: &ArchivedEvent<'_>,
    entities: &EventEntities<'_>,
    within: Option<&Entity>,
    into: &mut Vec<GraphFact>,
) {
    let pod = entities.pod.map(|uid| Entity::new(EntityKind::Pod, uid));
    let within = pod.as_ref().or(within);
    let names = [event.text(names::K8S_SERVICE_NAME), entities.service];
    let criticality = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse);
    for name in names.into_iter().flatten() {
        let service = entities.in_namespace(EntityKind::Service, name);
        if let Some(to) = within.cloned() {
            let edge = Edge { from: service.clone(), relation: Relation::Selects, to };
            into.push(GraphFact::EdgeSeen(edge));
        }
        if pod.is_none()
            && let Some(criticality) = criticality
        {
            into.push(GraphFact::Criticality(service, criticality));
        }
    }
}

/// Connections and listeners. The end that opened a connection has an ephemeral port, so only the
/// other end is an endpoint. An event that doesn't show which end it is states no endpoint.
fn connection_facts(
    event: &ArchivedEvent<'_>,
    entities: &EventEntities<'_>,
    owner: Option<&Entity>,
    into: &mut Vec<GraphFact>,
) {
    let Some(owner) = owner else { return };
    peer_facts(event, owner, into);
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
    let to = endpoint(entities.host, address, &value_text(port));
    into.push(GraphFact::EdgeSeen(Edge { from: owner.clone(), relation, to: to.clone() }));
    let at = Entity::new(EntityKind::Address, address);
    // Every host has the loopback address: an edge to it would relate unrelated entities.
    if !address.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback()) {
        into.push(GraphFact::EdgeSeen(Edge { from: to, relation: Relation::RunsIn, to: at }));
    }
}

/// The entity at the other end of the connection, where the event's collector resolved it.
fn peer_facts(event: &ArchivedEvent<'_>, owner: &Entity, into: &mut Vec<GraphFact>) {
    let pod = event.text(names::TAPIO_PEER_POD_UID).map(|uid| Entity::new(EntityKind::Pod, uid));
    let service = event.text(names::TAPIO_PEER_SERVICE_NAME).map(|name| {
        let namespace = event.text(names::TAPIO_PEER_NAMESPACE_NAME).unwrap_or_default();
        Entity::new(EntityKind::Service, &format!("{namespace}/{name}"))
    });
    for to in pod.into_iter().chain(service).filter(|to| to != owner) {
        let edge = Edge { from: owner.clone(), relation: Relation::TalksTo, to };
        into.push(GraphFact::EdgeSeen(edge));
    }
}

/// The fact that an `entity.relation` event states (docs/evidence.md).
fn stated_relation(event: &ArchivedEvent<'_>) -> Option<GraphFact> {
    let entity = |kind, name| {
        let kind = EntityKind::parse(event.text(kind)?)?;
        Some(Entity::new(kind, event.text(name).filter(|n| !n.is_empty())?))
    };
    let from = entity(names::TAPIO_RELATION_FROM_TYPE, names::TAPIO_RELATION_FROM_NAME)?;
    if let Some(criticality) = event.text(names::TAPIO_CRITICALITY).and_then(Criticality::parse) {
        return Some(GraphFact::Criticality(from, criticality));
    }
    let relation = Relation::parse(event.text(names::TAPIO_RELATION_TYPE)?)?;
    let to = entity(names::TAPIO_RELATION_TO_TYPE, names::TAPIO_RELATION_TO_NAME)?;
    let edge = Edge { from, relation, to };
    let ended = event.attribute(names::TAPIO_RELATION_ENDED) == Some(Value::Bool(true));
    Some(if ended { GraphFact::EdgeEnded(edge) } else { GraphFact::EdgeSeen(edge) })
}
