//! Incidents: which stories have one cause. A story belongs to the incident of an earlier one if
//! both share events, are about one entity, if one's entity depends on the other's, or if their
//! rules are known to explain each other on one node. The incident of a story is determined when it
//! is assessed first, and kept: who was notified about the parent needn't be about the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use super::entity::{Entity, EntityKind, endpoint};
use super::explained_rules::{Scope, alike, explains, is_known};
use super::graph::Graph;
use super::relation::Relation;
use super::second_set::second;
use crate::lru::Lru;
use tapio_core::event::{CauseEntity, EventId, Incident, IncidentRole, Story, StoryState, TraceId};

/// Stories that are kept; the least recently assessed one is forgotten.
const MAX_STORIES: usize = 2_048;
/// Members of a story by which others are related to it.
const MAX_MEMBERS: usize = 16;
/// Entities that a story is about; of one about more, the first count.
const MAX_SUBJECTS: usize = 16;
/// Stories of one entity, or of one rule, that are kept.
const MAX_ALIKE: usize = 16;
/// The longest time between the end of a story and the beginning of another of its incident.
const LINGER_NS: u64 = 300_000_000_000;
/// Steps between an entity and one that it depends on: a process in a container talks to an
/// endpoint that a pod provides.
const MAX_STEPS: u32 = 3;

/// A story that others may be related to.
struct Known {
    incident: Option<Incident>,
    rule: String,
    subjects: Vec<Entity>,
    members: Vec<EventId>,
    scopes: Scopes,
    span_ns: Range<u64>,
}

impl Known {
    /// Whether both may be of one incident by their times.
    fn is_near(&self, span_ns: &Range<u64>) -> bool {
        self.span_ns.start <= span_ns.end.saturating_add(LINGER_NS)
            && span_ns.start <= self.span_ns.end.saturating_add(LINGER_NS)
    }
}

/// Where a story is.
struct Scopes {
    nodes: Vec<String>,
    namespaces: Vec<String>,
}

impl Scopes {
    fn new(graph: &Graph, story: &Story, subjects: &[Entity]) -> Self {
        let nodes = of_key(story, "host.name").chain(of_key(story, "k8s.node.name"));
        let pods = subjects.iter().filter(|subject| subject.kind == EntityKind::Pod);
        let at = second(story.first_ns);
        let of_pods = pods.flat_map(|pod| graph.related(pod, Relation::ScheduledOn, true, at));
        let of_pods = of_pods.map(|node| graph.cause_entity(node).name);
        let namespaced = subjects
            .iter()
            .filter(|subject| matches!(subject.kind, EntityKind::Pod | EntityKind::Volume));
        let names = namespaced.map(|subject| graph.cause_entity(subject).name);
        let of_subjects =
            names.filter_map(|name| name.split_once('/').map(|(space, _)| space.to_owned()));
        let of_story = of_key(story, "k8s.namespace.name").map(str::to_owned);
        Self {
            nodes: nodes.map(str::to_owned).chain(of_pods).collect(),
            namespaces: of_story.chain(of_subjects).collect(),
        }
    }

    fn share(&self, other: &Self, scope: Scope) -> bool {
        let shares = |a: &[String], b: &[String]| a.iter().any(|name| b.contains(name));
        match scope {
            Scope::Cluster => true,
            Scope::Node => shares(&self.nodes, &other.nodes),
            Scope::Namespace => shares(&self.namespaces, &other.namespaces),
        }
    }
}

/// The latest stories, by all that relates them.
pub(super) struct Incidents {
    stories: Lru<TraceId, Known>,
    by_subject: HashMap<Entity, Vec<TraceId>, ahash::RandomState>,
    by_member: HashMap<EventId, TraceId, ahash::RandomState>,
    /// Stories of the rules that explain others, or that others explain.
    by_rule: HashMap<String, Vec<TraceId>, ahash::RandomState>,
}

/// A relation to an earlier story.
struct Related {
    to: TraceId,
    role: IncidentRole,
    because: String,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            stories: Lru::new(MAX_STORIES),
            by_subject: HashMap::default(),
            by_member: HashMap::default(),
            by_rule: HashMap::default(),
        }
    }
}

/// The disk of a block device: `nvme0n1p2` is part of `nvme0`, `sda1` of `sda`.
fn disk(device: &str) -> &str {
    let without_digits = device.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_partition_of = |letter| {
        let before = without_digits.strip_suffix(letter)?;
        before.ends_with(|c: char| c.is_ascii_digit()).then_some(before)
    };
    if let Some(numbers) = device.strip_prefix("nvme") {
        let controller = numbers.find(|c: char| !c.is_ascii_digit());
        return controller.map_or(device, |at| &device[.."nvme".len() + at]);
    }
    if let Some(disk) = is_partition_of('p') {
        return disk;
    }
    match device.as_bytes() {
        [b's' | b'v' | b'h', b'd', ..] | [b'x', b'v', b'd', ..] => without_digits,
        _ => device,
    }
}

/// The values of a key in the story's join key.
fn of_key<'a>(story: &'a Story, name: &'a str) -> impl Iterator<Item = &'a str> {
    let all = story.key.iter().filter(move |(key, value)| key == name && !value.is_empty());
    all.map(|(_, value)| value.as_str())
}

/// The entities that a story is about: those of its join key, and of its members. A unit writes
/// about others, too, and a program runs for others, as kubelet: they count where the story's key
/// has them.
fn subjects(graph: &Graph, story: &Story, observed: &[Entity]) -> Vec<Entity> {
    let host = of_key(story, "host.name").next().unwrap_or("");
    let on_host = |kind, name: &str| Entity::new(kind, &format!("{host}/{name}"));
    let mut subjects = Vec::new();
    let mut is_of_process = false;
    for (name, value) in story.key.iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_str() {
            "systemd.unit" => subjects.push(on_host(EntityKind::Unit, value)),
            "attributes.tapio.block.device" => {
                subjects.push(on_host(EntityKind::Device, disk(value)));
            }
            "service.name" => subjects.push(service(story, value)),
            "process.pid" | "attributes.process.executable.name" => is_of_process = true,
            _ => {}
        }
    }
    subjects.extend(peer(story, host));
    let at = second(story.first_ns);
    for entity in observed {
        match entity.kind {
            EntityKind::Node | EntityKind::Address | EntityKind::Cgroup | EntityKind::Unit => {}
            EntityKind::Process if is_of_process => {
                subjects.extend([entity.clone(), surroundings(graph, entity, at)]);
            }
            EntityKind::Process => {}
            _ => subjects.push(entity.clone()),
        }
    }
    subjects.sort_unstable();
    subjects.dedup();
    subjects.truncate(MAX_SUBJECTS);
    subjects
}

/// The address that a story about connections is about, with its port if the story is about one.
fn peer(story: &Story, host: &str) -> Option<Entity> {
    let address = of_key(story, "attributes.network.peer.address").next()?;
    let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match of_key(story, "attributes.network.peer.port").next() {
        // Every host has it.
        _ if is_loopback && host.is_empty() => None,
        Some(port) => Some(endpoint(Some(host), address, port)),
        None if is_loopback => None,
        None => Some(Entity::new(EntityKind::Address, address)),
    }
}

/// A process's container, pod or unit. Outside of these, processes of its program on its node: a
/// loop of crashes or kills has a process each.
fn surroundings(graph: &Graph, process: &Entity, at: u32) -> Entity {
    let within = graph.enclosing(process, at);
    if within.kind != EntityKind::Process {
        return within.clone();
    }
    let CauseEntity { name, node, .. } = graph.cause_entity(process);
    Entity::new(EntityKind::Process, &format!("{node}/{name}"))
}

/// The service of this name, in the namespace of the story's likeliest cause.
fn service(story: &Story, name: &str) -> Entity {
    let cause = story.root_cause.first().and_then(|candidate| candidate.entity.as_ref());
    match cause.and_then(|entity| entity.name.split_once('/')) {
        Some((namespace, _)) => Entity::new(EntityKind::Service, &format!("{namespace}/{name}")),
        None => Entity::new(EntityKind::Service, name),
    }
}

impl Incidents {
    /// The incident of a story, by its own entities (`observed`) and what is known now. `None` for
    /// the first story of an incident.
    pub(super) fn of(
        &mut self,
        graph: &Graph,
        story: &Story,
        observed: &[Entity],
    ) -> Option<Incident> {
        if story.is_lifecycle() || story.state == StoryState::Retracted {
            return None;
        }
        let span_ns = story.first_ns..story.last_ns;
        if let Some(known) = self.stories.get(&story.id) {
            known.span_ns.end = known.span_ns.end.max(span_ns.end);
            return known.incident.clone();
        }
        let subjects = subjects(graph, story, observed);
        let scopes = Scopes::new(graph, story, &subjects);
        let known = Known {
            incident: self.determine(graph, story, &subjects, &scopes),
            rule: story.rule.clone(),
            members: story.members.iter().take(MAX_MEMBERS).map(|member| member.id).collect(),
            scopes,
            subjects,
            span_ns,
        };
        let incident = known.incident.clone();
        self.insert(story.id, known);
        incident
    }

    fn determine(
        &self,
        graph: &Graph,
        story: &Story,
        subjects: &[Entity],
        scopes: &Scopes,
    ) -> Option<Incident> {
        // The story that it replaces, or goes on with, keeps its place.
        if let Some(replaced) = story.provisional.and_then(|id| self.stories.peek(&id)) {
            return replaced.incident.clone();
        }
        let continued = story.continues.map(|to| Related {
            to,
            role: IncidentRole::Same,
            because: "it continues an earlier story of the same rule and key".into(),
        });
        let related = continued
            .filter(|related| self.stories.peek(&related.to).is_some())
            .or_else(|| self.sharing(story))
            .or_else(|| self.about_same(graph, story, subjects))
            .or_else(|| self.dependent(graph, story, subjects))
            .or_else(|| self.explained(story, scopes))?;
        let parent = self.stories.peek(&related.to)?.incident.as_ref();
        let id = parent.map_or(related.to, |incident| incident.id);
        Some(Incident { id, role: related.role, because: related.because })
    }

    /// The earliest of these stories that is near by time.
    fn earliest(
        &self,
        story: &Story,
        of: impl Iterator<Item = TraceId>,
    ) -> Option<(TraceId, &Known)> {
        let span_ns = story.first_ns..story.last_ns;
        let known = of.filter_map(|id| Some((id, self.stories.peek(&id)?)));
        let near = known.filter(|(id, known)| *id != story.id && known.is_near(&span_ns));
        near.min_by_key(|(id, known)| (known.span_ns.start, *id))
    }

    fn sharing(&self, story: &Story) -> Option<Related> {
        let members = story.members.iter().take(MAX_MEMBERS);
        let others = members.filter_map(|member| self.by_member.get(&member.id).copied());
        let (to, known) = self.earliest(story, others)?;
        let shared = story.members.iter().filter(|member| known.members.contains(&member.id));
        let because = match shared.count() {
            1 => "both have one event".to_owned(),
            shared => format!("both have {shared} events"),
        };
        Some(Related { to, role: IncidentRole::Same, because })
    }

    fn of_subject(&self, entity: &Entity) -> impl Iterator<Item = TraceId> {
        self.by_subject.get(entity).into_iter().flatten().copied()
    }

    /// Stories about the same entity, or about one in the other: a process in its container, a
    /// container in its pod.
    fn about_same(&self, graph: &Graph, story: &Story, subjects: &[Entity]) -> Option<Related> {
        let at = second(story.first_ns);
        for subject in subjects {
            if let Some((to, _)) = self.earliest(story, self.of_subject(subject)) {
                let because = format!("both are about {}", graph.describe(subject));
                return Some(Related { to, role: IncidentRole::Same, because });
            }
            for nested in graph.nested(subject, at) {
                if let Some((to, _)) = self.earliest(story, self.of_subject(nested)) {
                    let (a, b) = (graph.describe(subject), graph.describe(nested));
                    let because = format!("{a} and {b} are parts of one another");
                    return Some(Related { to, role: IncidentRole::Same, because });
                }
            }
        }
        None
    }

    /// Stories about what its entities depend on, or about what depends on them.
    fn dependent(&self, graph: &Graph, story: &Story, subjects: &[Entity]) -> Option<Related> {
        let at = second(story.first_ns);
        for (is_up, role) in [(true, IncidentRole::Effect), (false, IncidentRole::Cause)] {
            for subject in subjects {
                for (_, other) in graph.reachable(subject, is_up, MAX_STEPS, at) {
                    // A workload and a service stand for all their pods.
                    if matches!(other.kind, EntityKind::Node | EntityKind::Workload) {
                        continue;
                    }
                    if let Some((to, _)) = self.earliest(story, self.of_subject(other)) {
                        let (a, b) = (graph.describe(subject), graph.describe(other));
                        let because = match role {
                            IncidentRole::Effect => format!("{a} depends on {b}"),
                            _ => format!("{b} depends on {a}"),
                        };
                        return Some(Related { to, role, because });
                    }
                }
            }
        }
        None
    }

    /// Stories of a rule that explains this one's, or that this one's explains.
    fn explained(&self, story: &Story, scopes: &Scopes) -> Option<Related> {
        if !is_known(&story.rule) {
            return None;
        }
        let role = |known: &Known| {
            let is_shared = |scope: &Scope| scopes.share(&known.scopes, *scope);
            let by_known = explains(&known.rule, &story.rule).filter(is_shared);
            let by_story = explains(&story.rule, &known.rule).filter(is_shared);
            if known.rule == story.rule {
                return alike(&story.rule).filter(is_shared).map(|_| IncidentRole::Same);
            }
            match (by_known, by_story) {
                (Some(_), _) => Some(IncidentRole::Effect),
                (None, Some(_)) => Some(IncidentRole::Cause),
                (None, None) => None,
            }
        };
        let all = self.by_rule.values().flatten().copied();
        let related = all.filter(|id| self.stories.peek(id).and_then(role).is_some());
        let (to, known) = self.earliest(story, related)?;
        let role = role(known)?;
        let because = match role {
            IncidentRole::Same => format!("both are stories of {} at one place", story.rule),
            IncidentRole::Cause => format!("{} explains {}", story.rule, known.rule),
            IncidentRole::Effect => format!("{} explains {}", known.rule, story.rule),
        };
        Some(Related { to, role, because })
    }

    fn insert(&mut self, id: TraceId, known: Known) {
        for subject in &known.subjects {
            add(&mut self.by_subject, subject, id);
        }
        for member in &known.members {
            self.by_member.entry(*member).or_insert(id);
        }
        if is_known(&known.rule) {
            add(&mut self.by_rule, &known.rule, id);
        }
        if let Some((evicted, known)) = self.stories.insert(id, known) {
            self.forget(evicted, &known);
        }
    }

    fn forget(&mut self, id: TraceId, known: &Known) {
        for subject in &known.subjects {
            remove(&mut self.by_subject, subject, id);
        }
        for member in &known.members {
            if self.by_member.get(member) == Some(&id) {
                self.by_member.remove(member);
            }
        }
        remove(&mut self.by_rule, &known.rule, id);
    }
}

fn add<K: std::hash::Hash + Eq + Clone>(
    all: &mut HashMap<K, Vec<TraceId>, ahash::RandomState>,
    key: &K,
    id: TraceId,
) {
    let ids = all.entry(key.clone()).or_default();
    if ids.len() >= MAX_ALIKE {
        ids.remove(0);
    }
    ids.push(id);
}

fn remove<K: std::hash::Hash + Eq>(
    all: &mut HashMap<K, Vec<TraceId>, ahash::RandomState>,
    key: &K,
    id: TraceId,
) {
    if let Some(ids) = all.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
