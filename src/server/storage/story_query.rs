//! Queries for stories, the last updated first. Stories that several nodes have of one trace and
//! one rule are one story, with a part for each node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::page::{Budget, Cursor, Page};
use super::query_filter::Filter;
use super::story_index::{Located, decode};
use crate::store::{FramePosition, LogSnapshot};
use tapio_core::clock;
use tapio_core::event::{LinkedStory, Severity, Story, StoryPart, StoryState};
use tapio_wire::{Batch, Item};

/// A query that is ready to be read.
pub struct StorySelection {
    pub(super) filter: Filter,
    pub(super) before: Cursor,
    pub(super) log: LogSnapshot,
    /// All stories, the last updated first.
    pub(super) stories: Vec<Arc<Located>>,
    /// The latest receipt of a story that was evicted from the index.
    pub(super) evicted_ns: u64,
}

/// The parts of a story: that of the node whose part opened first, then the others in this order.
/// The order in which they were received doesn't matter.
pub(super) struct Parts(pub(super) Vec<Arc<Located>>);

impl Parts {
    fn new(mut parts: Vec<Arc<Located>>) -> Self {
        parts.sort_by(|a, b| {
            let order = |p: &Located| (p.entry.first_ns, p.id());
            order(a).cmp(&order(b)).then_with(|| a.entry.node.cmp(&b.entry.node))
        });
        Self(parts)
    }

    fn to_parts(&self) -> Vec<StoryPart> {
        let part = |part: &Arc<Located>| StoryPart {
            node: part.entry.node.clone(),
            id: part.id(),
            state: StoryState::from_number(part.entry.state).unwrap_or_default(),
            members_total: part.entry.members_total,
            first_ns: part.entry.first_ns,
            last_ns: part.entry.last_ns,
            severity: Severity(part.entry.severity as u8),
        };
        self.0.iter().map(part).collect()
    }
}

impl Listed for Parts {
    /// That of the part that was updated last.
    fn cursor(&self) -> Option<Cursor> {
        self.0.iter().map(|part| part.cursor()).max()
    }

    fn receipt_ns(&self) -> u64 {
        self.0.iter().map(|part| part.entry.receipt_ns).max().unwrap_or(0)
    }
}

/// Joins the parts of stories. Keeps the order: the last updated first. Leaves out stories that
/// others replace.
pub(super) fn join_parts(all: &[Arc<Located>]) -> Vec<Parts> {
    let replacing = all.iter().filter(|story| !story.entry.replaces.is_empty());
    let replaced: HashSet<(&[u8], &str)> =
        replacing.map(|story| (&story.entry.replaces[..], &story.entry.node[..])).collect();
    let is_current =
        |story: &&Arc<Located>| !replaced.contains(&(&story.entry.id[..], &story.entry.node[..]));
    let stories: Vec<&Arc<Located>> = all.iter().filter(is_current).collect();
    let mut of_trace: HashMap<(&[u8], &str), Vec<&Arc<Located>>, ahash::RandomState> =
        HashMap::default();
    for story in stories.iter().copied().filter(|story| !story.is_retracted()) {
        of_trace.entry((&story.entry.trace_id, &story.entry.rule)).or_default().push(story);
    }
    let joined = |story: &Arc<Located>| {
        let parts = of_trace.get(&(&story.entry.trace_id[..], &story.entry.rule[..]));
        let is_of_several =
            |parts: &&Vec<&Arc<Located>>| parts.iter().any(|p| p.entry.node != story.entry.node);
        match parts.filter(|_| !story.is_retracted()).filter(is_of_several) {
            None => Some(Parts(vec![Arc::clone(story)])),
            Some(parts) => Arc::ptr_eq(parts[0], story)
                .then(|| Parts::new(parts.iter().map(|part| Arc::clone(part)).collect())),
        }
    };
    stories.into_iter().filter_map(joined).collect()
}

/// An item of a list that is read in pages.
pub(super) trait Listed {
    /// Its position in the list.
    fn cursor(&self) -> Option<Cursor>;
    /// The latest receipt of its parts, nanoseconds since the Unix epoch.
    fn receipt_ns(&self) -> u64;
}

impl StorySelection {
    /// Reads the matching stories that were updated last. A story matches if one of its parts does.
    /// Stories whose segment was removed since are skipped; so are damaged ones, which the page
    /// isn't complete without.
    #[must_use]
    pub fn read(&self, budget: &Budget) -> Page<LinkedStory> {
        let all = join_parts(&self.stories);
        let page = self.page(budget, &all, |parts, reader| {
            self.read_story(parts, reader).map(|story| (parts, story))
        });
        let Page { items, next, complete_since_ns } = page;
        Page { items: link(items, &all), next, complete_since_ns }
    }

    /// Reads items of a list, the newest first, until the budget is spent. `read` gives none for
    /// those that don't match.
    pub(super) fn page<'a, L: Listed, T>(
        &'a self,
        budget: &Budget,
        all: &'a [L],
        mut read: impl FnMut(&'a L, &mut StoryReader<'a>) -> Option<T>,
    ) -> Page<T> {
        let deadline = budget.deadline();
        let mut reader = StoryReader::new(&self.log);
        let (mut items, mut next) = (Vec::new(), None);
        let first = all.iter().position(|item| item.cursor() < Some(self.before));
        let mut rest = all[first.unwrap_or(all.len())..].iter();
        for item in rest.by_ref() {
            items.extend(read(item, &mut reader));
            let is_over = || deadline.is_some_and(|deadline| clock::instant() >= deadline);
            if items.len() >= budget.items || reader.bytes >= budget.bytes || is_over() {
                next = item.cursor();
                break;
            }
        }
        let remaining = rest.map(Listed::receipt_ns).max();
        let unread = remaining
            .max((self.evicted_ns > 0).then_some(self.evicted_ns))
            .max(self.log.damaged_receipt_ns());
        Page {
            items,
            next: next.filter(|_| remaining.is_some()),
            complete_since_ns: unread.map_or(0, |ns| ns.saturating_add(1)),
        }
    }

    /// Reads the story of the first part, if one of the parts matches.
    pub(super) fn read_story(&self, parts: &Parts, reader: &mut StoryReader<'_>) -> Option<Story> {
        let mut leading = None;
        for (at, part) in parts.0.iter().enumerate() {
            if !self.filter.story_outline_matches(&part.outline()) {
                continue;
            }
            if self.filter.reads_story_contents() {
                let Some(story) = reader.read(part) else { continue };
                if !self.filter.story_contents_match(&story) {
                    continue;
                }
                leading = Some(story).filter(|_| at == 0);
            }
            if leading.is_none() {
                leading = reader.read(&parts.0[0]);
            }
            break;
        }
        leading
    }
}

/// Adds to each story the stories that share members with it, and its parts.
fn link(found: Vec<(&Parts, Story)>, all: &[Parts]) -> Vec<LinkedStory> {
    let mut of_member: HashMap<u64, Vec<usize>, ahash::RandomState> = HashMap::default();
    for (at, (parts, _)) in found.iter().enumerate() {
        let members: HashSet<u64> = parts.0[0].entry.members.iter().copied().collect();
        members.into_iter().for_each(|m| of_member.entry(m).or_default().push(at));
    }
    let mut links: Vec<Vec<(u64, &Arc<Located>)>> = vec![Vec::new(); found.len()];
    for other in all.iter().map(|parts| &parts.0[0]).filter(|other| other.entry.is_linkable) {
        let mut shared: HashMap<usize, u64> = HashMap::new();
        for member in other.entry.members.iter().collect::<HashSet<_>>() {
            for at in of_member.get(member).into_iter().flatten() {
                *shared.entry(*at).or_default() += 1;
            }
        }
        for (at, shared) in shared {
            if !Arc::ptr_eq(&found[at].0.0[0], other) {
                links[at].push((shared, other));
            }
        }
    }
    let linked = found.into_iter().zip(links).map(|((parts, story), others)| {
        let others = others.into_iter().map(|(shared, other)| (other.as_link_target(), shared));
        LinkedStory::new(story, others, parts.to_parts())
    });
    linked.collect()
}

/// Reads stories; keeps the last frame, which often has the next one as well.
pub(super) struct StoryReader<'a> {
    log: &'a LogSnapshot,
    frame: Option<(FramePosition, Vec<u8>)>,
    /// Size of the stories that were read.
    bytes: usize,
}

impl<'a> StoryReader<'a> {
    fn new(log: &'a LogSnapshot) -> Self {
        Self { log, frame: None, bytes: 0 }
    }

    pub(super) fn read(&mut self, located: &Located) -> Option<Story> {
        let position = located.frame();
        if self.frame.as_ref().is_none_or(|(at, _)| *at != position) {
            let payload = self.log.payload(position, located.entry.receipt_ns);
            self.frame = payload.map(|payload| (position, payload));
        }
        let (_, payload) = self.frame.as_ref()?;
        let batch = Batch::parse(payload).ok()?;
        let mut stories = batch.items().filter_map(|item| match item {
            Item::Story(story) => Some(story),
            Item::Event(_) | Item::LogBlock(_) => None,
        });
        let story = stories.nth(located.entry.position as usize);
        self.bytes += story.map_or(0, <[u8]>::len);
        story.and_then(decode)
    }
}
