//! Stories: each revision as a log record, the whole story, once it has ended, as a span with its
//! members as span events and links to its causes elsewhere.

use super::resource::hex;
use super::seen_stories::Context;
use super::severity::{INTERNAL, severity, status};
use crate::proto_vec::ProtoVec;
use tapio_core::event::{Candidate, EventId, Member, Story, StoryState, Value, stable_hash};

/// The span of the story that an event names. Stories that begin with the same event share a trace,
/// so the trace doesn't identify one.
pub(super) fn span_of_story(id: &[u8]) -> [u8; 8] {
    let mut span = [0; 8];
    span.copy_from_slice(&stable_hash(&[b"story-span", id])[..8]);
    span
}

/// The span of a story: by the id that its events have in the stream.
pub(super) fn story_span(story: &Story) -> [u8; 8] {
    span_of_story(&story.provisional.unwrap_or(story.id).0)
}

/// Whether a story is exported as a span: it has ended, and is confirmed.
pub(super) fn is_span(story: &Story) -> bool {
    matches!(story.state, StoryState::Closed | StoryState::Expired)
}

/// Writes the log record of a revision. `received_ns`: the time at which it is exported.
pub(super) fn revision(out: &mut ProtoVec, story: &Story, received_ns: u64) {
    out.fixed64(1, story.last_ns);
    severity(out, story.severity.0);
    out.message(5, |out| out.delimited(1, story.name.as_bytes()));
    attributes(out, 6, story);
    out.delimited(9, &story.trace_id.0);
    out.delimited(10, &story_span(story));
    out.fixed64(11, received_ns);
    out.delimited(12, format!("tapio.story.{}", story.state.as_str()).as_bytes());
}

/// Writes the span of a story. `continued`: the story that it continues. `contexts`: those of
/// applications that its events came with.
pub(super) fn span(
    out: &mut ProtoVec,
    story: &Story,
    continued: Option<Context>,
    contexts: &[Context],
) {
    out.delimited(1, &story.trace_id.0);
    out.delimited(2, &story_span(story));
    out.delimited(5, story.name.as_bytes());
    out.number(6, INTERNAL);
    out.fixed64(7, story.first_ns);
    out.fixed64(8, story.last_ns);
    attributes(out, 9, story);
    for member in &story.members {
        out.message(11, |out| member_event(out, member));
    }
    let dropped = story.members_total.saturating_sub(story.members.len() as u64);
    out.number(12, dropped);
    let members = contexts.iter().map(|context| (*context, "member"));
    for ((trace, span), link) in continued.map(|c| (c, "continues")).into_iter().chain(members) {
        out.message(13, |out| {
            out.delimited(1, &trace);
            out.delimited(2, &span);
            out.text_attribute(4, "tapio.link.type", link);
        });
    }
    status(out, story.severity.0, story.root_cause.first().map_or("", |c| c.cause.as_str()));
}

/// Writes a member as a span event.
fn member_event(out: &mut ProtoVec, member: &Member) {
    out.fixed64(1, member.time_ns);
    out.delimited(2, member.kind.as_bytes());
    out.hex_attribute(3, "tapio.event.id", &member.id.0);
    out.text_attribute(3, "tapio.source", &member.source);
    out.text_attribute(3, "tapio.story.role", &member.role);
    out.attribute(3, "tapio.severity_number", &Value::Int(i64::from(member.severity.0)));
    out.text_attribute(3, "tapio.summary", &member.summary);
}

fn attributes(out: &mut ProtoVec, field: u32, story: &Story) {
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            out.text_attribute(field, key, value);
        }
    };
    text("tapio.story.id", &hex(&story.id.0));
    text("tapio.story.rule", &story.rule);
    text("tapio.story.pattern", &story.pattern);
    text("tapio.story.intent", &story.intent);
    text("tapio.story.state", story.state.as_str());
    text("tapio.story.continues", &story.continues.map_or_else(String::new, |id| hex(&id.0)));
    // Notify about a story without an incident: it is the parent of those that name it.
    if let Some(incident) = &story.incident {
        text("tapio.story.incident.id", &hex(&incident.id.0));
        text("tapio.story.incident.role", incident.role.as_str());
        text("tapio.story.incident.because", &incident.because);
    }
    for (key, value) in &story.key {
        text(&format!("tapio.story.key.{key}"), value);
    }
    let int = |n: u64| Value::Int(n.try_into().unwrap_or(i64::MAX));
    out.attribute(field, "tapio.story.revision", &int(u64::from(story.revision)));
    out.attribute(field, "tapio.story.members", &int(story.members_total));
    out.attribute(field, "tapio.story.confidence", &Value::Float(story.confidence));
    if let Some(cause) = story.root_cause.first() {
        root_cause(out, field, cause, story);
    }
    let impact = &story.impact;
    out.attribute(field, "tapio.story.impact.business", &Value::Float(impact.business));
    let facing = Value::Bool(impact.customer_facing);
    out.attribute(field, "tapio.story.impact.customer_facing", &facing);
    out.attribute(field, "tapio.story.impact.slo", &Value::Bool(impact.slo_impact));
    list(out, field, "tapio.story.impact.affected", &impact.affected);
    list(out, field, "tapio.story.actions", &story.actions);
}

fn root_cause(out: &mut ProtoVec, field: u32, cause: &Candidate, story: &Story) {
    out.text_attribute(field, "tapio.story.root_cause", &cause.cause);
    out.attribute(field, "tapio.story.root_cause.score", &Value::Float(cause.score));
    if let Some(entity) = &cause.entity {
        out.text_attribute(field, "tapio.story.root_cause.entity.kind", &entity.kind);
        out.text_attribute(field, "tapio.story.root_cause.entity.name", &entity.name);
    }
    let evidence = |id: &EventId| hex(&id.0);
    let evidence: Vec<String> = cause.evidence.iter().map(evidence).collect();
    list(out, field, "tapio.story.root_cause.evidence", &evidence);
    let others = story.root_cause.iter().skip(1).map(|other| other.cause.clone());
    list(out, field, "tapio.story.root_cause.alternatives", &others.collect::<Vec<_>>());
}

fn list(out: &mut ProtoVec, field: u32, key: &str, texts: &[String]) {
    if !texts.is_empty() {
        out.json_attribute(field, key, &texts.iter().map(String::as_str).collect());
    }
}
