//! The assessor: the one owner of what all shards observed. It takes facts in whatever order they
//! come, and finishes stories: causes ranked, impact computed. Pure: no clock, socket or thread
//! inside, so that replay and tests execute what the agent does.

use super::super::lru::Lru;
use super::baseline::Baselines;
use super::draft::{Content, Draft, Lift, Note};
use super::entity::Entity;
use super::graph::Graph;
use super::observer::Bounds;
use super::pairs::{Learned, Pairs};
use super::relations::Fact;
use super::standing::Standing;
use tapio_core::event::{Name, Story};

/// Lifts that are kept of one entity.
const MAX_LIFTS: usize = 256;

/// Everything observed, as it stands.
pub(super) struct Evidence {
    pub(super) graph: Graph,
    pub(super) baselines: Baselines,
    pub(super) standing: Standing,
    pub(super) pairs: Pairs,
    lifts: Lru<Entity, Vec<Lift>>,
}

impl Evidence {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            graph: Graph::new(bounds),
            baselines: Baselines::new(bounds),
            standing: Standing::new(bounds),
            pairs: Pairs::new(bounds.pairs),
            lifts: Lru::new(bounds.entities),
        }
    }

    fn fact(&mut self, fact: &Fact, second: u32) {
        let graph = &mut self.graph;
        match fact {
            Fact::Seen(edge) => graph.see(edge, second),
            Fact::Parted(edge) => graph.part(edge, second),
            Fact::Ended(entity) => graph.end(entity, second),
            Fact::Named(entity, label) => graph.name(entity, label, second),
            Fact::Ready(entity, ready) => graph.ready(entity, *ready, second),
            Fact::Matters(entity, criticality) => graph.matters(entity, *criticality, second),
        }
    }

    pub(super) fn lift(&mut self, lift: Lift) {
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
    pub(super) fn lift_of(
        &self,
        entity: &Entity,
        kind: Name,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<&Lift> {
        let lifts = self.lifts.peek(entity)?.iter();
        let told = lifts.filter(|l| l.kind == kind && (from_ns..=to_ns).contains(&l.time_ns));
        told.max_by(|a, b| a.log_lift.total_cmp(&b.log_lift))
    }
}

/// What the assessor has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssessorCounts {
    /// Facts taken in.
    pub facts: u64,
    /// Stories told.
    pub stories: u64,
    /// Entities of the graph.
    pub entities: u64,
    /// Edges of the graph.
    pub edges: u64,
    /// Series of counts.
    pub series: u64,
    /// Pairs learned.
    pub pairs: u64,
    /// Entities and pairs given up for room, and edges refused.
    pub evicted: u64,
}

/// The assessor.
pub struct Assessor {
    evidence: Evidence,
    facts: u64,
    stories: u64,
    /// Stories that wait for all facts.
    waiting: Vec<Draft>,
}

impl Assessor {
    /// An assessor that knows nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { evidence: Evidence::new(bounds), facts: 0, stories: 0, waiting: Vec::new() }
    }

    fn take(&mut self, note: Note) -> Option<Draft> {
        let evidence = &mut self.evidence;
        self.facts += u64::from(note.is_fact());
        match note.0 {
            Content::Tally(entity, kind, tally) => evidence.baselines.add(&entity, kind, tally),
            Content::Fact(fact, second) => evidence.fact(&fact, second),
            Content::Mark(entity, mark) => evidence.standing.add(&entity, mark),
            Content::Lift(lift) => evidence.lift(*lift),
            Content::Pair { key, octave, epoch, count } => {
                evidence.pairs.add(key, usize::from(octave), epoch, count);
            }
            Content::Kind { home, kind, epoch, count } => {
                evidence.pairs.add_kind(home, kind, epoch, count);
            }
            Content::Watched { home, epoch, milliseconds } => {
                evidence.pairs.add_watched(home, epoch, milliseconds);
            }
            Content::Draft(draft) => return Some(*draft),
        }
        None
    }

    /// Takes a note in; a story is told at once, by what is known now.
    pub fn note(&mut self, note: Note) -> Option<Story> {
        let draft = self.take(note)?;
        Some(self.tell(draft))
    }

    /// Takes a note in; a story waits until [`Assessor::finish`].
    pub fn keep(&mut self, note: Note) {
        if let Some(draft) = self.take(note) {
            self.waiting.push(draft);
        }
    }

    /// Tells the stories that waited: all facts are in.
    pub fn finish(&mut self) -> Vec<Story> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|draft| self.tell(draft)).collect()
    }

    fn tell(&mut self, mut draft: Draft) -> Story {
        self.stories += 1;
        draft.story.root_cause = self.evidence.rank(&draft);
        draft.story.impact = self.evidence.impact(&draft);
        draft.story
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> AssessorCounts {
        let Evidence { graph, baselines, standing, pairs, .. } = &self.evidence;
        AssessorCounts {
            facts: self.facts,
            stories: self.stories,
            entities: graph.len() as u64,
            edges: graph.edges() as u64,
            series: baselines.len(),
            pairs: pairs.len() as u64,
            evicted: graph.evicted()
                + graph.refused
                + baselines.evicted()
                + standing.evicted()
                + pairs.evicted(),
        }
    }

    /// Pairs that are worth a rule, the strongest first.
    #[must_use]
    pub fn suggestions(&self) -> Vec<Learned> {
        super::suggest::worth_a_rule(self.evidence.pairs.all())
    }
}
