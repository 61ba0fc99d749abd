//! Summary of a segment, which is in its footer and read by a start. It is a protobuf message, so
//! that a later version can add to it.

use std::collections::{BTreeSet, HashSet};

use prost::Message;

use super::query_filter::{Filter, entity_text};
use super::segment_index;
use tapio_core::event::stable_hash;
use tapio_wire::{Batch, BatchHead, RawEvent};

/// The summary of a segment.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    /// The least and the greatest time of its events, nanoseconds since the Unix epoch; both 0 for
    /// none.
    #[prost(fixed64, tag = "1")]
    pub(super) first_event_ns: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) last_event_ns: u64,
    /// Bit n: events of severity n.
    #[prost(fixed32, tag = "3")]
    pub(super) severities: u32,
    #[prost(string, repeated, tag = "4")]
    pub(super) nodes: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(super) kinds: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(super) senders: Vec<SenderItems>,
    #[prost(message, repeated, tag = "7")]
    pub(super) stories: Vec<StoryEntry>,
    /// The latest receipt of a story that was evicted from the index, here or in an earlier
    /// segment, nanoseconds since the Unix epoch; 0 for none.
    #[prost(fixed64, tag = "8")]
    pub(super) stories_evicted_ns: u64,
}

/// The items of one agent process in a segment.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SenderItems {
    #[prost(string, tag = "1")]
    pub(super) node: String,
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    /// First, and one past the last, of each range of sequence numbers.
    #[prost(fixed64, repeated, tag = "3")]
    pub(super) ranges: Vec<u64>,
}

/// Where the last revision of a story in a segment is, and by what it is found.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoryEntry {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) node: String,
    #[prost(fixed64, tag = "3")]
    pub(super) epoch: u64,
    #[prost(uint32, tag = "4")]
    pub(super) revision: u32,
    /// Offset of its frame in the segment.
    #[prost(uint64, tag = "5")]
    pub(super) offset: u64,
    /// Its position among the stories of the batch.
    #[prost(uint32, tag = "6")]
    pub(super) position: u32,
    #[prost(string, tag = "7")]
    pub(super) pattern: String,
    /// Hashes of the kept members' ids ([`id_hash`]), by which stories are linked. Tag 8 had their
    /// first eight bytes, which all ids of one source share.
    #[prost(fixed64, repeated, tag = "21")]
    pub(super) members: Vec<u64>,
    /// Kept members.
    #[prost(uint32, tag = "22")]
    pub(super) members_kept: u32,
    /// The lower and the upper half of its `EntityValues`; 0 if they aren't known.
    #[prost(fixed64, tag = "23")]
    pub(super) entities_low: u64,
    #[prost(fixed64, tag = "24")]
    pub(super) entities_high: u64,
    /// Whether other stories link to it.
    #[prost(bool, tag = "9")]
    pub(super) is_linkable: bool,
    #[prost(bytes = "vec", tag = "10")]
    pub(super) trace_id: Vec<u8>,
    #[prost(string, tag = "11")]
    pub(super) rule: String,
    /// The number of its `StoryState`.
    #[prost(uint32, tag = "12")]
    pub(super) state: u32,
    #[prost(uint32, tag = "13")]
    pub(super) severity: u32,
    #[prost(uint64, tag = "14")]
    pub(super) members_total: u64,
    /// The times of its first and its last member, and of its receipt, nanoseconds since the Unix
    /// epoch.
    #[prost(fixed64, tag = "15")]
    pub(super) first_ns: u64,
    #[prost(fixed64, tag = "16")]
    pub(super) last_ns: u64,
    #[prost(fixed64, tag = "17")]
    pub(super) receipt_ns: u64,
    #[prost(string, tag = "18")]
    pub(super) name: String,
    /// The id of the incident's first story; empty for that one itself.
    #[prost(bytes = "vec", tag = "19")]
    pub(super) incident: Vec<u8>,
    /// The id of the story that it replaces; empty for none.
    #[prost(bytes = "vec", tag = "20")]
    pub(super) replaces: Vec<u8>,
}

/// The hash of an entity's key and value in a segment's index.
pub(super) fn entity_hash(key: &str, value: &str) -> u64 {
    first_eight(&stable_hash(&[key.as_bytes(), value.as_bytes()]))
}

/// A number for the id of an event or of a trace. It depends on all bytes: the ids of one source
/// begin with the same ones, and 64-bit trace ids with eight zeros.
pub(super) fn id_hash(id: &[u8]) -> u64 {
    first_eight(&stable_hash(&[id]))
}

/// The first eight bytes of an id as a number; ids of other lengths give 0.
pub(super) fn first_eight(id: &[u8]) -> u64 {
    id.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Summary {
    /// Whether the segment may have events that match.
    pub(super) fn may_match(&self, filter: &Filter) -> bool {
        // Every segment has a node. Without one, this is a summary that can't be decoded.
        self.nodes.is_empty()
            || (filter.node.is_empty() || self.nodes.contains(&filter.node))
                && filter.times_match(self.first_event_ns, self.last_event_ns)
                && (filter.severity.0 == 0 || self.severities >> filter.severity.0 > 0)
                && (filter.kind.is_empty() || self.kinds.iter().any(|k| filter.kind_matches(k)))
    }
}

/// Collects what a segment has while it is appended to.
#[derive(Default)]
pub(super) struct SummaryBuilder {
    summary: Summary,
    kinds: BTreeSet<String>,
    entities: HashSet<u64, ahash::RandomState>,
    traces: BTreeSet<(u64, u64)>,
}

impl SummaryBuilder {
    /// Adds the batch of the frame at `offset`.
    pub(super) fn add(&mut self, batch: &Batch<'_>, events: &[RawEvent<'_>], offset: u64) {
        let head = &batch.head;
        if !self.summary.nodes.iter().any(|node| node == head.node) {
            self.summary.nodes.push(head.node.to_owned());
        }
        self.add_items(head);
        let mut kinds = HashSet::with_hasher(ahash::RandomState::new());
        for event in events {
            self.add_event(*event, batch, &mut kinds, offset);
        }
        for kind in kinds.iter().filter_map(|kind| batch.names().get(*kind)) {
            if !self.kinds.contains(*kind) {
                self.kinds.insert((*kind).to_owned());
            }
        }
    }

    fn add_event(
        &mut self,
        event: RawEvent<'_>,
        batch: &Batch<'_>,
        kinds: &mut HashSet<usize, ahash::RandomState>,
        offset: u64,
    ) {
        let keys = event.keys(|key, value| {
            let Some(key) = batch.names().get(key) else { return };
            if let Some(text) = entity_text(value) {
                self.entities.insert(entity_hash(key, &text));
            }
        });
        // An event that can't be decoded isn't found by any of its parts.
        let Some(keys) = keys else { return };
        let summary = &mut self.summary;
        if summary.severities == 0 {
            summary.first_event_ns = keys.time_ns;
        }
        summary.first_event_ns = summary.first_event_ns.min(keys.time_ns);
        summary.last_event_ns = summary.last_event_ns.max(keys.time_ns);
        summary.severities |= 1 << (keys.severity & 31);
        kinds.insert(keys.kind);
        if !keys.trace.is_empty() {
            self.traces.insert((id_hash(keys.trace), offset));
        }
    }

    /// Adds the batch's range to those of its sender.
    fn add_items(&mut self, head: &BatchHead<'_>) {
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        let senders = &mut self.summary.senders;
        let at = senders.iter().position(|s| s.epoch == head.epoch && s.node == head.node);
        let index = at.unwrap_or_else(|| {
            let node = head.node.to_owned();
            senders.push(SenderItems { node, epoch: head.epoch, ranges: Vec::new() });
            senders.len() - 1
        });
        let ranges = &mut senders[index].ranges;
        match ranges.last_mut() {
            Some(last) if *last == head.first_sequence => *last = end,
            _ => ranges.extend([head.first_sequence, end]),
        }
    }

    /// The items so far.
    pub(super) fn senders(&self) -> &[SenderItems] {
        &self.summary.senders
    }

    /// Whether an entity with this hash ([`entity_hash`]) was added.
    pub(super) fn has_entity(&self, hash: u64) -> bool {
        self.entities.contains(&hash)
    }

    /// Offsets of the frames that have events of a trace, ascending.
    pub(super) fn frames_of(&self, trace: u64) -> Vec<u64> {
        self.traces.range((trace, 0)..=(trace, u64::MAX)).map(|(_, offset)| *offset).collect()
    }

    /// The summary and the bytes of the index ([`segment_index`]) of what was added.
    pub(super) fn finish(self, stories: Vec<StoryEntry>) -> (Summary, Vec<u8>) {
        let Self { mut summary, kinds, entities, traces } = self;
        summary.kinds = kinds.into_iter().collect();
        summary.stories = stories;
        (summary, segment_index::encode(&entities, &traces))
    }
}
