//! Queries for stories, the last updated first. Stories that several nodes have of one trace and
//! one rule are one story, with a part for each node.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::located::{Located, Text};
use super::page::{Budget, Cursor, Page};
use super::query_filter::Filter;
use super::story_index::decode;
use crate::store::{FramePosition, LogSnapshot};
use tapio_core::clock;
use tapio_core::event::{LinkedStory, MAX_LINKS, Story, TraceId};
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
pub(super) struct Parts<'a> {
    pub(super) first: &'a Located,
    others: Vec<&'a Located>,
}

impl<'a> Parts<'a> {
    /// `None` for none.
    fn new(mut parts: Vec<&'a Located>) -> Option<Self> {
        parts.sort_by(|a, b| {
            let order = |p: &'a Located| (p.first_ns, p.id, &*p.node);
            order(a).cmp(&order(b))
        });
        let mut parts = parts.into_iter();
        Some(Self { first: parts.next()?, others: parts.collect() })
    }

    fn iter(&self) -> impl Iterator<Item = &'a Located> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

impl Listed for Parts<'_> {
    /// That of the part that was updated last.
    fn cursor(&self) -> Option<Cursor> {
        self.iter().map(Located::cursor).max()
    }

    fn receipt_ns(&self) -> u64 {
        self.iter().map(|part| part.receipt_ns).max().unwrap_or(0)
    }
}

/// A text by its address: equal texts of stories are at one ([`Text`]).
fn address(text: &Text) -> *const u8 {
    text.as_ptr()
}

/// Joins the parts of stories. Keeps the order: the last updated first. Leaves out stories that
/// others replace. It looks at all stories that are listed, so nearly all of them cost no more than
/// a look-up.
pub(super) fn join_parts(all: &[Arc<Located>]) -> Vec<Parts<'_>> {
    let replacing = all.iter().filter(|story| story.replaces.is_some());
    let replaced: HashSet<(TraceId, *const u8), ahash::RandomState> =
        replacing.map(|story| (story.replaces, address(&story.node))).collect();
    let is_current = |story: &&Located| {
        replaced.is_empty() || !replaced.contains(&(story.id, address(&story.node)))
    };
    let stories: Vec<&Located> = all.iter().map(|story| &**story).filter(is_current).collect();
    let mut several = of_several_nodes(&stories);
    if several.is_empty() {
        return stories.into_iter().map(|first| Parts { first, others: Vec::new() }).collect();
    }
    for story in &stories {
        if let Some(parts) = several.get_mut(&trace_and_rule(story)).filter(|_| has_parts(story)) {
            parts.push(story);
        }
    }
    let joined = stories.into_iter().filter_map(|story| {
        match several.get_mut(&trace_and_rule(story)).filter(|_| has_parts(story)) {
            None => Some(Parts { first: story, others: Vec::new() }),
            // The first one takes the others with it.
            Some(parts) => Parts::new(std::mem::take(parts)),
        }
    });
    joined.collect()
}

/// Those traces and rules of which several nodes have stories.
fn of_several_nodes<'a>(stories: &[&'a Located]) -> HashMap<TraceAndRule, Vec<&'a Located>> {
    let mut nodes: HashMap<TraceAndRule, *const u8, ahash::RandomState> =
        HashMap::with_capacity_and_hasher(stories.len(), ahash::RandomState::new());
    let mut several = HashMap::new();
    for story in stories.iter().filter(|story| has_parts(story)) {
        let node = address(&story.node);
        let of = trace_and_rule(story);
        if *nodes.entry(of).or_insert(node) != node {
            several.insert(of, Vec::new());
        }
    }
    several
}

/// A trace and the address of a rule's name.
type TraceAndRule = (TraceId, *const u8);

fn trace_and_rule(story: &Located) -> TraceAndRule {
    (story.trace_id, address(&story.rule))
}

/// Whether the story can have parts on other nodes.
fn has_parts(story: &Located) -> bool {
    !story.is_retracted()
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
    pub(super) fn read_story(
        &self,
        parts: &Parts<'_>,
        reader: &mut StoryReader<'_>,
    ) -> Option<Story> {
        let mut leading = None;
        for (at, part) in parts.iter().enumerate() {
            let is_about = |(_, value): (&str, &str)| part.entities.may_have(value);
            if !self.filter.story_outline_matches(&part.outline())
                || !self.filter.entities().all(is_about)
            {
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
                leading = reader.read(parts.first);
            }
            break;
        }
        leading
    }
}

/// The best links of a story that were found so far.
#[derive(Default)]
struct BestLinks<'a>(Vec<(u64, &'a Located)>);

impl<'a> BestLinks<'a> {
    /// Adds a story that shares so many members, if it is one of the best.
    fn add(&mut self, shared: u64, other: &'a Located) {
        let order =
            |(shared, other): &(u64, &Located)| (Reverse(*shared), other.first_ns, other.id);
        let at = self.0.partition_point(|best| order(best) < order(&(shared, other)));
        if at < MAX_LINKS {
            self.0.truncate(MAX_LINKS - 1);
            self.0.insert(at, (shared, other));
        }
    }
}

/// Adds to each story the stories that share members with it, and its parts. Stories with a common
/// member are of overlapping times, which most of all stories aren't.
fn link(found: Vec<(&Parts<'_>, Story)>, all: &[Parts<'_>]) -> Vec<LinkedStory> {
    let mut of_member: HashMap<u64, Vec<usize>, ahash::RandomState> = HashMap::default();
    let (mut from_ns, mut to_ns) = (u64::MAX, 0);
    for (at, (parts, _)) in found.iter().enumerate() {
        let Located { first_ns, last_ns, ref members, .. } = *parts.first;
        (from_ns, to_ns) = (from_ns.min(first_ns), to_ns.max(last_ns));
        members.iter().for_each(|member| of_member.entry(*member).or_default().push(at));
    }
    let mut links: Vec<BestLinks<'_>> = found.iter().map(|_| BestLinks::default()).collect();
    // The members that one of all stories shares with each of those that were found, and which of
    // them share any.
    let (mut shared, mut sharing) = (vec![0; found.len()], Vec::new());
    for other in all.iter().map(|parts| parts.first) {
        if !other.is_linkable || other.last_ns < from_ns || other.first_ns > to_ns {
            continue;
        }
        for at in other.members.iter().filter_map(|member| of_member.get(member)).flatten() {
            if shared[*at] == 0 {
                sharing.push(*at);
            }
            shared[*at] += 1;
        }
        for at in sharing.drain(..) {
            let members = std::mem::take(&mut shared[at]);
            if !std::ptr::eq(found[at].0.first, other) {
                links[at].add(members, other);
            }
        }
    }
    let linked = found.into_iter().zip(links).map(|((parts, story), BestLinks(others))| {
        let others = others.into_iter().map(|(shared, other)| (other.as_link_target(), shared));
        LinkedStory::new(story, others, parts.iter().map(Located::to_part).collect())
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
            let payload = self.log.payload(position, located.receipt_ns);
            self.frame = payload.map(|payload| (position, payload));
        }
        let (_, payload) = self.frame.as_ref()?;
        let batch = Batch::parse(payload).ok()?;
        let mut stories = batch.items().filter_map(|item| match item {
            Item::Story(story) => Some(story),
            Item::Event(_) | Item::LogBlock(_) => None,
        });
        let story = stories.nth(located.position as usize);
        self.bytes += story.map_or(0, <[u8]>::len);
        story.and_then(decode)
    }
}
