//! The last revision of each story.

use std::collections::{BTreeMap, HashMap};

use tapio_core::event::{LinkIndex, LinkedStory, Story, TraceId};
use tapio_wire::{proto, story_from_proto};

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
    fn matches(&self, node: &str, story: &Story) -> bool {
        (self.pattern.is_empty() || story.pattern == self.pattern)
            && (self.node.is_empty() || node == self.node)
            && (self.id_prefix.is_empty() || story.id.to_string().starts_with(&self.id_prefix))
    }
}

struct Entry {
    /// Position in the order of updates.
    update: u64,
    node: String,
    epoch: u64,
    story: Story,
}

/// Stories by id and by last update. Bounded: the least recently updated story is evicted.
#[derive(Default)]
pub(super) struct StoryIndex {
    by_id: HashMap<[u8; 16], Entry, ahash::RandomState>,
    by_update: BTreeMap<u64, [u8; 16]>,
    links: LinkIndex,
    updates: u64,
    max_stories: usize,
}

impl StoryIndex {
    pub(super) fn new(max_stories: usize) -> Self {
        Self { max_stories, ..Self::default() }
    }

    /// Adds a revision of a story that a start (`epoch`) of a node's agent sent: a later start
    /// counts its revisions anew. Ignores bytes that are no story.
    pub(super) fn add(&mut self, node: &str, epoch: u64, bytes: &[u8]) {
        let story = <proto::Story as prost::Message>::decode(bytes).ok().and_then(story_from_proto);
        let Some(story) = story else {
            return;
        };
        let id = story.id.0;
        if let Some(old) = self.by_id.get(&id) {
            let is_same_node = old.node == node;
            if is_same_node && (old.epoch, old.story.revision) > (epoch, story.revision) {
                return;
            }
            self.by_update.remove(&old.update);
            self.links.remove(&old.story);
        }
        self.updates += 1;
        let update = self.updates;
        let node = node.to_owned();
        self.by_update.insert(update, id);
        self.links.insert(&story);
        self.by_id.insert(id, Entry { update, node, epoch, story });
        if self.by_id.len() > self.max_stories
            && let Some((_, oldest)) = self.by_update.pop_first()
            && let Some(evicted) = self.by_id.remove(&oldest)
        {
            self.links.remove(&evicted.story);
        }
    }

    /// At most `limit` stories that match, with their links, the last updated first.
    pub(super) fn list(&self, limit: usize, filter: &StoryFilter) -> Vec<LinkedStory> {
        self.by_update
            .values()
            .rev()
            .filter_map(|id| self.by_id.get(id))
            .filter(|e| filter.matches(&e.node, &e.story))
            .take(limit)
            .map(|e| self.linked(e))
            .collect()
    }

    pub(super) fn get(&self, id: [u8; 16]) -> Option<LinkedStory> {
        self.by_id.get(&id).map(|e| self.linked(e))
    }

    fn linked(&self, entry: &Entry) -> LinkedStory {
        let find = |id: TraceId| self.by_id.get(&id.0).map(|e| &e.story);
        let links = self.links.links_of(&entry.story, find);
        LinkedStory { story: entry.story.clone(), links }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
