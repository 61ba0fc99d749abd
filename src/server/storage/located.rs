//! A story in the index: a few hundred bytes of memory, since servers keep 100,000 of them.

use std::collections::HashSet;
use std::sync::Arc;

use super::page::Cursor;
use super::query_filter::StoryOutline;
use super::story_entity::EntityValues;
use super::summary::StoryEntry;
use crate::store::FramePosition;
use tapio_core::event::{LinkTarget, Severity, StoryPart, StoryState, TraceId};

/// The last revision of a story of one node. The story itself stays in the log.
pub(super) struct Located {
    /// Position in the order of updates.
    pub(super) update: u64,
    pub(super) segment: u64,
    /// Offset of its frame in the segment.
    pub(super) offset: u64,
    /// Its position among the stories of the batch.
    pub(super) position: u32,
    pub(super) revision: u32,
    pub(super) epoch: u64,
    pub(super) id: TraceId,
    pub(super) trace_id: TraceId,
    /// The id of the incident's first story; zero for that one itself.
    pub(super) incident: TraceId,
    /// The id of the story that it replaces; zero for none.
    pub(super) replaces: TraceId,
    pub(super) node: Text,
    pub(super) rule: Text,
    pub(super) pattern: Text,
    pub(super) name: Text,
    pub(super) members_total: u64,
    /// Kept members.
    pub(super) members_kept: u32,
    pub(super) severity: Severity,
    pub(super) state: StoryState,
    /// Whether other stories link to it.
    pub(super) is_linkable: bool,
    /// Hashes of the kept members' ids ([`id_hash`](super::summary::id_hash)), ascending, once
    /// each.
    pub(super) members: Box<[u64]>,
    /// The entities that it is about.
    pub(super) entities: EntityValues,
    /// The times of its first and its last member, and of its receipt, nanoseconds since the Unix
    /// epoch.
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    pub(super) receipt_ns: u64,
}

impl Located {
    pub(super) fn new(update: u64, segment: u64, entry: StoryEntry, texts: &mut Texts) -> Self {
        let mut members = entry.members;
        let members_kept = members.len() as u32;
        members.sort_unstable();
        members.dedup();
        Self {
            update,
            segment,
            offset: entry.offset,
            position: entry.position,
            revision: entry.revision,
            epoch: entry.epoch,
            id: id(&entry.id),
            trace_id: id(&entry.trace_id),
            incident: id(&entry.incident),
            replaces: id(&entry.replaces),
            node: texts.get(&entry.node),
            rule: texts.get(&entry.rule),
            pattern: texts.get(&entry.pattern),
            name: texts.get(&entry.name),
            members_total: entry.members_total,
            members_kept: members_kept.max(entry.members_kept),
            severity: Severity(entry.severity as u8),
            state: StoryState::from_number(entry.state).unwrap_or_default(),
            is_linkable: entry.is_linkable,
            members: members.into_boxed_slice(),
            entities: EntityValues(
                u128::from(entry.entities_high) << 64 | u128::from(entry.entities_low),
            ),
            first_ns: entry.first_ns,
            last_ns: entry.last_ns,
            receipt_ns: entry.receipt_ns,
        }
    }

    /// Its entry in the summary of its segment.
    pub(super) fn to_entry(&self) -> StoryEntry {
        let bytes = |id: TraceId| if id.is_some() { id.0.to_vec() } else { Vec::new() };
        StoryEntry {
            id: bytes(self.id),
            node: self.node.to_string(),
            epoch: self.epoch,
            revision: self.revision,
            offset: self.offset,
            position: self.position,
            pattern: self.pattern.to_string(),
            members: self.members.to_vec(),
            members_kept: self.members_kept,
            entities_low: self.entities.0 as u64,
            entities_high: (self.entities.0 >> 64) as u64,
            is_linkable: self.is_linkable,
            trace_id: bytes(self.trace_id),
            rule: self.rule.to_string(),
            state: self.state as u32,
            severity: u32::from(self.severity.0),
            members_total: self.members_total,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            receipt_ns: self.receipt_ns,
            name: self.name.to_string(),
            incident: bytes(self.incident),
            replaces: bytes(self.replaces),
        }
    }

    pub(super) fn frame(&self) -> FramePosition {
        FramePosition { segment: self.segment, offset: self.offset }
    }

    /// Its position in the log, by which stories are listed: the order of their last updates.
    pub(super) fn cursor(&self) -> Cursor {
        let &Self { segment, offset, position, .. } = self;
        Cursor { segment, offset, position }
    }

    pub(super) fn outline(&self) -> StoryOutline<'_> {
        StoryOutline {
            id: self.id,
            replaces: self.replaces,
            trace_id: self.trace_id,
            node: &self.node,
            pattern: &self.pattern,
            state: self.state,
            severity: self.severity.0,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
        }
    }

    /// The story as the target of a link.
    pub(super) fn as_link_target(&self) -> LinkTarget<'_> {
        LinkTarget {
            id: self.id,
            trace_id: self.trace_id,
            name: &self.name,
            members: self.members_kept as usize,
            first_ns: self.first_ns,
        }
    }

    pub(super) fn to_part(&self) -> StoryPart {
        StoryPart {
            node: self.node.to_string(),
            id: self.id,
            state: self.state,
            members_total: self.members_total,
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            severity: self.severity,
        }
    }

    pub(super) fn is_retracted(&self) -> bool {
        self.state == StoryState::Retracted
    }
}

fn id(bytes: &[u8]) -> TraceId {
    TraceId(bytes.first_chunk().copied().unwrap_or_default())
}

/// A text that many stories have: nodes, rules, titles.
pub(super) type Text = Arc<str>;

/// Each text once. Equal texts of one `Texts` are at one address.
#[derive(Default)]
pub(super) struct Texts {
    texts: HashSet<Text, ahash::RandomState>,
    /// The number of texts at which those without a story are looked for.
    purge_at: usize,
}

impl Texts {
    const PURGE_AT: usize = 1_000;

    pub(super) fn get(&mut self, text: &str) -> Text {
        if let Some(text) = self.texts.get(text) {
            return Arc::clone(text);
        }
        if self.texts.len() >= self.purge_at.max(Self::PURGE_AT) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.purge_at = self.texts.len() * 2;
        }
        let text = Text::from(text);
        self.texts.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_a_story_are_purged_and_equal_ones_are_one() {
        let mut texts = Texts::default();
        let kept: Vec<Text> = (0..10).map(|n| texts.get(&format!("kept {n}"))).collect();
        for n in 0..100_000 {
            texts.get(&n.to_string());
        }
        assert!(texts.texts.len() <= 2 * Texts::PURGE_AT, "{}", texts.texts.len());
        for (n, text) in kept.iter().enumerate() {
            assert!(Arc::ptr_eq(text, &texts.get(&format!("kept {n}"))));
        }
    }

    #[test]
    fn entry_of_a_story_is_read_as_it_was_written() {
        let entry = StoryEntry {
            id: vec![1; 16],
            node: "n".into(),
            epoch: 2,
            revision: 3,
            offset: 4,
            position: 5,
            pattern: "p".into(),
            members: vec![3, 9],
            members_kept: 3,
            entities_low: 12,
            entities_high: 13,
            is_linkable: true,
            trace_id: vec![6; 16],
            rule: "r".into(),
            state: StoryState::Closed as u32,
            severity: 17,
            members_total: 70,
            first_ns: 8,
            last_ns: 9,
            receipt_ns: 10,
            name: "t".into(),
            incident: vec![11; 16],
            replaces: vec![],
        };
        let located = Located::new(1, 2, entry.clone(), &mut Texts::default());
        assert_eq!(located.to_entry(), entry);
        let unsorted = StoryEntry { members: vec![9, 3, 9], members_kept: 0, ..entry.clone() };
        assert_eq!(Located::new(1, 2, unsorted, &mut Texts::default()).to_entry(), entry);
    }
}
