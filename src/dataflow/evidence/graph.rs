//! The entity graph: which process runs in which container, which pod is owned by which workload, who
//! talks to whom, as of any time.
//!
//! An edge is a set of seconds in which somebody saw it, and an entity (or an edge) a set of seconds
//! in which it ended. Sets of seconds are unions: the order in which they arrive doesn't matter, and
//! what arrives later about later times changes no answer about an earlier one.
//!
//! An edge holds at a second *t* if the latest second *s* ≤ *t* in which it was seen is no older than its
//! relation allows, and neither it nor one of its ends ended in `s..t`.

use std::collections::HashMap;

use super::super::lru::Lru;
use super::entity::{Entity, EntityKind};
use super::observer::Bounds;
use super::times::{Seconds, change, state};

/// How two entities are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Relation {
    /// A process runs in a container, a container in a pod, an endpoint at an address.
    RunsIn,
    /// A pod is owned by a workload.
    OwnedBy,
    /// A service selects a pod.
    Selects,
    /// A pod mounts a volume.
    Mounts,
    /// Somebody connects to an endpoint.
    TalksTo,
    /// A pod, unit or process is scheduled on a node.
    ScheduledOn,
    /// Somebody listens at an endpoint or has an address.
    Provides,
}

impl Relation {
    /// All of them, with the words used in output and in `entity.relation` events.
    pub const WORDS: [(Self, &'static str); 7] = [
        (Self::RunsIn, "runs-in"),
        (Self::OwnedBy, "owned-by"),
        (Self::Selects, "selects"),
        (Self::Mounts, "mounts"),
        (Self::TalksTo, "talks-to"),
        (Self::ScheduledOn, "scheduled-on"),
        (Self::Provides, "provides"),
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(r, _)| *r == self).map_or("", |(_, word)| word)
    }

    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, w)| *w == word).map(|(r, _)| *r)
    }

    /// For how many seconds an edge holds after it was seen last. What a thing is made of stays until
    /// it ends; who talks to whom is only known while they do.
    fn holds_s(self) -> u32 {
        match self {
            Self::TalksTo => 300,
            Self::Provides => 3_600,
            _ => u32::MAX,
        }
    }

    /// Whether the first entity of the edge depends on the second. An endpoint depends on who
    /// provides it, so there it is the other way round.
    fn first_depends(self) -> bool {
        self != Self::Provides
    }
}

/// An edge, from its first entity to its second.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Who …
    pub from: Entity,
    /// … is joined how …
    pub relation: Relation,
    /// … to whom.
    pub to: Entity,
}

/// An edge between slots.
type Key = (u32, Relation, u32);

/// One entity's part of the graph.
struct Facts {
    number: u32,
    /// Its edges, in both directions.
    edges: Vec<Key>,
    ended: Seconds,
    /// What a person calls it, since when.
    label: Option<(u32, Box<str>)>,
    /// Whether it could serve, from which second on.
    ready: Vec<(u32, bool)>,
    /// How much it matters, from which second on.
    criticality: Vec<(u32, Criticality)>,
}

/// How much a pod or service matters, as its owner labelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Criticality {
    /// Nobody waits for it.
    Low,
    /// What isn't labelled otherwise by somebody who labels.
    Medium,
    /// Users notice.
    High,
    /// The business stops.
    Critical,
}

impl Criticality {
    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

struct Line {
    seen: Seconds,
    ended: Seconds,
}

/// A process in a container in a pod.
const MOST_PARTS: usize = 2;
/// Entities a search looks at.
const MAX_REACHED: usize = 512;

/// The graph. Bounded: what wasn't seen for longest makes room.
pub(super) struct Graph {
    bounds: Bounds,
    entities: Lru<Entity, Facts>,
    /// Entities by number.
    names: HashMap<u32, Entity, ahash::RandomState>,
    next: u32,
    lines: HashMap<Key, Line, ahash::RandomState>,
    /// Edges refused because an entity had too many.
    pub(super) refused: u64,
}

impl Graph {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entities: Lru::new(bounds.entities.max(2)),
            names: HashMap::default(),
            next: 0,
            lines: HashMap::default(),
            refused: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entities.len()
    }

    pub(super) fn edges(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    fn facts(&mut self, entity: &Entity) -> Option<&mut Facts> {
        if self.entities.peek(entity).is_none() {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let facts = Facts {
                number,
                edges: Vec::new(),
                ended: Seconds::default(),
                label: None,
                ready: Vec::new(),
                criticality: Vec::new(),
            };
            self.names.insert(number, entity.clone());
            if let Some((_, gone)) = self.entities.insert(entity.clone(), facts) {
                self.forget(&gone);
            }
        }
        self.entities.get(entity)
    }

    /// Takes an evicted entity's edges away from its neighbours.
    fn forget(&mut self, gone: &Facts) {
        self.names.remove(&gone.number);
        for key in &gone.edges {
            self.lines.remove(key);
            let other = if key.0 == gone.number { key.2 } else { key.0 };
            let Some(entity) = self.names.get(&other) else {
                continue;
            };
            if let Some(facts) = self.entities.get(entity) {
                facts.edges.retain(|k| k != key);
            }
        }
    }

    fn line(&mut self, edge: &Edge) -> Option<&mut Line> {
        let from = self.facts(&edge.from)?.number;
        let to = self.facts(&edge.to)?.number;
        let key = (from, edge.relation, to);
        if !self.lines.contains_key(&key) {
            let is_full = |e: &Entity| {
                self.entities.peek(e).is_none_or(|f| f.edges.len() >= self.bounds.edges)
            };
            if from == to || is_full(&edge.from) || is_full(&edge.to) {
                self.refused += 1;
                return None;
            }
            self.facts(&edge.from)?.edges.push(key);
            self.facts(&edge.to)?.edges.push(key);
            self.lines.insert(key, Line { seen: Seconds::default(), ended: Seconds::default() });
        }
        self.lines.get_mut(&key)
    }

    /// An edge was seen.
    pub(super) fn see(&mut self, edge: &Edge, second: u32) {
        let most = self.bounds.history;
        if let Some(line) = self.line(edge) {
            line.seen.add(second, most);
        }
    }

    /// An edge ended.
    pub(super) fn part(&mut self, edge: &Edge, second: u32) {
        let most = self.bounds.history;
        if let Some(line) = self.line(edge) {
            line.ended.add(second, most);
        }
    }

    /// An entity ended, and all its edges with it.
    pub(super) fn end(&mut self, entity: &Entity, second: u32) {
        let most = self.bounds.history;
        if let Some(facts) = self.facts(entity) {
            facts.ended.add(second, most);
        }
    }

    /// What a person calls an entity. The earliest word counts.
    pub(super) fn name(&mut self, entity: &Entity, label: &str, second: u32) {
        if let Some(facts) = self.facts(entity) {
            let new = (second, Box::from(label));
            if facts.label.as_ref().is_none_or(|old| new < *old) {
                facts.label = Some(new);
            }
        }
    }

    /// An entity began or ceased to be able to serve.
    pub(super) fn ready(&mut self, entity: &Entity, ready: bool, second: u32) {
        let most = self.bounds.history;
        if let Some(facts) = self.facts(entity) {
            change(&mut facts.ready, second, ready, most);
        }
    }

    /// How much an entity matters.
    pub(super) fn matters(&mut self, entity: &Entity, criticality: Criticality, second: u32) {
        let most = self.bounds.history;
        if let Some(facts) = self.facts(entity) {
            change(&mut facts.criticality, second, criticality, most);
        }
    }

    /// How a person calls an entity.
    pub(super) fn text(&self, entity: &Entity) -> String {
        match self.entities.peek(entity).and_then(|f| f.label.as_ref()) {
            Some((_, label)) => entity.called(label),
            None => entity.to_string(),
        }
    }

    /// The same as a thing that is affected: which of the processes of one program it is, says nothing.
    pub(super) fn thing(&self, entity: &Entity) -> String {
        match self.entities.peek(entity).and_then(|f| f.label.as_ref()) {
            Some((_, label)) => format!("{} {label}", entity.kind.word()),
            None => entity.to_string(),
        }
    }

    /// What an entity is a part of: a process of its container, pod or unit, a container of its pod.
    pub(super) fn whole<'a>(&'a self, entity: &'a Entity, second: u32) -> &'a Entity {
        let mut whole = entity;
        for _ in 0..MOST_PARTS {
            let is_part = matches!(whole.kind, EntityKind::Process | EntityKind::Container);
            let within = is_part.then(|| self.joined(whole, Relation::RunsIn, true, second));
            match within.and_then(|all| all.first().copied()) {
                Some(next) => whole = next,
                None => break,
            }
        }
        whole
    }

    /// Whether an entity could serve; `None` where nothing was said.
    pub(super) fn is_ready(&self, entity: &Entity, second: u32) -> Option<bool> {
        state(&self.entities.peek(entity)?.ready, second)
    }

    /// How much an entity matters; `None` where nobody labelled it.
    pub(super) fn criticality(&self, entity: &Entity, second: u32) -> Option<Criticality> {
        state(&self.entities.peek(entity)?.criticality, second)
    }

    fn holds(&self, key: &Key, second: u32) -> bool {
        let Some(line) = self.lines.get(key) else {
            return false;
        };
        let Some(seen) = line.seen.latest(second) else {
            return false;
        };
        let ended = |seconds: &Seconds| {
            second > 0 && seconds.latest(second - 1).is_some_and(|end| end >= seen)
        };
        let facts = |number| self.names.get(&number).and_then(|e| self.entities.peek(e));
        second - seen <= key.1.holds_s()
            && !ended(&line.ended)
            && ![key.0, key.2].iter().any(|n| facts(*n).is_some_and(|f| ended(&f.ended)))
    }

    /// The entities joined to one as of a second: (relation, entity, whether the asked one is the
    /// edge's first), in order.
    pub(super) fn neighbours(
        &self,
        entity: &Entity,
        second: u32,
    ) -> Vec<(Relation, &Entity, bool)> {
        let Some(facts) = self.entities.peek(entity) else {
            return Vec::new();
        };
        let holding = facts.edges.iter().filter(|k| self.holds(k, second));
        let mut out: Vec<_> = holding
            .filter_map(|key| {
                let is_first = key.0 == facts.number;
                let other = self.names.get(if is_first { &key.2 } else { &key.0 })?;
                Some((key.1, other, is_first))
            })
            .collect();
        out.sort_unstable();
        out
    }

    /// The second entities of an entity's edges of one relation, or the first ones of the edges that
    /// lead to it.
    pub(super) fn joined(
        &self,
        entity: &Entity,
        relation: Relation,
        is_first: bool,
        second: u32,
    ) -> Vec<&Entity> {
        let all = self.neighbours(entity, second).into_iter();
        all.filter(|(r, _, first)| *r == relation && *first == is_first).map(|n| n.1).collect()
    }

    /// What an entity depends on (`up`), or what depends on it, within some steps as of a second:
    /// each with its distance, nearest first, in order.
    pub(super) fn reach(
        &self,
        entity: &Entity,
        up: bool,
        steps: u32,
        second: u32,
    ) -> Vec<(u32, &Entity)> {
        let mut out: Vec<(u32, &Entity)> = Vec::new();
        let mut edge: Vec<&Entity> = vec![entity];
        for step in 1..=steps {
            let mut next: Vec<&Entity> = Vec::new();
            for from in edge {
                for (relation, other, is_first) in self.neighbours(from, second) {
                    let depends = is_first == relation.first_depends();
                    let is_new = other != entity && !out.iter().any(|(_, e)| *e == other);
                    if depends == up && is_new && out.len() < MAX_REACHED {
                        out.push((step, other));
                        next.push(other);
                    }
                }
            }
            edge = next;
        }
        out.sort_unstable();
        out
    }
}

#[cfg(test)]
mod tests;
