//! The entity graph: containers of processes, owners of pods, connections and other relations, as
//! of any time.
//!
//! An edge has the set of seconds in which it was seen; an edge and an entity have the set of
//! seconds in which they ended. Sets are merged by union, so the order of arrival doesn't matter,
//! and facts about later times change no answer about an earlier time.
//!
//! An edge holds at second *t* if the latest second *s* ≤ *t* in which it was seen isn't older than
//! its relation allows, and neither the edge nor one of its entities ended in `s..t`.

use std::collections::{HashMap, HashSet};

use super::bounds::Bounds;
use super::entity::{AffectedEntity, Entity, EntityKind};
use super::relation::{Criticality, Edge, Relation};
use super::second_set::{SecondSet, record_change, state_at};
use crate::lru::Lru;
use tapio_core::event::CauseEntity;

/// Key of an edge: the numbers of its entities.
type EdgeKey = (u32, Relation, u32);

/// One entity of the graph.
struct EntityState {
    number: u32,
    /// Its edges, in both directions.
    edges: Vec<EdgeKey>,
    ended: SecondSet,
    /// Its name for people, and the second of the fact that states it.
    label: Option<(u32, Box<str>)>,
    /// Changes of its readiness.
    ready: Vec<(u32, bool)>,
    /// Changes of its criticality.
    criticality: Vec<(u32, Criticality)>,
}

/// The times of an edge.
struct EdgeTimes {
    seen: SecondSet,
    ended: SecondSet,
}

/// Maximum nesting: a process in a container in a pod.
const MAX_NESTING: usize = 2;
/// Maximum number of entities that a search returns.
const MAX_REACHED: usize = 512;

/// The graph. Bounded: the entity unused for the longest time is evicted.
pub(super) struct Graph {
    bounds: Bounds,
    entities: Lru<Entity, EntityState>,
    /// Entities by number.
    by_number: HashMap<u32, Entity, ahash::RandomState>,
    next_number: u32,
    edges: HashMap<EdgeKey, EdgeTimes, ahash::RandomState>,
    /// Edges refused because an entity had the maximum number.
    pub(super) refused: u64,
}

impl Graph {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entities: Lru::new(bounds.entities.max(2)),
            by_number: HashMap::default(),
            next_number: 0,
            edges: HashMap::default(),
            refused: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entities.len()
    }

    pub(super) fn edge_count(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.entities.evicted
    }

    /// Sets the number of entities; evicts those beyond it.
    pub(super) fn limit(&mut self, entities: usize) {
        for (_, evicted) in self.entities.limit(entities.max(2)) {
            self.remove_edges_of(&evicted);
        }
    }

    /// The state of an entity, which is added if it is new.
    fn entity(&mut self, entity: &Entity) -> Option<&mut EntityState> {
        if self.entities.peek(entity).is_none() {
            let number = self.next_number;
            self.next_number = self.next_number.wrapping_add(1);
            let state = EntityState {
                number,
                edges: Vec::new(),
                ended: SecondSet::default(),
                label: None,
                ready: Vec::new(),
                criticality: Vec::new(),
            };
            self.by_number.insert(number, entity.clone());
            if let Some((_, evicted)) = self.entities.insert(entity.clone(), state) {
                self.remove_edges_of(&evicted);
            }
        }
        self.entities.get(entity)
    }

    /// Removes an evicted entity's edges, also from its neighbours.
    fn remove_edges_of(&mut self, evicted: &EntityState) {
        self.by_number.remove(&evicted.number);
        for key in &evicted.edges {
            self.edges.remove(key);
            let other = if key.0 == evicted.number { key.2 } else { key.0 };
            let Some(entity) = self.by_number.get(&other) else {
                continue;
            };
            if let Some(state) = self.entities.get(entity) {
                state.edges.retain(|k| k != key);
            }
        }
    }

    /// The times of an edge, which is added if it is new. `None` if it is refused.
    fn edge_times(&mut self, edge: &Edge) -> Option<&mut EdgeTimes> {
        let from = self.entity(&edge.from)?.number;
        let to = self.entity(&edge.to)?.number;
        let key = (from, edge.relation, to);
        if !self.edges.contains_key(&key) {
            let is_full = |e: &Entity| {
                self.entities.peek(e).is_none_or(|f| f.edges.len() >= self.bounds.edges)
            };
            if from == to || is_full(&edge.from) || is_full(&edge.to) {
                self.refused += 1;
                return None;
            }
            self.entity(&edge.from)?.edges.push(key);
            self.entity(&edge.to)?.edges.push(key);
            self.edges
                .insert(key, EdgeTimes { seen: SecondSet::default(), ended: SecondSet::default() });
        }
        self.edges.get_mut(&key)
    }

    /// Records that an edge was seen.
    pub(super) fn add_edge(&mut self, edge: &Edge, second: u32) {
        let max = self.bounds.history;
        if let Some(times) = self.edge_times(edge) {
            times.seen.insert(second, max);
        }
    }

    /// Records that an edge ended.
    pub(super) fn end_edge(&mut self, edge: &Edge, second: u32) {
        let max = self.bounds.history;
        if let Some(times) = self.edge_times(edge) {
            times.ended.insert(second, max);
        }
    }

    /// Records that an entity ended, and with it all its edges.
    pub(super) fn end_entity(&mut self, entity: &Entity, second: u32) {
        let max = self.bounds.history;
        if let Some(state) = self.entity(entity) {
            state.ended.insert(second, max);
        }
    }

    /// Sets an entity's name for people. The earliest one is kept.
    pub(super) fn set_label(&mut self, entity: &Entity, label: &str, second: u32) {
        if let Some(state) = self.entity(entity) {
            let new = (second, Box::from(label));
            if state.label.as_ref().is_none_or(|old| new < *old) {
                state.label = Some(new);
            }
        }
    }

    /// Records that an entity became ready, or ceased to be.
    pub(super) fn set_ready(&mut self, entity: &Entity, ready: bool, second: u32) {
        let max = self.bounds.history;
        if let Some(state) = self.entity(entity) {
            record_change(&mut state.ready, second, ready, max);
        }
    }

    /// An entity as a candidate for a root cause has it.
    pub(super) fn cause_entity(&self, entity: &Entity) -> CauseEntity {
        let label = self.entities.peek(entity).and_then(|state| state.label.as_ref());
        entity.cause(label.map(|(_, label)| &**label))
    }

    /// Records an entity's criticality.
    pub(super) fn set_criticality(
        &mut self,
        entity: &Entity,
        criticality: Criticality,
        second: u32,
    ) {
        let max = self.bounds.history;
        if let Some(state) = self.entity(entity) {
            record_change(&mut state.criticality, second, criticality, max);
        }
    }

    /// Describes an entity, by its label if it has one.
    pub(super) fn describe(&self, entity: &Entity) -> String {
        match self.entities.peek(entity).and_then(|f| f.label.as_ref()) {
            Some((_, label)) => entity.describe_as(label),
            None => entity.to_string(),
        }
    }

    /// The entity as the impact names it. A process is named by its program, without its pid.
    pub(super) fn affected(&self, entity: &Entity) -> AffectedEntity {
        let label = self.entities.peek(entity).and_then(|e| e.label.as_ref());
        entity.affected(label.map(|(_, label)| &**label))
    }

    /// The outermost entity that an entity runs in: a process in its container, pod or unit, a
    /// container in its pod.
    pub(super) fn enclosing<'a>(&'a self, entity: &'a Entity, second: u32) -> &'a Entity {
        let mut outer = entity;
        for _ in 0..MAX_NESTING {
            let is_part = matches!(outer.kind, EntityKind::Process | EntityKind::Container);
            let within = is_part.then(|| self.related(outer, Relation::RunsIn, true, second));
            match within.and_then(|all| all.first().copied()) {
                Some(next) => outer = next,
                None => break,
            }
        }
        outer
    }

    /// The entities that an entity runs in, and those that run in it, each with the next one.
    pub(super) fn nested<'a>(&'a self, entity: &'a Entity, second: u32) -> Vec<&'a Entity> {
        let mut found: Vec<&Entity> = Vec::new();
        for is_inner in [true, false] {
            let mut frontier = vec![entity];
            for _ in 0..MAX_NESTING {
                let next = frontier
                    .iter()
                    .flat_map(|of| self.related(of, Relation::RunsIn, is_inner, second));
                frontier = next.take(MAX_REACHED).collect();
                found.extend(&frontier);
            }
        }
        found
    }

    /// Whether an entity was ready; `None` if unknown.
    pub(super) fn is_ready(&self, entity: &Entity, second: u32) -> Option<bool> {
        state_at(&self.entities.peek(entity)?.ready, second)
    }

    /// An entity's criticality; `None` if it has no label.
    pub(super) fn criticality(&self, entity: &Entity, second: u32) -> Option<Criticality> {
        state_at(&self.entities.peek(entity)?.criticality, second)
    }

    /// Whether an edge holds as of a second.
    fn holds(&self, key: &EdgeKey, second: u32) -> bool {
        let Some(times) = self.edges.get(key) else {
            return false;
        };
        let Some(seen) = times.seen.latest(second) else {
            return false;
        };
        let ended = |seconds: &SecondSet| {
            second > 0 && seconds.latest(second - 1).is_some_and(|end| end >= seen)
        };
        let state = |number| self.by_number.get(&number).and_then(|e| self.entities.peek(e));
        second - seen <= key.1.max_age_s()
            && !ended(&times.ended)
            && ![key.0, key.2].iter().any(|n| state(*n).is_some_and(|e| ended(&e.ended)))
    }

    /// The neighbours by one relation, with the entity as the edge's first one or as its second
    /// one, in order.
    pub(super) fn related(
        &self,
        entity: &Entity,
        relation: Relation,
        is_first: bool,
        second: u32,
    ) -> Vec<&Entity> {
        let Some(state) = self.entities.peek(entity) else { return Vec::new() };
        let of_relation =
            state.edges.iter().filter(|k| k.1 == relation && (k.0 == state.number) == is_first);
        let holding = of_relation.filter(|k| self.holds(k, second));
        let mut out: Vec<&Entity> = holding
            .filter_map(|key| self.by_number.get(if is_first { &key.2 } else { &key.0 }))
            .collect();
        out.sort_unstable();
        out
    }

    /// The dependencies of an entity (`up`), or its dependents, within some steps as of a second:
    /// each with its distance, in order of distance. Looks at [`Bounds::searched_edges`] at most.
    pub(super) fn reachable(
        &self,
        entity: &Entity,
        up: bool,
        steps: u32,
        second: u32,
    ) -> Vec<(u32, &Entity)> {
        let mut out: Vec<(u32, &Entity)> = Vec::new();
        let mut reached: HashSet<u32, ahash::RandomState> = HashSet::default();
        reached.extend(self.entities.peek(entity).map(|state| state.number));
        let mut frontier: Vec<&Entity> = vec![entity];
        let mut edges_left = self.bounds.searched_edges;
        for step in 1..=steps {
            let mut next: Vec<&Entity> = Vec::new();
            for state in frontier.iter().filter_map(|from| self.entities.peek(from)) {
                let searched = state.edges.iter().take(edges_left);
                edges_left -= searched.len();
                for key in searched {
                    let is_first = key.0 == state.number;
                    // First: a hub has thousands of dependents, and few dependencies.
                    if (is_first == key.1.first_depends_on_second()) != up {
                        continue;
                    }
                    let number = if is_first { key.2 } else { key.0 };
                    if reached.contains(&number) || !self.holds(key, second) {
                        continue;
                    }
                    reached.insert(number);
                    next.extend(self.by_number.get(&number));
                }
            }
            next.sort_unstable();
            next.truncate(MAX_REACHED - out.len());
            out.extend(next.iter().map(|other| (step, *other)));
            frontier = next;
        }
        out
    }
}

#[cfg(test)]
mod tests;
