//! Where the last revision of each story is. The stories themselves stay in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message as _;

use super::located::{Located, Text, Texts};
use super::story_entity::EntityValues;
use super::summary::{StoryEntry, id_hash};
use crate::store::Frame;
use tapio_core::event::{Story, TraceId};
use tapio_wire::{BatchHead, proto, story_from_proto};

/// The entry of a story's revision, which is the frame's story number `position`; `None` for bytes
/// that are no story.
pub(super) fn entry(
    head: &BatchHead<'_>,
    bytes: &[u8],
    frame: &Frame<'_>,
    position: u32,
) -> Option<StoryEntry> {
    let story = decode(bytes)?;
    let EntityValues(entities) = EntityValues::of(&story);
    Some(StoryEntry {
        id: story.id.0.to_vec(),
        node: head.node.to_owned(),
        epoch: head.epoch,
        revision: story.revision,
        offset: frame.position.offset,
        position,
        members: story.members.iter().map(|m| id_hash(&m.id.0)).collect(),
        members_kept: story.members.len() as u32,
        entities_low: entities as u64,
        entities_high: (entities >> 64) as u64,
        is_linkable: story.is_linkable(),
        trace_id: story.trace_id.0.to_vec(),
        state: story.state as u32,
        severity: u32::from(story.severity.0),
        members_total: story.members_total,
        first_ns: story.first_ns,
        last_ns: story.last_ns,
        receipt_ns: frame.receipt_ns,
        pattern: story.pattern,
        rule: story.rule,
        name: story.name,
        incident: story.incident.map(|incident| incident.id.0.to_vec()).unwrap_or_default(),
        replaces: story.provisional.map(|id| id.0.to_vec()).unwrap_or_default(),
    })
}

pub(super) fn decode(bytes: &[u8]) -> Option<Story> {
    proto::Story::decode(bytes).ok().and_then(story_from_proto)
}

/// The stories of a rule that are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleUse {
    /// Their pattern.
    pub(crate) pattern: String,
    /// Their number.
    pub(crate) stories: u64,
    /// The latest time of one of their members, nanoseconds since the Unix epoch.
    pub(crate) last_ns: u64,
}

/// The id of a story, and the node it is from: two nodes may send the same story.
type Key = (TraceId, Text);

/// The last revision of each story. Bounded: the least recently updated story is evicted.
pub(super) struct StoryIndex {
    by_id: HashMap<Key, Arc<Located>, ahash::RandomState>,
    by_update: BTreeMap<u64, Arc<Located>>,
    texts: Texts,
    updates: u64,
    max_stories: usize,
    /// The latest receipt of an evicted story.
    evicted_ns: u64,
}

impl StoryIndex {
    pub(super) fn new(max_stories: usize) -> Self {
        Self {
            by_id: HashMap::default(),
            by_update: BTreeMap::new(),
            texts: Texts::default(),
            updates: 0,
            max_stories,
            evicted_ns: 0,
        }
    }

    /// Adds a revision of a story. A later start of a node's agent counts its revisions anew.
    pub(super) fn add(&mut self, segment: u64, entry: StoryEntry) {
        let located = Located::new(self.updates + 1, segment, entry, &mut self.texts);
        let key = (located.id, Text::clone(&located.node));
        if let Some(old) = self.by_id.get(&key) {
            let order = |located: &Located| (located.epoch, located.revision);
            if order(old) > order(&located) {
                return;
            }
            self.by_update.remove(&old.update);
        }
        self.updates += 1;
        let located = Arc::new(located);
        self.by_update.insert(self.updates, Arc::clone(&located));
        self.by_id.insert(key, located);
        self.evict();
    }

    /// The epoch of the last revision of a node's story.
    pub(super) fn epoch(&self, id: TraceId, node: &str) -> Option<u64> {
        self.by_id.get(&(id, Text::from(node))).map(|located| located.epoch)
    }

    /// Changes the number of stories that are kept.
    pub(super) fn set_max(&mut self, max_stories: usize) {
        self.max_stories = max_stories;
        self.evict();
    }

    fn evict(&mut self) {
        while self.by_id.len() > self.max_stories
            && let Some((_, oldest)) = self.by_update.pop_first()
        {
            self.by_id.remove(&(oldest.id, Text::clone(&oldest.node)));
            self.add_evicted(oldest.receipt_ns);
        }
    }

    /// Notes the receipt of an evicted story.
    pub(super) fn add_evicted(&mut self, receipt_ns: u64) {
        self.evicted_ns = self.evicted_ns.max(receipt_ns);
    }

    /// The latest receipt of an evicted story; 0 if none was evicted.
    pub(super) fn evicted_ns(&self) -> u64 {
        self.evicted_ns
    }

    /// The stories whose last revision is in a segment, in the order of their updates.
    pub(super) fn of_segment(&self, segment: u64) -> Vec<StoryEntry> {
        // Only the segment that is appended to is asked for, and it has the last updates.
        let mut entries: Vec<_> = self
            .newest_first_iter()
            .take_while(|located| located.segment >= segment)
            .map(|located| located.to_entry())
            .collect();
        entries.reverse();
        entries
    }

    fn newest_first_iter(&self) -> impl Iterator<Item = &Arc<Located>> {
        self.by_update.values().rev()
    }

    /// All stories, the last updated first. Cheap: ingest waits meanwhile.
    pub(super) fn newest_first(&self) -> Vec<Arc<Located>> {
        self.newest_first_iter().map(Arc::clone).collect()
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

    /// The rules of the stories, by name.
    pub(super) fn rules(&self) -> BTreeMap<String, RuleUse> {
        let mut rules: BTreeMap<String, RuleUse> = BTreeMap::new();
        for located in self.by_update.values().filter(|located| !located.is_retracted()) {
            let Located { rule, pattern, last_ns, .. } = &**located;
            if let Some(used) = rules.get_mut(&**rule) {
                used.stories += 1;
                used.last_ns = used.last_ns.max(*last_ns);
            } else {
                let used = RuleUse { pattern: pattern.to_string(), stories: 1, last_ns: *last_ns };
                rules.insert(rule.to_string(), used);
            }
        }
        rules
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
