//! Links between stories. Stories that share member events belong to one incident, though each may
//! have a trace of its own.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::id::{EventId, TraceId};
use super::json::{rfc3339, rounded};
use super::severity::Severity;
use super::story::{Story, StoryState};

/// Maximum number of links of one story.
pub const MAX_LINKS: usize = 16;

/// Another story that shares members with a story.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its id.
    pub id: TraceId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its title.
    pub name: String,
    /// Number of events that are kept members of both.
    pub shared: u64,
    /// `shared` divided by the kept members of the smaller story: 1 where one story contains the
    /// other (the overlap coefficient of Szymkiewicz and Simpson).
    pub score: f64,
}

/// The part of a story that one node has: nodes that observe the same first event open stories of
/// one trace and one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryPart {
    /// The node.
    pub node: String,
    /// The id of the node's story.
    pub id: TraceId,
    /// The state of the node's story.
    pub state: StoryState,
    /// Number of its members.
    pub members_total: u64,
    /// The first member's time.
    pub first_ns: u64,
    /// The last member's time.
    pub last_ns: u64,
    /// Its severity.
    pub severity: Severity,
}

/// A story, its links and its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkedStory {
    /// The story; of several parts, that of the node that opened it first.
    pub story: Story,
    /// Its links, those with the most shared members first.
    pub links: Vec<Link>,
    /// Its parts, the one that opened first ahead; empty where the nodes aren't known.
    pub parts: Vec<StoryPart>,
}

impl LinkedStory {
    /// Renders the story as JSON, with its `links` and `parts`.
    #[must_use]
    pub fn json(&self) -> Json {
        let mut json = self.story.json();
        json["links"] = self.links.iter().map(Link::json).collect();
        if !self.parts.is_empty() {
            json["parts"] = self.parts.iter().map(StoryPart::json).collect();
        }
        json
    }
}

impl StoryPart {
    fn json(&self) -> Json {
        json!({
            "node": self.node,
            "id": self.id.to_string(),
            "state": self.state.as_str(),
            "severity": self.severity.as_str(),
            "first": rfc3339(self.first_ns),
            "last": rfc3339(self.last_ns),
            "members_total": self.members_total,
        })
    }
}

impl Link {
    fn json(&self) -> Json {
        json!({
            "id": self.id.to_string(),
            "trace_id": self.trace_id.to_string(),
            "name": self.name,
            "shared": self.shared,
            "score": rounded(self.score),
        })
    }
}

impl Link {
    /// A link of a story with `members` kept members to another one, with which it shares some.
    #[must_use]
    pub fn new(other: &LinkTarget<'_>, shared: u64, members: usize) -> Self {
        let smaller = members.min(other.members).max(1);
        Self {
            id: other.id,
            trace_id: other.trace_id,
            name: other.name.to_owned(),
            shared,
            score: shared as f64 / smaller as f64,
        }
    }
}

/// The story that a link leads to.
#[derive(Clone, Copy, Debug)]
pub struct LinkTarget<'a> {
    /// Its id.
    pub id: TraceId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its title.
    pub name: &'a str,
    /// Its kept members.
    pub members: usize,
    /// Its first member's time.
    pub first_ns: u64,
}

impl LinkedStory {
    /// Links a story with others, each with the number of members that both have.
    #[must_use]
    pub fn new<'a>(
        story: Story,
        others: impl IntoIterator<Item = (LinkTarget<'a>, u64)>,
        parts: Vec<StoryPart>,
    ) -> Self {
        let mut others: Vec<_> = others.into_iter().collect();
        others.sort_by_key(|(other, shared)| (Reverse(*shared), other.first_ns, other.id));
        let links = others.iter().take(MAX_LINKS);
        let links = links.map(|(other, shared)| Link::new(other, *shared, story.members.len()));
        Self { links: links.collect(), story, parts }
    }
}

impl Story {
    /// Whether other stories link to it: lifecycles and retracted stories aren't incidents.
    #[must_use]
    pub fn is_linkable(&self) -> bool {
        !self.is_lifecycle() && self.state != StoryState::Retracted
    }
}

/// Returns a story with its links among `all`.
#[must_use]
pub fn linked_among(story: &Story, all: &[Story]) -> LinkedStory {
    let members: HashSet<EventId> = story.members.iter().map(|m| m.id).collect();
    let by_id: HashMap<TraceId, &Story> = all.iter().map(|s| (s.id, s)).collect();
    let others = by_id.into_values().filter(|other| other.id != story.id && other.is_linkable());
    let shared = others.filter_map(|other| {
        let theirs: HashSet<EventId> = other.members.iter().map(|m| m.id).collect();
        let shared = theirs.intersection(&members).count() as u64;
        let Story { id, trace_id, name, first_ns, members, .. } = other;
        let (members, id, trace_id, first_ns) = (members.len(), *id, *trace_id, *first_ns);
        let target = LinkTarget { id, trace_id, name, members, first_ns };
        (shared > 0).then_some((target, shared))
    });
    LinkedStory::new(story.clone(), shared, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Member, Severity};

    fn story(id: u8, rule: &str, members: &[u8]) -> Story {
        let member = |n: &u8| Member {
            id: EventId([*n; 16]),
            label: String::new(),
            time_ns: u64::from(*n),
            kind: "t.a".into(),
            source: "t".into(),
            severity: Severity::ERROR,
            role: String::new(),
            pattern: String::new(),
            summary: String::new(),
        };
        Story {
            id: TraceId([id; 16]),
            trace_id: TraceId([id; 16]),
            rule: rule.into(),
            pattern: rule.into(),
            name: format!("{rule} {id}"),
            state: StoryState::Closed,
            members: members.iter().map(member).collect(),
            members_total: members.len() as u64,
            severity: Severity::ERROR,
            confidence: 1.0,
            ..Story::default()
        }
    }

    #[test]
    fn stories_that_share_members_are_linked() {
        let cascade = story(1, "cascade", &[1, 2, 3, 4]);
        let mut retracted = story(5, "guess", &[1, 2]);
        retracted.state = StoryState::Retracted;
        let all = [
            cascade.clone(),
            story(2, "crash-loop", &[4, 5]),
            story(3, "unit-failure", &[1, 2]),
            story(4, "unit-lifecycle", &[1, 2, 3]),
            retracted,
            story(6, "elsewhere", &[7]),
        ];
        let links = linked_among(&cascade, &all).links;
        let found: Vec<(&str, u64, f64)> =
            links.iter().map(|l| (&*l.name, l.shared, l.score)).collect();
        assert_eq!(found, [("unit-failure 3", 2, 1.0), ("crash-loop 2", 1, 0.5)]);
        assert_eq!(linked_among(&all[1], &all).links[0].id, cascade.id);
        assert_eq!(linked_among(&all[5], &all).links, []);
        assert_eq!(linked_among(&cascade, &all).json()["links"][0]["shared"], 2);
    }
}
