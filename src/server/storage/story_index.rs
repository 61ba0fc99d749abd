//! Where the last revision of each story is. The stories themselves stay in the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use super::summary::{StoryEntry, first_eight};
use crate::store::{FramePosition, LogSnapshot};
use tapio_core::event::{LinkedStory, MAX_LINKS, Story, TraceId};
use tapio_wire::{Batch, Item, proto, story_from_proto};

/// Selects stories; an empty text matches any.
#[derive(Clone, Debug, Default)]
pub struct StoryFilter {
    /// The story's pattern.
    pub pattern: String,
    /// The node that sent it.
    pub node: String,
    /// The first hexadecimal digits of its id.
    pub id_prefix: String,
}

impl StoryFilter {
    fn matches(&self, entry: &StoryEntry) -> bool {
        (self.pattern.is_empty() || entry.pattern == self.pattern)
            && (self.node.is_empty() || entry.node == self.node)
            && (self.id_prefix.is_empty() || {
                let id = TraceId(id_of(entry));
                id.to_string().starts_with(&self.id_prefix)
            })
    }
}

fn id_of(entry: &StoryEntry) -> [u8; 16] {
    entry.id.first_chunk().copied().unwrap_or_default()
}

/// The entry of a story's revision in the frame at `offset`; `None` for bytes that are no story.
pub(super) fn entry(
    node: &str,
    epoch: u64,
    bytes: &[u8],
    offset: u64,
    position: u32,
) -> Option<StoryEntry> {
    let story = decode(bytes)?;
    Some(StoryEntry {
        id: story.id.0.to_vec(),
        node: node.to_owned(),
        epoch,
        revision: story.revision,
        offset,
        position,
        members: story.members.iter().map(|m| first_eight(&m.id.0)).collect(),
        is_linkable: story.is_linkable(),
        pattern: story.pattern,
    })
}

fn decode(bytes: &[u8]) -> Option<Story> {
    <proto::Story as prost::Message>::decode(bytes).ok().and_then(story_from_proto)
}

#[derive(Clone)]
struct Located {
    /// Position in the order of updates.
    update: u64,
    segment: u64,
    entry: StoryEntry,
}

impl Located {
    fn position(&self) -> FramePosition {
        FramePosition { segment: self.segment, offset: self.entry.offset }
    }
}

/// The last revision of each story. Bounded: the least recently updated story is evicted.
pub(super) struct StoryIndex {
    by_id: HashMap<[u8; 16], Located, ahash::RandomState>,
    by_update: BTreeMap<u64, [u8; 16]>,
    updates: u64,
    max_stories: usize,
}

impl StoryIndex {
    pub(super) fn new(max_stories: usize) -> Self {
        Self { by_id: HashMap::default(), by_update: BTreeMap::new(), updates: 0, max_stories }
    }

    /// Adds a revision of a story. A later start of a node's agent counts its revisions anew.
    pub(super) fn add(&mut self, segment: u64, entry: StoryEntry) {
        let id = id_of(&entry);
        if let Some(old) = self.by_id.get(&id) {
            let is_same_node = old.entry.node == entry.node;
            let order = |e: &StoryEntry| (e.epoch, e.revision);
            if is_same_node && order(&old.entry) > order(&entry) {
                return;
            }
            self.by_update.remove(&old.update);
        }
        self.updates += 1;
        self.by_update.insert(self.updates, id);
        self.by_id.insert(id, Located { update: self.updates, segment, entry });
        if self.by_id.len() > self.max_stories
            && let Some((_, oldest)) = self.by_update.pop_first()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// The stories whose last revision is in a segment, in the order of their updates.
    pub(super) fn of_segment(&self, segment: u64) -> Vec<StoryEntry> {
        let located = self.by_update.values().rev().filter_map(|id| self.by_id.get(id));
        // Only the segment that is appended to is asked for, and it has the last updates.
        let mut entries: Vec<_> = located
            .take_while(|located| located.segment >= segment)
            .map(|located| located.entry.clone())
            .collect();
        entries.reverse();
        entries
    }

    /// Removes the stories whose last revision is in one of these segments.
    pub(super) fn remove_segments(&mut self, is_removed: impl Fn(u64) -> bool) {
        let by_update = &mut self.by_update;
        self.by_id.retain(|_, located| {
            let is_kept = !is_removed(located.segment);
            if !is_kept {
                by_update.remove(&located.update);
            }
            is_kept
        });
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Selects at most `limit` stories that match, the last updated first, to be read from `log`.
    pub(super) fn select(
        &self,
        limit: usize,
        filter: &StoryFilter,
        log: LogSnapshot,
    ) -> StorySelection {
        let selected = self
            .by_update
            .values()
            .rev()
            .filter_map(|id| self.by_id.get(id))
            .filter(|located| filter.matches(&located.entry))
            .take(limit);
        self.with_links(selected.cloned().collect(), log)
    }

    /// Selects one story.
    pub(super) fn get(&self, id: [u8; 16], log: LogSnapshot) -> StorySelection {
        self.with_links(self.by_id.get(&id).into_iter().cloned().collect(), log)
    }

    /// Finds the stories that share members with the selected ones.
    fn with_links(&self, selected: Vec<Located>, log: LogSnapshot) -> StorySelection {
        let mut of_member: HashMap<u64, Vec<usize>, ahash::RandomState> = HashMap::default();
        for (at, located) in selected.iter().enumerate() {
            let members: HashSet<u64> = located.entry.members.iter().copied().collect();
            members.into_iter().for_each(|m| of_member.entry(m).or_default().push(at));
        }
        let mut links: Vec<Vec<(u64, Located)>> = vec![Vec::new(); selected.len()];
        for other in self.by_id.values().filter(|other| other.entry.is_linkable) {
            let mut shared: HashMap<usize, u64> = HashMap::new();
            for member in other.entry.members.iter().collect::<HashSet<_>>() {
                for at in of_member.get(member).into_iter().flatten() {
                    *shared.entry(*at).or_default() += 1;
                }
            }
            for (at, shared) in shared {
                if selected[at].entry.id != other.entry.id {
                    links[at].push((shared, other.clone()));
                }
            }
        }
        for links in &mut links {
            links.sort_by_key(|(shared, other)| (std::cmp::Reverse(*shared), other.update));
            links.truncate(MAX_LINKS);
        }
        StorySelection { log, stories: selected.into_iter().zip(links).collect() }
    }
}

/// Stories to be read from the log, each with those that share members with it.
pub struct StorySelection {
    log: LogSnapshot,
    stories: Vec<(Located, Vec<(u64, Located)>)>,
}

impl StorySelection {
    /// Reads the stories. Skips those whose segment was removed since.
    ///
    /// # Errors
    /// When a segment can't be read.
    pub fn read(&self) -> io::Result<Vec<LinkedStory>> {
        let mut reader = StoryReader { log: &self.log, frame: None };
        let mut found = Vec::with_capacity(self.stories.len());
        for (located, others) in &self.stories {
            let Some(story) = reader.read(located)? else { continue };
            let mut read = Vec::with_capacity(others.len());
            for (shared, other) in others {
                read.extend(reader.read(other)?.map(|other| (other, *shared)));
            }
            found.push(LinkedStory::new(story, read));
        }
        Ok(found)
    }
}

/// Reads stories; keeps the last frame, which often has the next one as well.
struct StoryReader<'a> {
    log: &'a LogSnapshot,
    frame: Option<(FramePosition, Vec<u8>)>,
}

impl StoryReader<'_> {
    fn read(&mut self, located: &Located) -> io::Result<Option<Story>> {
        let position = located.position();
        if self.frame.as_ref().is_none_or(|(at, _)| *at != position) {
            self.frame = self.log.payload(position)?.map(|payload| (position, payload));
        }
        let Some((_, payload)) = &self.frame else { return Ok(None) };
        let Ok(batch) = Batch::parse(payload) else { return Ok(None) };
        let mut stories = batch.items().filter_map(|item| match item {
            Item::Story(story) => Some(story),
            Item::Event(_) => None,
        });
        Ok(stories.nth(located.entry.position as usize).and_then(decode))
    }
}
