//! The last revision of each story.

use std::collections::{BTreeMap, HashMap};

use tapio_core::event::{LinkIndex, LinkedStory, Story, TraceId};
use tapio_wire::{proto, story_from_proto};

/// Which stories are wanted; an empty text matches any.
#[derive(Clone, Debug, Default)]
pub struct StoryFilter {
    /// What kind of story.
    pub pattern: String,
    /// Whose.
    pub node: String,
    /// The id's first hexadecimal digits.
    pub id_prefix: String,
}

struct Entry {
    turn: u64,
    node: String,
    epoch: u64,
    story: Story,
}

/// Stories by id and by when they were told last. Bounded: the one told longest ago goes first.
#[derive(Default)]
pub(super) struct StoryIndex {
    by_id: HashMap<[u8; 16], Entry, ahash::RandomState>,
    by_turn: BTreeMap<u64, [u8; 16]>,
    links: LinkIndex,
    turn: u64,
    most: usize,
}

impl StoryIndex {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Takes in a story as it came from a start (`epoch`) of a node's agent: a later start counts its
    /// revisions anew. Returns whether it could be understood.
    pub(super) fn add(&mut self, node: &str, epoch: u64, bytes: &[u8]) -> bool {
        let story = <proto::Story as prost::Message>::decode(bytes).ok().and_then(story_from_proto);
        let Some(story) = story else {
            return false;
        };
        let id = story.id.0;
        if let Some(old) = self.by_id.get(&id) {
            let same_node = old.node == node;
            if same_node && (old.epoch, old.story.revision) > (epoch, story.revision) {
                return true;
            }
            self.by_turn.remove(&old.turn);
            self.links.remove(&old.story);
        }
        self.turn += 1;
        let turn = self.turn;
        let node = node.to_owned();
        self.by_turn.insert(turn, id);
        self.links.insert(&story);
        self.by_id.insert(id, Entry { turn, node, epoch, story });
        if self.by_id.len() > self.most
            && let Some((_, oldest)) = self.by_turn.pop_first()
            && let Some(gone) = self.by_id.remove(&oldest)
        {
            self.links.remove(&gone.story);
        }
        true
    }

    /// Stories with their links, told last first, that `wanted` accepts by node and story.
    pub(super) fn list(
        &self,
        limit: usize,
        wanted: impl Fn(&str, &Story) -> bool,
    ) -> Vec<LinkedStory> {
        self.by_turn
            .values()
            .rev()
            .filter_map(|id| self.by_id.get(id))
            .filter(|e| wanted(&e.node, &e.story))
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
