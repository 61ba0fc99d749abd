//! Queries for stories, the last updated first. Stories that several nodes have of one trace and
//! one rule are one story, with a part for each node.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::page::{Budget, Cursor, Page};
use super::query_filter::Filter;
use super::story_index::{Located, decode};
use crate::store::{FramePosition, LogSnapshot};
use tapio_core::clock;
use tapio_core::event::{LinkedStory, MAX_LINKS, Severity, Story, StoryPart, StoryState};
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

/// The stories of one trace and one rule.
struct SameTrace {
    /// Position of the one that was updated last, and of the others.
    first: usize,
    others: Vec<usize>,
    is_of_several_nodes: bool,
}

/// Joins the parts of stories. Keeps the order: the last updated first. Leaves out stories that
/// others replace. It looks at all stories that are listed, so nearly all of them cost no more than
/// a look-up.
pub(super) fn join_parts(all: &[Arc<Located>]) -> Vec<Parts> {
    let replacing = all.iter().filter(|story| !story.entry.replaces.is_empty());
    let replaced: HashSet<(&[u8], &str), ahash::RandomState> =
        replacing.map(|story| (&story.entry.replaces[..], &story.entry.node[..])).collect();
    let is_current =
        |story: &&Arc<Located>| !replaced.contains(&(&story.entry.id[..], &story.entry.node[..]));
    let stories: Vec<&Arc<Located>> = all.iter().filter(is_current).collect();
    let mut of_trace: HashMap<(&[u8], &str), SameTrace, ahash::RandomState> =
        HashMap::with_capacity_and_hasher(stories.len(), ahash::RandomState::new());
    for (at, story) in stories.iter().enumerate().filter(|(_, story)| !story.is_retracted()) {
        let new = SameTrace { first: at, others: Vec::new(), is_of_several_nodes: false };
        let same = of_trace.entry((&story.entry.trace_id, &story.entry.rule)).or_insert(new);
        if same.first != at {
            same.is_of_several_nodes |= stories[same.first].entry.node != story.entry.node;
            same.others.push(at);
        }
    }
    let joined = |(at, story): (usize, &&Arc<Located>)| {
        let same = of_trace.get(&(&story.entry.trace_id[..], &story.entry.rule[..]));
        match same.filter(|same| same.is_of_several_nodes && !story.is_retracted()) {
            None => Some(Parts(vec![Arc::clone(story)])),
            Some(same) => (same.first == at).then(|| {
                let parts = std::iter::once(&at).chain(&same.others);
                Parts::new(parts.map(|part| Arc::clone(stories[*part])).collect())
            }),
        }
    };
    stories.iter().enumerate().filter_map(joined).collect()
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

/// The best links of a story that were found so far.
#[derive(Default)]
struct BestLinks<'a>(Vec<(u64, &'a Arc<Located>)>);

impl<'a> BestLinks<'a> {
    /// Adds a story that shares so many members, if it is one of the best.
    fn add(&mut self, shared: u64, other: &'a Arc<Located>) {
        let order = |(shared, other): &(u64, &Arc<Located>)| {
            (Reverse(*shared), other.entry.first_ns, other.id())
        };
        let at = self.0.partition_point(|best| order(best) < order(&(shared, other)));
        if at < MAX_LINKS {
            self.0.truncate(MAX_LINKS - 1);
            self.0.insert(at, (shared, other));
        }
    }
}

/// Adds to each story the stories that share members with it, and its parts. Stories with a common
/// member are of overlapping times, which most of all stories aren't.
fn link(found: Vec<(&Parts, Story)>, all: &[Parts]) -> Vec<LinkedStory> {
    let mut of_member: HashMap<u64, Vec<usize>, ahash::RandomState> = HashMap::default();
    let (mut from_ns, mut to_ns) = (u64::MAX, 0);
    for (at, (parts, _)) in found.iter().enumerate() {
        let entry = &parts.0[0].entry;
        (from_ns, to_ns) = (from_ns.min(entry.first_ns), to_ns.max(entry.last_ns));
        entry.members.iter().for_each(|m| of_member.entry(*m).or_default().push(at));
    }
    let mut links: Vec<BestLinks<'_>> = found.iter().map(|_| BestLinks::default()).collect();
    let mut shared: Vec<(usize, u64)> = Vec::new();
    for other in all.iter().map(|parts| &parts.0[0]) {
        let entry = &other.entry;
        if !entry.is_linkable || entry.last_ns < from_ns || entry.first_ns > to_ns {
            continue;
        }
        shared.clear();
        for member in &entry.members {
            shared.extend(of_member.get(member).into_iter().flatten().map(|at| (*at, *member)));
        }
        shared.sort_unstable();
        shared.dedup();
        for same in shared.chunk_by(|(a, _), (b, _)| a == b) {
            let at = same[0].0;
            if !Arc::ptr_eq(&found[at].0.0[0], other) {
                links[at].add(same.len() as u64, other);
            }
        }
    }
    let linked = found.into_iter().zip(links).map(|((parts, story), BestLinks(others))| {
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
