//! The assessor's thread, and the rings that lead to it.
//!
//! Events don't pass here: what they belong to is in their records before. A story waits for room
//! towards the bridge; facts are left out and counted where there is none on the way in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};

use super::assessor::Assessor;
use super::draft::Note;
use super::pairs::Learned;
use super::story_counts::StoryCounts;
use tapio_core::clock;
use tapio_core::event::Story;
use tapio_core::ring::{Bell, RecordWriter, WriteError, attach, wait_until};

/// Notes in a ring.
const RING_NOTES: usize = 4_096;
/// Stories that wait for room towards the bridge; past it no note is taken.
const MAX_WAITING_STORIES: usize = 1_024;
/// How long to wait for room.
const NAP: Duration = Duration::from_millis(1);
/// A seat belt: everything that matters rings the bell.
const SLEEP: Duration = Duration::from_secs(1);
/// How often what was learned is published.
const PUBLISH_NS: u64 = 1_000_000_000;

/// A shard's way to the assessor.
pub struct NoteWriter {
    ring: Producer<Note>,
    bell: Arc<Bell>,
}

/// The assessor's end of it.
pub struct NoteReader(Consumer<Note>);

/// A ring of notes to whoever answers this bell.
#[must_use]
pub fn notes(bell: &Arc<Bell>) -> (NoteWriter, NoteReader) {
    let (producer, consumer) = RingBuffer::new(RING_NOTES);
    (NoteWriter { ring: producer, bell: Arc::clone(bell) }, NoteReader(consumer))
}

impl NoteWriter {
    /// Hands a note over, or gives it back where there is no room.
    pub(crate) fn send(&mut self, note: Note) -> Result<(), Note> {
        self.ring.push(note).map_err(|rtrb::PushError::Full(note)| note)
    }

    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Leaves, and tells the assessor so: it may sleep.
    pub(crate) fn leave(self) {
        let Self { ring, bell } = self;
        drop(ring);
        bell.ring();
    }
}

impl NoteReader {
    /// The next note, if there is one.
    pub fn take(&mut self) -> Option<Note> {
        self.0.pop().ok()
    }

    /// Whether nothing is there to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the writer is gone and everything it wrote was read.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // The writer may write and leave between two looks: is_abandoned first, then emptiness.
        self.0.is_abandoned() && self.0.is_empty()
    }
}

/// The assessor's counters and what it learned, for other threads.
#[derive(Default)]
pub struct DeskStats {
    values: [AtomicU64; 8],
    suggestions: Mutex<Vec<Learned>>,
    emitted: StoryCounts,
}

impl DeskStats {
    /// Names of the counters, in order.
    pub const NAMES: [&'static str; 8] =
        ["facts", "stories", "stories_oversize", "entities", "edges", "series", "pairs", "evicted"];

    /// The counters by name.
    pub fn get(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed, paired with the stores in `publish`: counters for people, no order is needed.
        Self::NAMES.into_iter().zip(self.values.iter().map(|v| v.load(Ordering::Relaxed)))
    }

    /// Stories emitted: pattern, severity at first emission, number.
    #[must_use]
    pub fn stories_emitted(&self) -> Vec<(String, &'static str, u64)> {
        self.emitted.get()
    }

    /// Pairs worth a rule, as of a second ago at most.
    #[must_use]
    pub fn suggestions(&self) -> Vec<Learned> {
        self.suggestions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What runs on the assessor's thread.
pub struct Desk {
    assessor: Assessor,
    inputs: Vec<NoteReader>,
    bell: Arc<Bell>,
    output: (RecordWriter, Arc<Bell>),
    waiting: std::collections::VecDeque<Story>,
    oversize: u64,
    stats: Arc<DeskStats>,
    published_ns: u64,
    /// Facts and stories taken when the counters were published last.
    published: u64,
}

impl Desk {
    /// A desk for these shards' notes. It ends when all their writers are gone and read out.
    #[must_use]
    pub fn new(
        assessor: Assessor,
        inputs: Vec<NoteReader>,
        bell: Arc<Bell>,
        output: (RecordWriter, Arc<Bell>),
    ) -> Self {
        Self {
            assessor,
            inputs,
            bell,
            output,
            waiting: std::collections::VecDeque::new(),
            oversize: 0,
            stats: Arc::default(),
            published_ns: 0,
            published: 0,
        }
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> Arc<DeskStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until the shards end.
    pub fn run(mut self) {
        attach(&self.bell);
        loop {
            let taken = self.round();
            self.send();
            self.publish(false);
            if taken > 0 {
                continue;
            }
            let finished = self.inputs.iter().all(NoteReader::is_finished);
            if finished && (self.waiting.is_empty() || self.output.0.is_abandoned()) {
                break;
            }
            if !self.waiting.is_empty() {
                std::thread::sleep(NAP);
                continue;
            }
            // A shard that left before the bell was set rang it in vain.
            wait_until(&self.bell, SLEEP, || {
                self.inputs.iter().all(NoteReader::is_finished)
                    || !self.inputs.iter().all(NoteReader::is_empty)
            });
        }
        self.publish(true);
        self.output.1.ring();
    }

    fn round(&mut self) -> usize {
        let mut taken = 0;
        for input in &mut self.inputs {
            let mut left = RING_NOTES;
            while left > 0 && self.waiting.len() < MAX_WAITING_STORIES {
                let Some(note) = input.take() else { break };
                self.waiting.extend(self.assessor.note(note));
                taken += 1;
                left -= 1;
            }
        }
        taken
    }

    /// Sends told stories on, as far as there is room.
    fn send(&mut self) {
        let mut sent = false;
        while let Some(story) = self.waiting.front_mut() {
            match self.output.0.write_story(story) {
                Ok(()) => self.stats.emitted.add(story),
                Err(WriteError::Full) => break,
                Err(WriteError::Oversize) if story.members.len() > 1 => {
                    // Its members are counted; the first ones tell most.
                    story.members.truncate(story.members.len() / 2);
                    continue;
                }
                Err(WriteError::Oversize) => self.oversize += 1,
            }
            self.waiting.pop_front();
            sent = true;
        }
        if sent {
            self.output.1.ring();
        }
    }

    fn publish(&mut self, now: bool) {
        let now_ns = clock::wall_ns();
        if !now && now_ns.saturating_sub(self.published_ns) < PUBLISH_NS {
            return;
        }
        self.published_ns = now_ns;
        let c = self.assessor.counts();
        if !now && c.facts + c.stories == self.published {
            return;
        }
        self.published = c.facts + c.stories;
        let values =
            [c.facts, c.stories, self.oversize, c.entities, c.edges, c.series, c.pairs, c.evicted];
        // Relaxed, paired with the loads in `get`: counters for people, no order is needed.
        self.stats.values.iter().zip(values).for_each(|(v, n)| v.store(n, Ordering::Relaxed));
        let suggestions = self.assessor.suggestions();
        *self.stats.suggestions.lock().unwrap_or_else(PoisonError::into_inner) = suggestions;
    }
}
