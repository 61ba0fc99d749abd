//! A story on its way from its shard to the assessor: complete but for root causes and impact,
//! which depend on facts of other shards.

use super::entity::{AffectedEntity, Entity};
use crate::rules::AutoOr;
use tapio_core::event::{EventId, Name, Severity, Story};

/// A story without root causes and impact, and what the assessor needs to compute them.
pub(crate) struct PendingStory {
    /// The story, without root causes and impact.
    pub(crate) story: Story,
    /// The entities of its members, in the order of their texts.
    pub(crate) affected: Vec<AffectedEntity>,
    /// Its members by entity and kind, in the order of the first member.
    pub(crate) observations: Vec<Observation>,
    /// The causes that the rule's author names, the preferred one first.
    pub(crate) named: Vec<NamedCause>,
    /// Whether causes that the author doesn't name are candidates too. Not so in a lifecycle
    /// without a fault.
    pub(crate) any_cause: bool,
    /// Maximum time between events of the story.
    pub(crate) within_ns: u64,
    pub(crate) impact_spec: ImpactSpec,
    pub(crate) failed_connections: u64,
    /// Failed connections that left the node's own loopback.
    pub(crate) failed_for_others: u64,
}

/// The values of the impact that the rule's author gives; the others are computed.
#[derive(Clone, Copy)]
pub(crate) struct ImpactSpec {
    pub(crate) business: AutoOr<f64>,
    pub(crate) customer_facing: AutoOr<bool>,
    pub(crate) slo_impact: AutoOr<bool>,
}

impl ImpactSpec {
    /// All values are computed.
    pub(crate) const AUTO: Self =
        Self { business: AutoOr::Auto, customer_facing: AutoOr::Auto, slo_impact: AutoOr::Auto };
}

/// The members of a story that share entity and kind.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) entity: Entity,
    pub(crate) kind: Name,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// Tick of the clock that gave the first member its time.
    pub(crate) tick_ns: u64,
    pub(crate) worst: Severity,
    /// Whether the rule calls all of them effects.
    pub(crate) is_effect: bool,
    /// Summary of the first member.
    pub(crate) summary: String,
    /// Ids of the first few members, and the ids that their sources gave them.
    pub(crate) evidence: Vec<EventId>,
    pub(crate) labels: Vec<String>,
}

/// One member, to be added to the observations.
pub(crate) struct MemberFacts {
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

/// Members that a candidate has as its evidence.
const MAX_EVIDENCE: usize = 4;

/// Adds a member to the observation of its entity and kind. Returns the observation's index.
pub(crate) fn add_member(observations: &mut Vec<Observation>, member: MemberFacts) -> usize {
    let same = |o: &Observation| o.kind == member.kind && o.entity == member.entity;
    let Some(at) = observations.iter().position(same) else {
        observations.push(Observation {
            entity: member.entity,
            kind: member.kind,
            first_ns: member.time_ns,
            last_ns: member.time_ns,
            tick_ns: member.tick_ns,
            worst: member.severity,
            is_effect: member.is_effect,
            summary: member.summary,
            evidence: vec![member.id],
            labels: vec![member.label],
        });
        return observations.len() - 1;
    };
    let observation = &mut observations[at];
    if member.time_ns < observation.first_ns {
        (observation.first_ns, observation.tick_ns) = (member.time_ns, member.tick_ns);
        observation.summary = member.summary;
    }
    observation.last_ns = observation.last_ns.max(member.time_ns);
    observation.worst = observation.worst.max(member.severity);
    observation.is_effect &= member.is_effect;
    if observation.evidence.len() < MAX_EVIDENCE {
        observation.evidence.push(member.id);
        observation.labels.push(member.label);
    }
    at
}

/// A cause that the rule's author names.
#[derive(Clone, Debug)]
pub(crate) struct NamedCause {
    pub(crate) text: String,
    /// Index of the observation whose member fills the text's first variable, if a member does.
    pub(crate) observation: Option<usize>,
    pub(crate) evidence: Vec<EventId>,
    pub(crate) labels: Vec<String>,
    /// Number of the author's causes after this one.
    pub(crate) behind: usize,
}
