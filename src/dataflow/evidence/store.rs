//! The evidence of all shards, as the assessor holds it.

use super::active_faults::ActiveFaults;
use super::baseline::Baselines;
use super::bounds::Bounds;
use super::entity::Entity;
use super::graph::Graph;
use super::graph_fact::GraphFact;
use super::message::TemplateLift;
use super::pairs::Pairs;
use crate::lru::Lru;
use tapio_core::event::Name;

/// Lifts that are kept for one entity.
const MAX_LIFTS: usize = 256;

/// The evidence of all shards.
pub(super) struct EvidenceStore {
    pub(super) graph: Graph,
    pub(super) baselines: Baselines,
    pub(super) active_faults: ActiveFaults,
    pub(super) pairs: Pairs,
    lifts: Lru<Entity, Vec<TemplateLift>>,
}

impl EvidenceStore {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            graph: Graph::new(bounds),
            baselines: Baselines::new(bounds),
            active_faults: ActiveFaults::new(bounds),
            pairs: Pairs::new(bounds.pairs),
            lifts: Lru::new(bounds.entities),
        }
    }

    /// Sets the bounds; evicts what is beyond them.
    pub(super) fn limit(&mut self, bounds: Bounds) {
        self.graph.limit(bounds.entities);
        self.baselines.limit(bounds.entities);
        self.active_faults.limit(bounds.entities);
        self.lifts.limit(bounds.entities);
    }

    /// Entities and pairs evicted for lack of room, and edges refused.
    pub(super) fn evicted(&self) -> u64 {
        self.graph.evicted()
            + self.graph.refused
            + self.baselines.evicted()
            + self.active_faults.evicted()
            + self.pairs.evicted()
    }

    /// Applies a fact to the graph.
    pub(super) fn add_graph_fact(&mut self, fact: &GraphFact, second: u32) {
        let graph = &mut self.graph;
        match fact {
            GraphFact::EdgeSeen(edge) => graph.add_edge(edge, second),
            GraphFact::EdgeEnded(edge) => graph.end_edge(edge, second),
            GraphFact::EntityEnded(entity) => graph.end_entity(entity, second),
            GraphFact::Labelled(entity, label) => graph.set_label(entity, label, second),
            GraphFact::Ready(entity, ready) => graph.set_ready(entity, *ready, second),
            GraphFact::Criticality(entity, criticality) => {
                graph.set_criticality(entity, *criticality, second);
            }
        }
    }

    /// Adds a lift, in the order of time, kind and template.
    pub(super) fn add_lift(&mut self, lift: TemplateLift) {
        if self.lifts.get(&lift.entity).is_none() {
            self.lifts.insert(lift.entity.clone(), Vec::new());
        }
        let Some(lifts) = self.lifts.get(&lift.entity) else {
            return;
        };
        let at = lifts.partition_point(|l| {
            (l.time_ns, l.kind.text(), &l.template)
                <= (lift.time_ns, lift.kind.text(), &lift.template)
        });
        lifts.insert(at, lift);
        if lifts.len() > MAX_LIFTS {
            lifts.remove(0);
        }
    }

    /// The strongest lift of an entity's messages of a kind between two times.
    pub(super) fn strongest_lift(
        &self,
        entity: &Entity,
        kind: Name,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<&TemplateLift> {
        let lifts = self.lifts.peek(entity)?.iter();
        let matching = lifts.filter(|l| l.kind == kind && (from_ns..=to_ns).contains(&l.time_ns));
        matching.max_by(|a, b| a.log_lift.total_cmp(&b.log_lift))
    }
}
