//! Converts incidents to protobuf.

use super::proto;
use super::story::{candidate_to_proto, impact_to_proto, role_to_proto, state_to_proto};
use tapio_core::event::{IncidentView, Story};

/// Converts an incident with its stories to protobuf.
#[must_use]
pub fn incident_to_proto(incident: &IncidentView) -> proto::IncidentView {
    let parent = incident.stories().next();
    let cause = incident.cause_story();
    let (first_unix_nano, last_unix_nano) = incident.span_ns();
    proto::IncidentView {
        id: parent.map(|story| story.id.0.to_vec()).unwrap_or_default(),
        name: parent.map(|story| story.name.clone()).unwrap_or_default(),
        open: incident.is_open(),
        severity: u32::from(incident.severity().0),
        first_unix_nano,
        last_unix_nano,
        cause_story: cause.map(|story| story.id.0.to_vec()).unwrap_or_default(),
        root_cause: cause
            .map(|story| story.root_cause.iter().map(candidate_to_proto).collect())
            .unwrap_or_default(),
        actions: cause.map(|story| story.actions.clone()).unwrap_or_default(),
        impact: Some(impact_to_proto(&incident.impact())),
        stories: incident.stories_of_nodes().map(|(node, story)| member(node, story)).collect(),
    }
}

fn member(node: &str, story: &Story) -> proto::IncidentStory {
    let of = story.incident.as_ref();
    proto::IncidentStory {
        id: story.id.0.to_vec(),
        trace_id: story.trace_id.0.to_vec(),
        node: node.to_owned(),
        rule: story.rule.clone(),
        pattern: story.pattern.clone(),
        name: story.name.clone(),
        state: state_to_proto(story.state) as i32,
        severity: u32::from(story.severity.0),
        first_unix_nano: story.first_ns,
        last_unix_nano: story.last_ns,
        members_total: story.members_total,
        role: of.map_or(proto::IncidentRole::Unspecified, |of| role_to_proto(of.role)) as i32,
        because: of.map(|incident| incident.because.clone()).unwrap_or_default(),
    }
}
