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

use super::entity::Entity;
use super::lru::Lru;

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

/// Seconds, as disjoint ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seconds {
    ranges: Vec<(u32, u32)>,
}

/// Ranges that are kept; past it the two with the smallest gap become one.
const MAX_RANGES: usize = 64;

impl Seconds {
    /// Adds a second.
    pub(super) fn add(&mut self, second: u32) {
        let at = self.ranges.partition_point(|(_, last)| *last < second);
        if self.ranges.get(at).is_some_and(|(first, _)| *first <= second) {
            return;
        }
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(second);
        let joins_right =
            self.ranges.get(at).is_some_and(|(first, _)| second.checked_add(1) == Some(*first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = second,
            (false, true) => self.ranges[at].0 = second,
            (false, false) => self.ranges.insert(at, (second, second)),
        }
        if self.ranges.len() > MAX_RANGES {
            let gap = |i: &usize| self.ranges[i + 1].0 - self.ranges[*i].1;
            if let Some(i) = (0..self.ranges.len() - 1).min_by_key(gap) {
                self.ranges[i].1 = self.ranges[i + 1].1;
                self.ranges.remove(i + 1);
            }
        }
    }

    /// The latest second up to `second`.
    pub(super) fn latest(&self, second: u32) -> Option<u32> {
        let at = self.ranges.partition_point(|(first, _)| *first <= second);
        self.ranges.get(at.checked_sub(1)?).map(|(_, last)| (*last).min(second))
    }
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

/// Edges of one entity; further ones aren't followed.
const MAX_EDGES: usize = 4_096;
/// Changes of a state that are remembered.
const MAX_CHANGES: usize = 64;
/// Entities a search looks at.
const MAX_REACHED: usize = 512;

/// The graph. Bounded: what wasn't seen for longest makes room.
pub(super) struct Graph {
    entities: Lru<Entity, Facts>,
    /// Entities by number.
    names: HashMap<u32, Entity, ahash::RandomState>,
    next: u32,
    lines: HashMap<Key, Line, ahash::RandomState>,
    /// Edges refused because an entity had too many.
    pub(super) refused: u64,
}

impl Graph {
    pub(super) fn new(entities: usize) -> Self {
        Self {
            entities: Lru::new(entities.max(2)),
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
            let is_full =
                |e: &Entity| self.entities.peek(e).is_none_or(|f| f.edges.len() >= MAX_EDGES);
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
        if let Some(line) = self.line(edge) {
            line.seen.add(second);
        }
    }

    /// An edge ended.
    pub(super) fn part(&mut self, edge: &Edge, second: u32) {
        if let Some(line) = self.line(edge) {
            line.ended.add(second);
        }
    }

    /// An entity ended, and all its edges with it.
    pub(super) fn end(&mut self, entity: &Entity, second: u32) {
        if let Some(facts) = self.facts(entity) {
            facts.ended.add(second);
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
        if let Some(facts) = self.facts(entity) {
            change(&mut facts.ready, second, ready);
        }
    }

    /// How much an entity matters.
    pub(super) fn matters(&mut self, entity: &Entity, criticality: Criticality, second: u32) {
        if let Some(facts) = self.facts(entity) {
            change(&mut facts.criticality, second, criticality);
        }
    }

    /// How a person calls an entity.
    pub(super) fn text(&self, entity: &Entity) -> String {
        match self.entities.peek(entity).and_then(|f| f.label.as_ref()) {
            Some((_, label)) => format!("{} {label}", entity.kind.word()),
            None => entity.to_string(),
        }
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

/// Adds a change of a state; of two in one second the larger counts, whichever came first.
fn change<T: Copy + Ord>(changes: &mut Vec<(u32, T)>, second: u32, to: T) {
    match changes.binary_search_by_key(&second, |c| c.0) {
        Ok(at) => changes[at].1 = changes[at].1.max(to),
        Err(at) => {
            changes.insert(at, (second, to));
            if changes.len() > MAX_CHANGES {
                changes.remove(0);
            }
        }
    }
}

fn state<T: Copy>(changes: &[(u32, T)], second: u32) -> Option<T> {
    let at = changes.partition_point(|(since, _)| *since <= second);
    changes.get(at.checked_sub(1)?).map(|(_, state)| *state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entity::EntityKind;
    use super::*;

    fn pod(name: &str) -> Entity {
        Entity::new(EntityKind::Pod, name)
    }

    fn edge(from: Entity, relation: Relation, to: Entity) -> Edge {
        Edge { from, relation, to }
    }

    fn node() -> Entity {
        Entity::new(EntityKind::Node, "n")
    }

    #[derive(Clone, Debug)]
    enum Fact {
        Seen(usize, u32),
        Parted(usize, u32),
        Ended(usize, u32),
    }

    fn fact() -> impl Strategy<Value = Fact> {
        (0u8..4, 0usize..6, 0u32..600).prop_map(|(what, which, second)| match what {
            0 => Fact::Parted(which, second),
            1 => Fact::Ended(which % 3, second),
            _ => Fact::Seen(which, second),
        })
    }

    /// Six edges between three entities.
    fn pool() -> (Vec<Entity>, Vec<Edge>) {
        let entities = vec![pod("a"), pod("b"), node()];
        let [a, b, n] = [entities[0].clone(), entities[1].clone(), entities[2].clone()];
        let edges = vec![
            edge(a.clone(), Relation::ScheduledOn, n.clone()),
            edge(b.clone(), Relation::ScheduledOn, n),
            edge(a.clone(), Relation::TalksTo, b.clone()),
            edge(b.clone(), Relation::TalksTo, a.clone()),
            edge(a.clone(), Relation::Mounts, b.clone()),
            edge(b, Relation::Provides, a),
        ];
        (entities, edges)
    }

    /// From the definition, over a plain list of facts.
    fn naive(facts: &[Fact], which: usize, second: u32) -> bool {
        let (entities, edges) = pool();
        let edge = &edges[which];
        let seen = facts.iter().filter_map(|f| match f {
            Fact::Seen(w, s) if *w == which && *s <= second => Some(*s),
            _ => None,
        });
        let Some(seen) = seen.max() else { return false };
        let ended = facts.iter().any(|f| match f {
            Fact::Parted(w, s) => *w == which && (seen..second).contains(s),
            Fact::Ended(e, s) => {
                [&edge.from, &edge.to].contains(&&entities[*e]) && (seen..second).contains(s)
            }
            Fact::Seen(..) => false,
        });
        second - seen <= edge.relation.holds_s() && !ended
    }

    fn graph_of(facts: &[Fact]) -> Graph {
        let (entities, edges) = pool();
        let mut graph = Graph::new(64);
        for fact in facts {
            match fact {
                Fact::Seen(which, second) => graph.see(&edges[*which], *second),
                Fact::Parted(which, second) => graph.part(&edges[*which], *second),
                Fact::Ended(which, second) => graph.end(&entities[*which], *second),
            }
        }
        graph
    }

    fn answer(graph: &Graph, edge: &Edge, second: u32) -> bool {
        graph.joined(&edge.from, edge.relation, true, second).contains(&&edge.to)
    }

    proptest! {
        #[test]
        fn answers_equal_a_naive_list(facts in prop::collection::vec(fact(), 0..40), second in 0u32..700) {
            let graph = graph_of(&facts);
            for (which, edge) in pool().1.iter().enumerate() {
                prop_assert_eq!(answer(&graph, edge, second), naive(&facts, which, second));
            }
        }

        #[test]
        fn what_comes_later_changes_no_earlier_answer(
            facts in prop::collection::vec(fact(), 1..40), second in 0u32..700, keep in 0usize..40,
        ) {
            let time = |f: &Fact| match f {
                Fact::Seen(_, s) | Fact::Parted(_, s) | Fact::Ended(_, s) => *s,
            };
            let mut reversed = facts.clone();
            reversed.reverse();
            let mut earlier = facts.clone();
            let mut place = 0;
            // Any part of what happened later may be missing.
            earlier.retain(|f| {
                place += 1;
                time(f) <= second || place > keep
            });
            for other in [&reversed, &earlier] {
                let (one, two) = (graph_of(&facts), graph_of(other));
                for edge in &pool().1 {
                    prop_assert_eq!(answer(&one, edge, second), answer(&two, edge, second));
                }
            }
        }

        #[test]
        fn seconds_are_a_set(all in prop::collection::vec(0u32..100, 0..60), ask in 0u32..110) {
            let mut seconds = Seconds::default();
            all.iter().for_each(|s| seconds.add(*s));
            prop_assert_eq!(seconds.latest(ask), all.iter().copied().filter(|s| *s <= ask).max());
        }
    }

    #[test]
    fn dependencies_are_followed_three_steps_up_and_down() {
        let mut graph = Graph::new(64);
        let [client, endpoint, server] =
            [pod("client"), Entity::new(EntityKind::Endpoint, "e"), pod("server")];
        graph.see(&edge(client.clone(), Relation::TalksTo, endpoint.clone()), 10);
        graph.see(&edge(server.clone(), Relation::Provides, endpoint.clone()), 10);
        graph.see(&edge(server.clone(), Relation::ScheduledOn, node()), 10);
        let up: Vec<_> = graph.reach(&client, true, 3, 20);
        assert_eq!(up, [(1, &endpoint), (2, &server), (3, &node())]);
        assert_eq!(graph.reach(&client, true, 2, 20).len(), 2);
        let down: Vec<_> = graph.reach(&node(), false, 3, 20);
        assert_eq!(down, [(1, &server), (2, &endpoint), (3, &client)]);
        assert!(graph.reach(&client, true, 3, 9).is_empty(), "not known yet");
        assert!(graph.reach(&client, true, 3, 400).is_empty(), "silent for too long");
    }

    #[test]
    fn the_entity_seen_longest_ago_makes_room_with_its_edges() {
        let mut graph = Graph::new(3);
        graph.see(&edge(pod("a"), Relation::ScheduledOn, node()), 1);
        graph.see(&edge(pod("b"), Relation::ScheduledOn, node()), 2);
        graph.see(&edge(pod("c"), Relation::ScheduledOn, node()), 3);
        assert_eq!((graph.len(), graph.edges(), graph.evicted()), (3, 2, 1));
        let on_node: Vec<_> = graph.joined(&node(), Relation::ScheduledOn, false, 5);
        assert_eq!(on_node, [&pod("b"), &pod("c")]);
    }

    #[test]
    fn states_hold_from_their_second_on() {
        let mut graph = Graph::new(8);
        graph.ready(&pod("a"), true, 10);
        graph.ready(&pod("a"), false, 20);
        graph.matters(&pod("a"), Criticality::High, 15);
        graph.name(&pod("a"), "shop/web-1", 10);
        let at = |second| graph.is_ready(&pod("a"), second);
        assert_eq!([at(9), at(10), at(19), at(20)], [None, Some(true), Some(true), Some(false)]);
        assert_eq!(graph.criticality(&pod("a"), 14), None);
        assert_eq!(graph.criticality(&pod("a"), 99), Some(Criticality::High));
        assert_eq!(graph.text(&pod("a")), "pod shop/web-1");
        assert_eq!(graph.text(&pod("b")), "pod b");
    }
}
