//! Messages from shards to the assessor.

use super::active_faults::FaultTransition;
use super::baseline::BucketCount;
use super::entity::Entity;
use super::graph_fact::GraphFact;
use super::pairs::{HomeKind, PairKey};
use super::pending_story::PendingStory;
use crate::services::ServiceFact;
use tapio_core::event::Name;

/// Facts or a pending story, from a shard to the assessor. Facts are sums and unions, so their
/// order doesn't matter.
pub struct EvidenceMessage(pub(super) EvidenceKind);

/// Content of a message.
pub(super) enum EvidenceKind {
    /// Count of an entity's events of a kind in a bucket.
    Count(Entity, Name, BucketCount),
    /// A fact for the graph, as of a second.
    Graph(GraphFact, u32),
    /// An event of the entity started or ended a fault.
    Fault(Entity, FaultTransition),
    /// A change in the rate of a log template.
    Lift(Box<TemplateLift>),
    /// Count of a pair in an epoch, with delays of an octave.
    Pair { key: PairKey, octave: u8, epoch: u32, count: u32 },
    /// Count of the events of a kind in an epoch.
    Kind { home: HomeKind, kind: Name, epoch: u32, count: u32 },
    /// Time for which entities were observed in an epoch.
    ObservedTime { home: HomeKind, epoch: u32, milliseconds: u64 },
    /// Spans and log records of services.
    Services(Vec<ServiceFact>),
    /// A pending story.
    Story(Box<PendingStory>),
}

impl EvidenceMessage {
    /// Whether it may be dropped for lack of room: without a fact a result is less certain, without
    /// a story the story is lost.
    pub(crate) fn is_fact(&self) -> bool {
        !matches!(self.0, EvidenceKind::Story(_))
    }

    /// The pending story of the message, if it has one.
    pub(crate) fn into_story(self) -> Option<PendingStory> {
        match self.0 {
            EvidenceKind::Story(story) => Some(*story),
            _ => None,
        }
    }

    /// A message with a pending story.
    pub(crate) fn story(story: PendingStory) -> Self {
        Self(EvidenceKind::Story(Box::new(story)))
    }
}

/// A message whose log template has another rate than before.
#[derive(Clone, Debug)]
pub(crate) struct TemplateLift {
    pub(super) entity: Entity,
    pub(super) kind: Name,
    pub(super) time_ns: u64,
    pub(super) template: String,
    /// Count of the template in the last minute.
    pub(super) recent: u32,
    /// Logarithm of its rate now over its rate before.
    pub(super) log_lift: f64,
}
