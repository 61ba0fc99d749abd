//! Queries for incidents, the last updated first: stories of one cause, each with its parent.

use std::collections::HashMap;

use super::page::{Budget, Cursor, Page};
use super::story_index::first_sixteen;
use super::story_query::{Parts, StoryReader, StorySelection, join_parts};
use tapio_core::clock;
use tapio_core::event::{IncidentView, Story};

/// Stories of an incident that are read; of one with more, the first ones.
const MAX_STORIES: usize = 64;

/// An incident: its stories, the parent first, then in the order of their beginning.
struct Group<'a>(Vec<&'a Parts>);

impl Group<'_> {
    /// Its position in the list: that of the story that was updated last.
    fn cursor(&self) -> Option<Cursor> {
        self.0.iter().filter_map(|parts| parts.cursor()).max()
    }

    fn receipt_ns(&self) -> u64 {
        self.0.iter().map(|parts| parts.receipt_ns()).max().unwrap_or(0)
    }
}

/// Groups stories by incident, the last updated first. Lifecycles and retracted stories aren't
/// incidents.
fn group(all: &[Parts]) -> Vec<Group<'_>> {
    // A story that replaces the parent is the parent.
    let replaced: HashMap<[u8; 16], [u8; 16]> = all
        .iter()
        .map(|parts| &parts.0[0].entry)
        .filter(|entry| !entry.replaces.is_empty())
        .map(|entry| (first_sixteen(&entry.replaces), first_sixteen(&entry.id)))
        .collect();
    let mut groups: HashMap<[u8; 16], Vec<&Parts>> = HashMap::new();
    for parts in all.iter().filter(|parts| parts.0[0].entry.is_linkable) {
        let entry = &parts.0[0].entry;
        let id = if entry.incident.is_empty() { &entry.id } else { &entry.incident };
        let id = first_sixteen(id);
        groups.entry(replaced.get(&id).copied().unwrap_or(id)).or_default().push(parts);
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_iter()
        .map(|(id, mut stories)| {
            stories.sort_by_key(|parts| {
                let entry = &parts.0[0].entry;
                (first_sixteen(&entry.id) != id, entry.first_ns, first_sixteen(&entry.id))
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
        let deadline = budget.deadline();
        let all = join_parts(&self.stories);
        let groups = group(&all);
        let mut reader = StoryReader::new(&self.log);
        let (mut items, mut next) = (Vec::new(), None);
        let first = groups.iter().position(|group| group.cursor() < Some(self.before));
        let mut rest = groups[first.unwrap_or(groups.len())..].iter();
        for group in rest.by_ref() {
            let matches = group.0.iter().any(|parts| self.read_story(parts, &mut reader).is_some());
            if matches {
                let stories: Vec<(String, Story)> = group
                    .0
                    .iter()
                    .take(MAX_STORIES)
                    .filter_map(|parts| {
                        let story = reader.read(&parts.0[0])?;
                        Some((parts.0[0].entry.node.clone(), story))
                    })
                    .collect();
                items.extend(IncidentView::new(stories));
            }
            let is_over = || deadline.is_some_and(|deadline| clock::instant() >= deadline);
            if items.len() >= budget.items || reader.bytes >= budget.bytes || is_over() {
                next = group.cursor();
                break;
            }
        }
        let remaining = rest.map(Group::receipt_ns).max();
        let unread = remaining
            .max((self.evicted_ns > 0).then_some(self.evicted_ns))
            .max(self.log.damaged_receipt_ns());
        Page {
            items,
            next: next.filter(|_| remaining.is_some()),
            complete_since_ns: unread.map_or(0, |ns| ns.saturating_add(1)),
        }
    }
}
