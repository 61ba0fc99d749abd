//! Queries for incidents, the last updated first: stories of one cause, each with its parent.

use std::collections::HashMap;

use super::page::{Budget, Cursor, Page};
use super::story_query::{Listed, Parts, StorySelection, join_parts};
use tapio_core::event::{IncidentView, Story, TraceId};

/// Stories of an incident that are read; of one with more, the first ones.
const MAX_STORIES: usize = 64;

/// An incident: its stories, the parent first, then in the order of their beginning.
struct Group<'a>(Vec<&'a Parts<'a>>);

impl Listed for Group<'_> {
    /// That of the story that was updated last.
    fn cursor(&self) -> Option<Cursor> {
        self.0.iter().filter_map(|parts| parts.cursor()).max()
    }

    fn receipt_ns(&self) -> u64 {
        self.0.iter().map(|parts| parts.receipt_ns()).max().unwrap_or(0)
    }
}

/// Groups stories by incident, the last updated first. Lifecycles and retracted stories aren't
/// incidents.
fn group<'a>(all: &'a [Parts<'a>]) -> Vec<Group<'a>> {
    // A story that replaces the parent is the parent.
    let replaced: HashMap<TraceId, TraceId> = all
        .iter()
        .map(|parts| parts.first)
        .filter(|story| story.replaces.is_some())
        .map(|story| (story.replaces, story.id))
        .collect();
    let mut groups: HashMap<TraceId, Vec<&Parts<'_>>> = HashMap::new();
    for parts in all.iter().filter(|parts| parts.first.is_linkable) {
        let story = parts.first;
        let id = if story.incident.is_some() { story.incident } else { story.id };
        groups.entry(replaced.get(&id).copied().unwrap_or(id)).or_default().push(parts);
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_iter()
        .map(|(id, mut stories)| {
            stories.sort_by_key(|parts| {
                let story = parts.first;
                (story.id != id, story.first_ns, story.id)
            });
            Group(stories)
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.cursor()));
    groups
}

impl StorySelection {
    /// Reads the incidents that were updated last and of which a story matches. Of pages and
    /// damage the same is true as of stories ([`StorySelection::read`]).
    #[must_use]
    pub fn read_incidents(&self, budget: &Budget) -> Page<IncidentView> {
        let all = join_parts(&self.stories);
        self.page(budget, &group(&all), |group, reader| {
            let matches = group.0.iter().any(|parts| self.read_story(parts, reader).is_some());
            let stories = group.0.iter().take(if matches { MAX_STORIES } else { 0 });
            let stories: Vec<(String, Story)> = stories
                .filter_map(|parts| {
                    let story = reader.read(parts.first)?;
                    Some((parts.first.node.to_string(), story))
                })
                .collect();
            IncidentView::new(stories)
        })
    }
}
