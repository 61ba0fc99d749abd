//! Groups to and from their protobuf form. Groups are rare, so they go through prost's structs.

use super::proto;
use tapio_core::event::{
    Candidate, EventId, Group, GroupState, Impact, Link, LinkedGroup, Member, Severity, Term,
    TraceId,
};

/// A group's protobuf form, with its links.
#[must_use]
pub fn linked_to_proto(linked: &LinkedGroup) -> proto::Group {
    let links = linked.links.iter().map(|link| proto::Link {
        id: link.id.0.to_vec(),
        trace_id: link.trace_id.0.to_vec(),
        name: link.name.clone(),
        shared: link.shared,
        score: link.score,
    });
    proto::Group { links: links.collect(), ..group_to_proto(&linked.group) }
}

/// A group with its links from their protobuf form. `None` where an id has another length.
#[must_use]
pub fn linked_from_proto(mut group: proto::Group) -> Option<LinkedGroup> {
    let links = std::mem::take(&mut group.links).into_iter().map(|link| {
        Some(Link {
            id: TraceId(id(&link.id)?),
            trace_id: TraceId(id(&link.trace_id)?),
            name: link.name,
            shared: link.shared,
            score: link.score,
        })
    });
    Some(LinkedGroup { links: links.collect::<Option<_>>()?, group: group_from_proto(group)? })
}

/// A group's protobuf form.
#[must_use]
pub fn group_to_proto(group: &Group) -> proto::Group {
    proto::Group {
        id: group.id.0.to_vec(),
        trace_id: group.trace_id.0.to_vec(),
        rule: group.rule.clone(),
        pattern: group.pattern.clone(),
        name: group.name.clone(),
        intent: group.intent.clone(),
        state: match group.state {
            GroupState::Opened => proto::GroupState::Opened,
            GroupState::Updated => proto::GroupState::Updated,
            GroupState::Closed => proto::GroupState::Closed,
            GroupState::Expired => proto::GroupState::Expired,
            GroupState::Retracted => proto::GroupState::Retracted,
        } as i32,
        revision: group.revision,
        key: group
            .key
            .iter()
            .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        members: group.members.iter().map(member_to_proto).collect(),
        members_total: group.members_total,
        first_unix_nano: group.first_ns,
        last_unix_nano: group.last_ns,
        severity: u32::from(group.severity.0),
        root_cause: group.root_cause.iter().map(candidate_to_proto).collect(),
        impact: Some(proto::Impact {
            business: group.impact.business,
            customer_facing: group.impact.customer_facing,
            slo_impact: group.impact.slo_impact,
            affected: group.impact.affected.clone(),
            evidence: group.impact.evidence.clone(),
        }),
        actions: group.actions.clone(),
        confidence: group.confidence,
        continues: group.continues.map(|t| t.0.to_vec()).unwrap_or_default(),
        provisional: group.provisional.map(|t| t.0.to_vec()).unwrap_or_default(),
        links: Vec::new(),
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

fn candidate_to_proto(candidate: &Candidate) -> proto::Candidate {
    proto::Candidate {
        cause: candidate.cause.clone(),
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
            })
            .collect(),
    }
}

/// A group from its protobuf form. `None` where an id or the severity isn't one.
#[must_use]
pub fn group_from_proto(group: proto::Group) -> Option<Group> {
    let state = match group.state() {
        proto::GroupState::Opened => GroupState::Opened,
        proto::GroupState::Updated => GroupState::Updated,
        proto::GroupState::Closed => GroupState::Closed,
        proto::GroupState::Expired => GroupState::Expired,
        proto::GroupState::Retracted => GroupState::Retracted,
    };
    let impact = group.impact.unwrap_or_default();
    Some(Group {
        id: TraceId(id(&group.id)?),
        trace_id: TraceId(id(&group.trace_id)?),
        rule: group.rule,
        pattern: group.pattern,
        name: group.name,
        intent: group.intent,
        state,
        revision: group.revision,
        key: group.key.into_iter().map(|k| (k.key, k.value)).collect(),
        members: group.members.into_iter().map(member_from_proto).collect::<Option<_>>()?,
        members_total: group.members_total,
        first_ns: group.first_unix_nano,
        last_ns: group.last_unix_nano,
        severity: severity(group.severity)?,
        root_cause: group
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
        actions: group.actions,
        confidence: group.confidence,
        continues: trace(&group.continues)?,
        provisional: trace(&group.provisional)?,
    })
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
        evidence: evidence.collect::<Option<_>>()?,
        labels: candidate.labels,
        score: candidate.score,
        terms: candidate
            .terms
            .into_iter()
            .map(|t| Term { name: t.name, weight: t.weight, because: t.because })
            .collect(),
    })
}

/// A trace that may be left out. `None` where it is there and isn't one.
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
