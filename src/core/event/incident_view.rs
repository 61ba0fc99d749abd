//! An incident with its stories, and its JSON form.

use std::cmp::Reverse;

use serde_json::{Value as Json, json};

use super::incident::IncidentRole;
use super::json::{rfc3339, rounded};
use super::severity::Severity;
use super::story::{Impact, Story};

/// Affected entities of an incident that are listed.
const MAX_AFFECTED: usize = 64;

/// An incident with its stories.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentView {
    /// Its stories, each with its node; the parent is the first.
    stories: Vec<(String, Story)>,
    /// The story that has the root cause.
    cause: usize,
}

/// The story that has the root cause: the earliest of those that explain others. Where none does,
/// the worst, the earliest of several; effects aren't considered.
fn cause(stories: &[(String, Story)]) -> usize {
    let role = |story: &Story| story.incident.as_ref().map(|incident| incident.role);
    let of = |wanted: &dyn Fn(Option<IncidentRole>) -> bool| {
        let all = stories.iter().enumerate().filter(|(_, (_, story))| wanted(role(story)));
        all.min_by_key(|(_, (_, story))| (Reverse(story.severity), story.first_ns))
    };
    let explains = stories.iter().enumerate();
    let explains = explains.filter(|(_, (_, story))| role(story) == Some(IncidentRole::Cause));
    let explains = explains.min_by_key(|(_, (_, story))| story.first_ns);
    let found = explains.or_else(|| of(&|role| role != Some(IncidentRole::Effect)));
    found.map_or(0, |(at, _)| at)
}

impl IncidentView {
    /// An incident of these stories, each with its node, the parent first. `None` without stories.
    #[must_use]
    pub fn new(stories: Vec<(String, Story)>) -> Option<Self> {
        let cause = cause(&stories);
        (!stories.is_empty()).then_some(Self { stories, cause })
    }

    /// The stories, the parent first.
    pub fn stories(&self) -> impl Iterator<Item = &Story> {
        self.stories.iter().map(|(_, story)| story)
    }

    /// The stories, each with its node, the parent first.
    pub fn stories_of_nodes(&self) -> impl Iterator<Item = (&str, &Story)> {
        self.stories.iter().map(|(node, story)| (node.as_str(), story))
    }

    /// The story that explains the others.
    #[must_use]
    pub fn cause_story(&self) -> Option<&Story> {
        self.stories().nth(self.cause)
    }

    /// The times of the first and the last member, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn span_ns(&self) -> (u64, u64) {
        let first_ns = self.stories().map(|story| story.first_ns).min().unwrap_or(0);
        (first_ns, self.stories().map(|story| story.last_ns).max().unwrap_or(0))
    }

    /// The worst severity of its stories.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.stories().map(|story| story.severity).max().unwrap_or_default()
    }

    /// Whether one of its stories is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stories().any(|story| !story.state.is_end())
    }

    /// The impact of all stories, without evidence.
    #[must_use]
    pub fn impact(&self) -> Impact {
        let mut affected: Vec<String> = Vec::new();
        for entity in self.stories().flat_map(|story| &story.impact.affected) {
            if affected.len() < MAX_AFFECTED && !affected.contains(entity) {
                affected.push(entity.clone());
            }
        }
        Impact {
            business: self.stories().map(|story| story.impact.business).fold(0.0, f64::max),
            customer_facing: self.stories().any(|story| story.impact.customer_facing),
            slo_impact: self.stories().any(|story| story.impact.slo_impact),
            affected,
            evidence: Vec::new(),
        }
    }

    /// Renders the incident as JSON: what is common, the root causes and actions of the story that
    /// explains the others, and the stories.
    #[must_use]
    pub fn json(&self) -> Json {
        let (Some(parent), Some(cause)) = (self.stories().next(), self.cause_story()) else {
            return Json::Null;
        };
        let (first_ns, last_ns) = self.span_ns();
        let cause_json = cause.json();
        let impact = self.impact();
        json!({
            "id": parent.id.to_string(),
            "name": parent.name,
            "state": if self.is_open() { "open" } else { "closed" },
            "severity": self.severity().as_str(),
            "first": rfc3339(first_ns),
            "last": rfc3339(last_ns),
            "duration_ns": last_ns.saturating_sub(first_ns),
            "cause_story": cause.id.to_string(),
            "root_causes": cause_json["root_causes"],
            "actions": cause.actions,
            "impact": {
                "business": rounded(impact.business),
                "customer_facing": impact.customer_facing,
                "slo_impact": impact.slo_impact,
                "affected": impact.affected,
            },
            "stories": self.stories.iter().map(story_json).collect::<Vec<_>>(),
        })
    }
}

/// One story of an incident, in short.
fn story_json((node, story): &(String, Story)) -> Json {
    let (role, because) = match &story.incident {
        Some(incident) => (incident.role.as_str(), incident.because.as_str()),
        None => ("parent", ""),
    };
    json!({
        "id": story.id.to_string(),
        "trace_id": story.trace_id.to_string(),
        "node": node,
        "rule": story.rule,
        "pattern": story.pattern,
        "name": story.name,
        "state": story.state.as_str(),
        "severity": story.severity.as_str(),
        "first": rfc3339(story.first_ns),
        "last": rfc3339(story.last_ns),
        "members_total": story.members_total,
        "role": role,
        "because": because,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Candidate, Incident, TraceId};

    fn story(number: u8, severity: Severity, role: Option<IncidentRole>) -> (String, Story) {
        let because = "because".to_owned();
        let incident = role.map(|role| Incident { id: TraceId([1; 16]), role, because });
        let root_cause = vec![Candidate {
            cause: format!("cause {number}"),
            entity: None,
            evidence: Vec::new(),
            labels: Vec::new(),
            score: 1.0,
            terms: Vec::new(),
        }];
        let story = Story {
            id: TraceId([number; 16]),
            severity,
            first_ns: 1_700_000_000_000_000_000 + u64::from(number),
            root_cause,
            incident,
            ..Story::default()
        };
        ("node-a".into(), story)
    }

    #[test]
    fn story_that_explains_others_has_the_root_cause() {
        use IncidentRole::{Cause, Effect, Same};
        let parent = story(1, Severity::ERROR, None);
        for (others, expected) in [
            (vec![], "cause 1"),
            (vec![story(2, Severity::WARN, Some(Cause))], "cause 2"),
            (vec![story(2, Severity::FATAL, Some(Effect))], "cause 1"),
            (vec![story(2, Severity::FATAL, Some(Same))], "cause 2"),
            (vec![story(2, Severity::ERROR, Some(Same))], "cause 1"),
        ] {
            let stories = std::iter::once(parent.clone()).chain(others).collect();
            let json = IncidentView::new(stories).unwrap().json();
            assert_eq!(json["root_causes"][0]["cause"], expected);
            assert_eq!(json["id"], parent.1.id.to_string());
            assert_eq!(json["stories"][0]["role"], "parent");
        }
        assert!(IncidentView::new(Vec::new()).is_none());
    }
}
