//! Links between stories. Stories that share member events belong to one incident, though each may
//! have a trace of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Value as Json, json};

use super::id::{EventId, TraceId};
use super::json::rounded;
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

/// A story and its links.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkedStory {
    /// The story.
    pub story: Story,
    /// Its links, those with the most shared members first.
    pub links: Vec<Link>,
}

impl LinkedStory {
    /// Renders the story as JSON, with its `links`.
    #[must_use]
    pub fn json(&self) -> Json {
        let mut json = self.story.json();
        json["links"] = self.links.iter().map(Link::json).collect();
        json
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

/// Index from events to the stories they are members of. Lifecycles and retracted stories aren't
/// indexed.
#[derive(Default)]
pub struct LinkIndex {
    stories_of: HashMap<EventId, Vec<TraceId>, ahash::RandomState>,
}

impl LinkIndex {
    /// Adds a story's members. The caller first removes those of an earlier revision.
    pub fn insert(&mut self, story: &Story) {
        if story.is_lifecycle() || story.state == StoryState::Retracted {
            return;
        }
        for member in &story.members {
            // Most events are in one story.
            let stories = self.stories_of.entry(member.id).or_insert_with(|| Vec::with_capacity(1));
            if !stories.contains(&story.id) {
                stories.push(story.id);
            }
        }
    }

    /// Removes a story's members.
    pub fn remove(&mut self, story: &Story) {
        for member in &story.members {
            if let Entry::Occupied(mut stories) = self.stories_of.entry(member.id) {
                stories.get_mut().retain(|id| *id != story.id);
                if stories.get().is_empty() {
                    stories.remove();
                }
            }
        }
    }

    /// Returns the links of a story, those with the most shared members first. `find` returns a
    /// story by its id.
    #[must_use]
    pub fn links_of<'a>(
        &self,
        story: &Story,
        find: impl Fn(TraceId) -> Option<&'a Story>,
    ) -> Vec<Link> {
        let mut shared: HashMap<TraceId, u64> = HashMap::new();
        for member in &story.members {
            for id in self.stories_of.get(&member.id).into_iter().flatten() {
                if *id != story.id {
                    *shared.entry(*id).or_default() += 1;
                }
            }
        }
        let link = |(id, shared): (TraceId, u64)| {
            let other = find(id)?;
            let smaller = story.members.len().min(other.members.len()).max(1);
            let score = shared as f64 / smaller as f64;
            let (trace_id, name) = (other.trace_id, other.name.clone());
            Some((other.first_ns, Link { id, trace_id, name, shared, score }))
        };
        let mut links: Vec<(u64, Link)> = shared.into_iter().filter_map(link).collect();
        links.sort_by(|(first, a), (second, b)| {
            b.shared.cmp(&a.shared).then(first.cmp(second)).then(a.id.cmp(&b.id))
        });
        links.into_iter().map(|(_, link)| link).take(MAX_LINKS).collect()
    }
}

/// Returns a story with its links among `all`.
#[must_use]
pub fn linked_among(story: &Story, all: &[Story]) -> LinkedStory {
    let mut index = LinkIndex::default();
    let by_id: HashMap<TraceId, &Story> = all.iter().map(|s| (s.id, s)).collect();
    by_id.values().for_each(|one| index.insert(one));
    let links = index.links_of(story, |id| by_id.get(&id).copied());
    LinkedStory { story: story.clone(), links }
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

    #[test]
    fn removed_story_has_no_links() {
        let (one, other) = (story(1, "a", &[1, 2]), story(2, "b", &[2]));
        let mut index = LinkIndex::default();
        index.insert(&one);
        index.insert(&other);
        index.insert(&other);
        assert_eq!(index.links_of(&one, |_| Some(&other)).len(), 1);
        index.remove(&other);
        index.remove(&one);
        assert!(index.links_of(&one, |_| Some(&other)).is_empty() && index.stories_of.is_empty());
    }
}
