//! What a shard hands to the assessor: facts, and groups whose causes and impact are still to be found.

use super::baseline::Tally;
use super::entity::Entity;
use super::pairs::{HomeKind, PairKey};
use super::relations::Fact;
use super::standing::Mark;
use crate::dataflow::rules::Given;
use crate::event::{EventId, Group, Name, Severity};

/// What goes from a shard to the assessor. Facts are sums and unions: their order doesn't matter.
pub struct Note(pub(super) Content);

pub(super) enum Content {
    /// How often an entity's kind came in a bucket.
    Tally(Entity, Name, Tally),
    /// A fact for the graph, in a second.
    Fact(Fact, u32),
    /// An entity's event told or ended a trouble.
    Mark(Entity, Mark),
    /// A message came more or less often than before.
    Lift(Box<Lift>),
    /// A pair came so often, after a delay of an octave, in an epoch.
    Pair { key: PairKey, octave: u8, epoch: u32, count: u32 },
    /// Events of a kind came so often in an epoch.
    Kind { home: HomeKind, kind: Name, epoch: u32, count: u32 },
    /// Entities were watched for so long in an epoch.
    Watched { home: HomeKind, epoch: u32, milliseconds: u64 },
    /// A group.
    Draft(Box<Draft>),
}

impl Note {
    /// Whether it may be left out when there is no room: a fact costs certainty, a group the story.
    pub(in crate::dataflow) fn is_fact(&self) -> bool {
        !matches!(self.0, Content::Draft(_))
    }

    pub(in crate::dataflow) fn draft(draft: Draft) -> Self {
        Self(Content::Draft(Box::new(draft)))
    }
}

/// A message whose template came more or less often than before.
#[derive(Clone, Debug)]
pub(in crate::dataflow) struct Lift {
    pub(super) entity: Entity,
    pub(super) kind: Name,
    pub(super) time_ns: u64,
    pub(super) template: String,
    /// How often it came in the last minute.
    pub(super) recent: u32,
    /// The logarithm of its rate now over its rate before.
    pub(super) log_lift: f64,
}

/// A group as its shard knows it: told but for what needs facts of other shards.
pub(in crate::dataflow) struct Draft {
    /// Without causes; of its impact only whom its members are about.
    pub(in crate::dataflow) group: Group,
    /// What its members are about, by their first time.
    pub(in crate::dataflow) sources: Vec<Source>,
    /// The causes the rule's author names, the favourite first.
    pub(in crate::dataflow) named: Vec<NamedCause>,
    /// Whether what nobody named may be a cause, too: not in a life without a fault.
    pub(in crate::dataflow) any_cause: bool,
    /// The longest time the story's events may lie apart.
    pub(in crate::dataflow) within_ns: u64,
    pub(in crate::dataflow) asked: Asked,
    pub(in crate::dataflow) failed_connections: u64,
    /// Those of them that left the machine's own loopback.
    pub(in crate::dataflow) failed_for_others: u64,
}

/// What the rule's author gives and what is to be computed.
#[derive(Clone, Copy)]
pub(in crate::dataflow) struct Asked {
    pub(in crate::dataflow) business: Given<f64>,
    pub(in crate::dataflow) customer_facing: Given<bool>,
    pub(in crate::dataflow) slo_impact: Given<bool>,
}

/// The members about one entity and of one kind.
#[derive(Clone, Debug)]
pub(in crate::dataflow) struct Source {
    pub(in crate::dataflow) entity: Entity,
    pub(in crate::dataflow) kind: Name,
    pub(in crate::dataflow) first_ns: u64,
    pub(in crate::dataflow) last_ns: u64,
    /// The tick of the clock that gave the first one its time.
    pub(in crate::dataflow) tick_ns: u64,
    pub(in crate::dataflow) worst: Severity,
    /// The rule says that it is an effect.
    pub(in crate::dataflow) is_effect: bool,
    /// What the first one says.
    pub(in crate::dataflow) summary: String,
    /// The first few members' ids, and how their sources wrote them.
    pub(in crate::dataflow) evidence: Vec<EventId>,
    pub(in crate::dataflow) labels: Vec<String>,
}

/// One member, to be added to the sources.
pub(in crate::dataflow) struct Seen {
    pub(in crate::dataflow) entity: Entity,
    pub(in crate::dataflow) kind: Name,
    pub(in crate::dataflow) time_ns: u64,
    pub(in crate::dataflow) tick_ns: u64,
    pub(in crate::dataflow) severity: Severity,
    pub(in crate::dataflow) is_effect: bool,
    pub(in crate::dataflow) summary: String,
    pub(in crate::dataflow) id: EventId,
    pub(in crate::dataflow) label: String,
}

/// Members a candidate names as its evidence.
const MAX_EVIDENCE: usize = 4;

/// Adds a member to what is told of the same entity and kind. Returns its place.
pub(in crate::dataflow) fn add_source(sources: &mut Vec<Source>, seen: Seen) -> usize {
    let same = |s: &Source| s.kind == seen.kind && s.entity == seen.entity;
    let Some(at) = sources.iter().position(same) else {
        sources.push(Source {
            entity: seen.entity,
            kind: seen.kind,
            first_ns: seen.time_ns,
            last_ns: seen.time_ns,
            tick_ns: seen.tick_ns,
            worst: seen.severity,
            is_effect: seen.is_effect,
            summary: seen.summary,
            evidence: vec![seen.id],
            labels: vec![seen.label],
        });
        return sources.len() - 1;
    };
    let source = &mut sources[at];
    if seen.time_ns < source.first_ns {
        (source.first_ns, source.tick_ns) = (seen.time_ns, seen.tick_ns);
        source.summary = seen.summary;
    }
    source.last_ns = source.last_ns.max(seen.time_ns);
    source.worst = source.worst.max(seen.severity);
    source.is_effect &= seen.is_effect;
    if source.evidence.len() < MAX_EVIDENCE {
        source.evidence.push(seen.id);
        source.labels.push(seen.label);
    }
    at
}

/// A cause the rule's author names.
#[derive(Clone, Debug)]
pub(in crate::dataflow) struct NamedCause {
    pub(in crate::dataflow) text: String,
    /// Whose members fill it, first of all; `None` where no member does.
    pub(in crate::dataflow) source: Option<usize>,
    pub(in crate::dataflow) evidence: Vec<EventId>,
    pub(in crate::dataflow) labels: Vec<String>,
    /// How many of the author's causes stand behind it.
    pub(in crate::dataflow) behind: usize,
}
