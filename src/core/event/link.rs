//! Links between stories: what two of them have in common are the same facts, so they belong to one incident, though each has a
//! trace of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Value as Json, json};

use super::json_out::rounded;
use super::{EventId, Story, StoryState, TraceId};

/// Links that are told of one story.
const MAX_LINKS: usize = 16;

/// Another story that has members in common with one.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its id.
    pub id: TraceId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its title.
    pub name: String,
    /// How many of the kept members of both are the same events.
    pub shared: u64,
    /// The share that is of the smaller one's kept members: 1 where one story is a part of the other (the overlap
    /// coefficient, after Szymkiewicz and Simpson).
    pub score: f64,
}

/// A story and those that have members in common with it.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkedStory {
    /// The story.
    pub story: Story,
    /// The others, those with the most first.
    pub links: Vec<Link>,
}

impl LinkedStory {
    /// The story as JSON, with its `links`.
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

/// Which stories an event is a member of. What is no story (an entity's life, a story that was taken back) isn't kept.
#[derive(Default)]
pub struct LinkIndex {
    stories_of: HashMap<EventId, Vec<TraceId>, ahash::RandomState>,
}

impl LinkIndex {
    /// Takes a story's members in; those of an earlier revision are to be taken out first.
    pub fn enter(&mut self, story: &Story) {
        if story.is_life() || story.state == StoryState::Retracted {
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

    /// Takes a story's members out.
    pub fn leave(&mut self, story: &Story) {
        for member in &story.members {
            if let Entry::Occupied(mut stories) = self.stories_of.entry(member.id) {
                stories.get_mut().retain(|id| *id != story.id);
                if stories.get().is_empty() {
                    stories.remove();
                }
            }
        }
    }

    /// The stories that have members in common with one, those with the most first. `find` knows them by id.
    #[must_use]
    pub fn of<'a>(&self, story: &Story, find: impl Fn(TraceId) -> Option<&'a Story>) -> Vec<Link> {
        let mut shared: HashMap<TraceId, u64> = HashMap::new();
        for member in &story.members {
            for id in self.stories_of.get(&member.id).into_iter().flatten() {
                if *id != story.id {
                    *shared.entry(*id).or_default() += 1;
                }
            }
        }
        let linked = |(id, shared): (TraceId, u64)| {
            let other = find(id)?;
            let least = story.members.len().min(other.members.len()).max(1);
            let score = shared as f64 / least as f64;
            let (trace_id, name) = (other.trace_id, other.name.clone());
            Some((other.first_ns, Link { id, trace_id, name, shared, score }))
        };
        let mut links: Vec<(u64, Link)> = shared.into_iter().filter_map(linked).collect();
        links.sort_by(|(first, a), (second, b)| {
            b.shared.cmp(&a.shared).then(first.cmp(second)).then(a.id.cmp(&b.id))
        });
        links.into_iter().map(|(_, link)| link).take(MAX_LINKS).collect()
    }
}

/// One of several stories with its links.
#[must_use]
pub fn linked_among(story: &Story, all: &[Story]) -> LinkedStory {
    let mut index = LinkIndex::default();
    let by_id: HashMap<TraceId, &Story> = all.iter().map(|g| (g.id, g)).collect();
    by_id.values().for_each(|one| index.enter(one));
    let links = index.of(story, |id| by_id.get(&id).copied());
    LinkedStory { story: story.clone(), links }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Impact, Member, Severity};

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
            intent: String::new(),
            state: StoryState::Closed,
            revision: 0,
            key: Vec::new(),
            members: members.iter().map(member).collect(),
            members_total: members.len() as u64,
            first_ns: 0,
            last_ns: 0,
            severity: Severity::ERROR,
            root_cause: Vec::new(),
            impact: Impact::default(),
            actions: Vec::new(),
            confidence: 1.0,
            continues: None,
            provisional: None,
        }
    }

    #[test]
    fn stories_with_members_in_common_are_linked() {
        let cascade = story(1, "cascade", &[1, 2, 3, 4]);
        let mut taken_back = story(5, "guess", &[1, 2]);
        taken_back.state = StoryState::Retracted;
        let all = [
            cascade.clone(),
            story(2, "crash-loop", &[4, 5]),
            story(3, "unit-failure", &[1, 2]),
            story(4, "unit-lifecycle", &[1, 2, 3]),
            taken_back,
            story(6, "elsewhere", &[7]),
        ];
        let links = linked_among(&cascade, &all).links;
        let said: Vec<(&str, u64, f64)> =
            links.iter().map(|l| (&*l.name, l.shared, l.score)).collect();
        assert_eq!(said, [("unit-failure 3", 2, 1.0), ("crash-loop 2", 1, 0.5)]);
        assert_eq!(linked_among(&all[1], &all).links[0].id, cascade.id);
        assert_eq!(linked_among(&all[5], &all).links, []);
        assert_eq!(linked_among(&cascade, &all).json()["links"][0]["shared"], 2);
    }

    #[test]
    fn what_was_taken_out_is_linked_no_more() {
        let (one, other) = (story(1, "a", &[1, 2]), story(2, "b", &[2]));
        let mut index = LinkIndex::default();
        index.enter(&one);
        index.enter(&other);
        index.enter(&other);
        assert_eq!(index.of(&one, |_| Some(&other)).len(), 1);
        index.leave(&other);
        index.leave(&one);
        assert!(index.of(&one, |_| Some(&other)).is_empty() && index.stories_of.is_empty());
    }
}
