//! Converts stories to and from protobuf. Stories are rare, so they are converted with prost's
//! types.

use super::proto;
use tapio_core::event::{
    Candidate, CauseEntity, EventId, Impact, Incident, IncidentRole, Link, LinkedStory, Member,
    Severity, Story, StoryPart, StoryState, Term, TraceId,
};

/// Converts a story with its links and parts to protobuf.
#[must_use]
pub fn linked_to_proto(linked: &LinkedStory) -> proto::Story {
    let links = linked.links.iter().map(|link| proto::Link {
        id: link.id.0.to_vec(),
        trace_id: link.trace_id.0.to_vec(),
        name: link.name.clone(),
        shared: link.shared,
        score: link.score,
    });
    let parts = linked.parts.iter().map(|part| proto::StoryPart {
        node: part.node.clone(),
        id: part.id.0.to_vec(),
        state: state_to_proto(part.state) as i32,
        members_total: part.members_total,
        first_unix_nano: part.first_ns,
        last_unix_nano: part.last_ns,
        severity: u32::from(part.severity.0),
    });
    let (links, parts) = (links.collect(), parts.collect());
    proto::Story { links, parts, ..story_to_proto(&linked.story) }
}

/// Converts a story with its links and parts from protobuf. `None` if an id or a severity is
/// invalid.
#[must_use]
pub fn linked_from_proto(mut story: proto::Story) -> Option<LinkedStory> {
    let links = std::mem::take(&mut story.links).into_iter().map(|link| {
        Some(Link {
            id: TraceId(id(&link.id)?),
            trace_id: TraceId(id(&link.trace_id)?),
            name: link.name,
            shared: link.shared,
            score: link.score,
        })
    });
    let links = links.collect::<Option<_>>()?;
    let parts = std::mem::take(&mut story.parts).into_iter().map(part_from_proto);
    let parts = parts.collect::<Option<_>>()?;
    Some(LinkedStory { links, parts, story: story_from_proto(story)? })
}

fn part_from_proto(part: proto::StoryPart) -> Option<StoryPart> {
    Some(StoryPart {
        id: TraceId(id(&part.id)?),
        state: state_from_proto(part.state()),
        members_total: part.members_total,
        first_ns: part.first_unix_nano,
        last_ns: part.last_unix_nano,
        severity: severity(part.severity)?,
        node: part.node,
    })
}

/// Converts the state of a story to protobuf.
pub(super) fn state_to_proto(state: StoryState) -> proto::StoryState {
    match state {
        StoryState::Opened => proto::StoryState::Opened,
        StoryState::Updated => proto::StoryState::Updated,
        StoryState::Closed => proto::StoryState::Closed,
        StoryState::Expired => proto::StoryState::Expired,
        StoryState::Retracted => proto::StoryState::Retracted,
    }
}

fn state_from_proto(state: proto::StoryState) -> StoryState {
    match state {
        proto::StoryState::Opened => StoryState::Opened,
        proto::StoryState::Updated => StoryState::Updated,
        proto::StoryState::Closed => StoryState::Closed,
        proto::StoryState::Expired => StoryState::Expired,
        proto::StoryState::Retracted => StoryState::Retracted,
    }
}

/// Converts a story to protobuf.
#[must_use]
pub fn story_to_proto(story: &Story) -> proto::Story {
    proto::Story {
        id: story.id.0.to_vec(),
        trace_id: story.trace_id.0.to_vec(),
        rule: story.rule.clone(),
        pattern: story.pattern.clone(),
        name: story.name.clone(),
        intent: story.intent.clone(),
        state: state_to_proto(story.state) as i32,
        revision: story.revision,
        key: story
            .key
            .iter()
            .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        members: story.members.iter().map(member_to_proto).collect(),
        members_total: story.members_total,
        first_unix_nano: story.first_ns,
        last_unix_nano: story.last_ns,
        severity: u32::from(story.severity.0),
        root_cause: story.root_cause.iter().map(candidate_to_proto).collect(),
        impact: Some(impact_to_proto(&story.impact)),
        actions: story.actions.clone(),
        confidence: story.confidence,
        continues: story.continues.map(|t| t.0.to_vec()).unwrap_or_default(),
        provisional: story.provisional.map(|t| t.0.to_vec()).unwrap_or_default(),
        links: Vec::new(),
        parts: Vec::new(),
        annotations: None,
        silence: None,
        incident: story.incident.as_ref().map(membership_to_proto),
    }
}

/// Converts an impact to protobuf.
pub(super) fn impact_to_proto(impact: &Impact) -> proto::Impact {
    proto::Impact {
        business: impact.business,
        customer_facing: impact.customer_facing,
        slo_impact: impact.slo_impact,
        affected: impact.affected.clone(),
        evidence: impact.evidence.clone(),
    }
}

/// Converts a role in an incident to protobuf.
pub(super) fn role_to_proto(role: IncidentRole) -> proto::IncidentRole {
    match role {
        IncidentRole::Same => proto::IncidentRole::Same,
        IncidentRole::Cause => proto::IncidentRole::Cause,
        IncidentRole::Effect => proto::IncidentRole::Effect,
    }
}

fn membership_to_proto(incident: &Incident) -> proto::Incident {
    proto::Incident {
        id: incident.id.0.to_vec(),
        role: role_to_proto(incident.role) as i32,
        because: incident.because.clone(),
    }
}

fn member_to_proto(member: &Member) -> proto::Member {
    proto::Member {
        id: member.id.0.to_vec(),
        label: member.label.clone(),
        time_unix_nano: member.time_ns,
        kind: member.kind.clone(),
        source: member.source.clone(),
        severity: u32::from(member.severity.0),
        role: member.role.clone(),
        pattern: member.pattern.clone(),
        summary: member.summary.clone(),
    }
}

/// Converts a candidate for a root cause to protobuf.
pub(super) fn candidate_to_proto(candidate: &Candidate) -> proto::Candidate {
    proto::Candidate {
        cause: candidate.cause.clone(),
        entity: candidate.entity.as_ref().map(|entity| proto::CauseEntity {
            kind: entity.kind.clone(),
            name: entity.name.clone(),
            id: entity.id.clone(),
            node: entity.node.clone(),
        }),
        evidence: candidate.evidence.iter().map(|id| id.0.to_vec()).collect(),
        labels: candidate.labels.clone(),
        score: candidate.score,
        terms: candidate
            .terms
            .iter()
            .map(|t| proto::Term {
                name: t.name.clone(),
                weight: t.weight,
                because: t.because.clone(),
                value: t.value,
            })
            .collect(),
    }
}

/// Converts a story from protobuf. `None` if an id or a severity is invalid.
#[must_use]
pub fn story_from_proto(story: proto::Story) -> Option<Story> {
    let state = state_from_proto(story.state());
    let impact = story.impact.unwrap_or_default();
    Some(Story {
        id: TraceId(id(&story.id)?),
        trace_id: TraceId(id(&story.trace_id)?),
        rule: story.rule,
        pattern: story.pattern,
        name: story.name,
        intent: story.intent,
        state,
        revision: story.revision,
        key: story.key.into_iter().map(|k| (k.key, k.value)).collect(),
        members: story.members.into_iter().map(member_from_proto).collect::<Option<_>>()?,
        members_total: story.members_total,
        first_ns: story.first_unix_nano,
        last_ns: story.last_unix_nano,
        severity: severity(story.severity)?,
        root_cause: story
            .root_cause
            .into_iter()
            .map(candidate_from_proto)
            .collect::<Option<_>>()?,
        impact: Impact {
            business: impact.business,
            customer_facing: impact.customer_facing,
            slo_impact: impact.slo_impact,
            affected: impact.affected,
            evidence: impact.evidence,
        },
        actions: story.actions,
        confidence: story.confidence,
        continues: trace(&story.continues)?,
        provisional: trace(&story.provisional)?,
        incident: match story.incident {
            Some(incident) => Some(incident_from_proto(incident)?),
            None => None,
        },
    })
}

fn incident_from_proto(incident: proto::Incident) -> Option<Incident> {
    let role = match incident.role() {
        proto::IncidentRole::Cause => IncidentRole::Cause,
        proto::IncidentRole::Effect => IncidentRole::Effect,
        proto::IncidentRole::Same | proto::IncidentRole::Unspecified => IncidentRole::Same,
    };
    Some(Incident { id: TraceId(id(&incident.id)?), role, because: incident.because })
}

fn member_from_proto(member: proto::Member) -> Option<Member> {
    Some(Member {
        id: EventId(id(&member.id)?),
        label: member.label,
        time_ns: member.time_unix_nano,
        kind: member.kind,
        source: member.source,
        severity: severity(member.severity)?,
        role: member.role,
        pattern: member.pattern,
        summary: member.summary,
    })
}

fn candidate_from_proto(candidate: proto::Candidate) -> Option<Candidate> {
    let evidence = candidate.evidence.iter().map(|e| id(e).map(EventId));
    Some(Candidate {
        cause: candidate.cause,
        entity: candidate.entity.map(|proto::CauseEntity { kind, name, id, node }| CauseEntity {
            kind,
            name,
            id,
            node,
        }),
        evidence: evidence.collect::<Option<_>>()?,
        labels: candidate.labels,
        score: candidate.score,
        terms: candidate
            .terms
            .into_iter()
            .map(|t| Term { name: t.name, weight: t.weight, value: t.value, because: t.because })
            .collect(),
    })
}

/// An optional trace id. `None` if it is invalid.
fn trace(bytes: &[u8]) -> Option<Option<TraceId>> {
    match bytes {
        [] => Some(None),
        bytes => Some(Some(TraceId(id(bytes)?))),
    }
}

fn id(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

fn severity(number: u32) -> Option<Severity> {
    u8::try_from(number).ok().filter(|n| *n <= 24).map(Severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_and_incident_survive_a_round_trip() {
        for role in [IncidentRole::Same, IncidentRole::Cause, IncidentRole::Effect] {
            let entity = CauseEntity {
                kind: "process".into(),
                name: "nginx".into(),
                id: "7".into(),
                node: "node-a".into(),
            };
            let story = Story {
                root_cause: vec![Candidate {
                    cause: "c".into(),
                    entity: Some(entity),
                    evidence: vec![EventId([3; 16])],
                    labels: vec![String::new()],
                    score: 1.5,
                    terms: Vec::new(),
                }],
                incident: Some(Incident {
                    id: TraceId([7; 16]),
                    role,
                    because: "both are about unit nginx.service".into(),
                }),
                ..Story::default()
            };
            assert_eq!(story_from_proto(story_to_proto(&story)), Some(story));
        }
    }
}
