//! The server's index of its log, in memory: by it a start knows the log without reading it, and a
//! query knows which segments to read.

use std::collections::BTreeMap;

use prost::Message as _;

use super::frames::Frames;
use super::query_filter::Filter;
use super::story_index::{self, StoryIndex};
use super::summary::{SenderItems, Summary, SummaryBuilder};
use crate::store::{Frame, SealedIndex, SegmentIndex};
use tapio_wire::{Batch, Item, SequenceTracker};

/// The sequence numbers, stories and summaries of a log of batches.
pub(super) struct BatchIndex {
    pub(super) sequences: SequenceTracker,
    pub(super) stories: StoryIndex,
    /// Summaries of the sealed segments, without their stories.
    sealed: BTreeMap<u64, Summary>,
    /// The segment that is appended to.
    open: Option<(u64, SummaryBuilder)>,
}

impl BatchIndex {
    pub(super) fn new(stories_kept: usize) -> Self {
        Self {
            sequences: SequenceTracker::default(),
            stories: StoryIndex::new(stories_kept),
            sealed: BTreeMap::new(),
            open: None,
        }
    }

    /// The segments that may have matching events, oldest first, and which of their frames. Others
    /// have none.
    pub(super) fn select(&self, filter: &Filter) -> Vec<(u64, Frames)> {
        let matching = self.sealed.iter().filter(|(_, summary)| summary.may_match(filter));
        let sealed = matching.map(|(segment, _)| (*segment, Frames::InIndex));
        let open = self.open.as_ref().map(|(segment, open)| {
            let frames =
                Frames::select(filter, |hash| open.has_entity(hash), |t| Some(open.frames_of(t)));
            (*segment, frames)
        });
        sealed.chain(open).collect()
    }

    /// Adds the items of a segment, or removes them.
    fn count(&mut self, senders: &[SenderItems], is_removed: bool) {
        for sender in senders {
            let sequences = self.sequences.sender(&sender.node, sender.epoch);
            for range in sender.ranges.chunks_exact(2) {
                if is_removed {
                    sequences.remove(range[0], range[1]);
                } else {
                    sequences.insert(range[0], range[1]);
                }
            }
        }
    }
}

impl SegmentIndex for BatchIndex {
    fn frame(&mut self, frame: &Frame<'_>) {
        let (segment, offset) = (frame.position.segment, frame.position.offset);
        let (mut events, mut stories) = (Vec::new(), Vec::new());
        let parsed = Batch::parse_with(frame.payload, |item| match item {
            Item::Event(event) => events.push(event),
            Item::Story(story) => stories.push(story),
            // They are events in what is stored.
            Item::LogBlock(_) => {}
        });
        // Only valid batches are stored, and the checksum has shown that this one is unchanged.
        let Ok(batch) = parsed else { return };
        let head = &batch.head;
        let (_, open) = self.open.get_or_insert_with(|| (segment, SummaryBuilder::default()));
        open.add(&batch, &events, offset);
        let end = head.first_sequence.saturating_add(u64::from(head.count));
        self.sequences.sender(head.node, head.epoch).insert(head.first_sequence, end);
        for (position, story) in (0..).zip(stories) {
            if let Some(entry) = story_index::entry(head, story, frame, position) {
                self.stories.add(segment, entry);
            }
        }
    }

    fn seal(&mut self) -> SealedIndex {
        let Some((segment, open)) = self.open.take() else {
            return SealedIndex::default();
        };
        let (mut summary, index) = open.finish(self.stories.of_segment(segment));
        summary.stories_evicted_ns = self.stories.evicted_ns();
        let sealed = SealedIndex { summary: summary.encode_to_vec(), index };
        summary.stories.clear();
        self.sealed.insert(segment, summary);
        sealed
    }

    fn discard(&mut self, segment: u64) {
        if let Some((_, open)) = self.open.take_if(|(open, _)| *open >= segment) {
            self.count(open.senders(), true);
        }
        for summary in self.sealed.split_off(&segment).into_values() {
            self.count(&summary.senders, true);
        }
        self.stories.remove_segments(|s| s >= segment);
    }

    fn sealed(&mut self, segment: u64, summary: &[u8]) {
        // A later version may have written it; queries read the segment then.
        let mut summary = Summary::decode(summary).unwrap_or_default();
        self.count(&summary.senders, false);
        for story in std::mem::take(&mut summary.stories) {
            self.stories.add(segment, story);
        }
        self.stories.add_evicted(summary.stories_evicted_ns);
        self.sealed.insert(segment, summary);
    }

    fn retired(&mut self, segment: u64) {
        self.sealed.remove(&segment);
        self.stories.remove_segments(|s| s == segment);
    }
}
