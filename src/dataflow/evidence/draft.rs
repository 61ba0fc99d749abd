//! What a shard hands to the assessor: facts, and stories whose causes and impact are still to be found.

use super::baseline::Tally;
use super::entity::Entity;
use super::pairs::{HomeKind, PairKey};
use super::relations::Fact;
use super::standing::Mark;
use crate::rules::AutoOr;
use tapio_core::event::{EventId, Name, Severity, Story};

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
    /// A story.
    Draft(Box<Draft>),
}

impl Note {
    /// Whether it may be left out when there is no room: a fact costs certainty, a story the story.
    pub(crate) fn is_fact(&self) -> bool {
        !matches!(self.0, Content::Draft(_))
    }

    pub(crate) fn draft(draft: Draft) -> Self {
        Self(Content::Draft(Box::new(draft)))
    }
}

/// A message whose template came more or less often than before.
#[derive(Clone, Debug)]
pub(crate) struct Lift {
    pub(super) entity: Entity,
    pub(super) kind: Name,
    pub(super) time_ns: u64,
    pub(super) template: String,
    /// How often it came in the last minute.
    pub(super) recent: u32,
    /// The logarithm of its rate now over its rate before.
    pub(super) log_lift: f64,
}

/// A story as its shard knows it: told but for what needs facts of other shards.
pub(crate) struct Draft {
    /// Without causes; of its impact only whom its members are about.
    pub(crate) story: Story,
    /// What its members are about, by their first time.
    pub(crate) sources: Vec<Source>,
    /// The causes the rule's author names, the favourite first.
    pub(crate) named: Vec<NamedCause>,
    /// Whether what nobody named may be a cause, too: not in a life without a fault.
    pub(crate) any_cause: bool,
    /// The longest time the story's events may lie apart.
    pub(crate) within_ns: u64,
    pub(crate) asked: Asked,
    pub(crate) failed_connections: u64,
    /// Those of them that left the machine's own loopback.
    pub(crate) failed_for_others: u64,
}

/// What the rule's author gives and what is to be computed.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) business: AutoOr<f64>,
    pub(crate) customer_facing: AutoOr<bool>,
    pub(crate) slo_impact: AutoOr<bool>,
}

/// The members about one entity and of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) entity: Entity,
    pub(crate) kind: Name,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// The tick of the clock that gave the first one its time.
    pub(crate) tick_ns: u64,
    pub(crate) worst: Severity,
    /// The rule says that it is an effect.
    pub(crate) is_effect: bool,
    /// What the first one says.
    pub(crate) summary: String,
    /// The first few members' ids, and how their sources wrote them.
    pub(crate) evidence: Vec<EventId>,
    pub(crate) labels: Vec<String>,
}

/// One member, to be added to the sources.
pub(crate) struct Seen {
    pub(crate) entity: Entity,
    pub(crate) kind: Name,
    pub(crate) time_ns: u64,
    pub(crate) tick_ns: u64,
    pub(crate) severity: Severity,
    pub(crate) is_effect: bool,
    pub(crate) summary: String,
    pub(crate) id: EventId,
    pub(crate) label: String,
}

/// Members a candidate names as its evidence.
const MAX_EVIDENCE: usize = 4;

/// Adds a member to what is told of the same entity and kind. Returns its place.
pub(crate) fn add_source(sources: &mut Vec<Source>, seen: Seen) -> usize {
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
pub(crate) struct NamedCause {
    pub(crate) text: String,
    /// Whose members fill it, first of all; `None` where no member does.
    pub(crate) source: Option<usize>,
    pub(crate) evidence: Vec<EventId>,
    pub(crate) labels: Vec<String>,
    /// How many of the author's causes stand behind it.
    pub(crate) behind: usize,
}
