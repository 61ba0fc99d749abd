//! The assessor's thread, and the rings that lead to it.
//!
//! Events don't pass through it: their records already have their memberships. A story waits for
//! room in the ring to the bridge. Facts are dropped and counted when the ring to the assessor is
//! full.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};

use super::assessor::{Assessor, AssessorCounts};
use super::bounds::Bounds;
use super::message::EvidenceMessage;
use super::pairs::LearnedPair;
use super::story_counts::StoryCounts;
use super::story_writer::{Written, write_story};
use super::weights::LiveWeights;
use crate::guard::{guarded, report_instead_of_printing};
use crate::sampling::Sampling;
use tapio_core::clock;
use tapio_core::counters::Reading;
use tapio_core::event::Story;
use tapio_core::memory::{MemoryLevel, MemoryPressure};
use tapio_core::ring::{Bell, RecordWriter, attach, wait_until};

/// Messages in a ring.
const RING_MESSAGES: usize = 4_096;
/// Stories that wait for room in the ring to the bridge. At this number no message is taken.
const MAX_WAITING_STORIES: usize = 1_024;
/// Pause before the next attempt to write a waiting story.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Maximum sleep. A safety net only: every change that needs the thread rings the bell.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Interval at which time advances.
const ADVANCE_INTERVAL_NS: u64 = 1_000_000_000;
/// Interval at which what services usually do is kept: ten minutes.
const SAVE_INTERVAL_NS: u64 = 600_000_000_000;
/// Interval between updates of the statistics.
const PUBLISH_INTERVAL_NS: u64 = 1_000_000_000;

/// A shard's end of the ring to the assessor.
pub struct EvidenceWriter {
    ring: Producer<EvidenceMessage>,
    bell: Arc<Bell>,
}

/// The assessor's end of the ring.
pub struct EvidenceReader(Consumer<EvidenceMessage>);

/// Creates a ring of messages to the thread that `bell` wakes.
#[must_use]
pub fn evidence_ring(bell: &Arc<Bell>) -> (EvidenceWriter, EvidenceReader) {
    let (producer, consumer) = RingBuffer::new(RING_MESSAGES);
    (EvidenceWriter { ring: producer, bell: Arc::clone(bell) }, EvidenceReader(consumer))
}

impl EvidenceWriter {
    /// Sends a message, or returns it if the ring is full.
    pub(crate) fn send(&mut self, message: EvidenceMessage) -> Result<(), EvidenceMessage> {
        self.ring.push(message).map_err(|rtrb::PushError::Full(message)| message)
    }

    /// Wakes the assessor's thread.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Closes the ring and wakes the assessor's thread, which may sleep.
    pub(crate) fn close(self) {
        let Self { ring, bell } = self;
        drop(ring);
        bell.ring();
    }
}

impl EvidenceReader {
    /// Takes the next message, if there is one.
    pub fn take(&mut self) -> Option<EvidenceMessage> {
        self.0.pop().ok()
    }

    /// Whether the ring is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the writer has closed the ring and all its messages are taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // The writer may write and close between the two checks, so `is_abandoned` comes first.
        self.0.is_abandoned() && self.0.is_empty()
    }
}

tapio_core::counters! {
    /// The assessor's counters.
    struct AssessorCounters {
        facts: Counter = "Facts received by the assessor.",
        rounds: Counter = "Passes of the assessor over its rings, one a second at least.",
        stories_assessed: Counter = "Story revisions assessed.",
        stories_oversize: Counter =
            "Story revisions dropped because they do not fit into the ring to the bridge.",
        stories_abandoned: Counter =
            "Story revisions dropped at shutdown because the bridge has no room for them.",
        entities: Gauge = "Entities in the entity graph.",
        relations: Gauge = "Relations in the entity graph.",
        series: Gauge = "Baselines: series of counts by kind and entity.",
        pairs: Gauge = "Pairs of kinds whose order is learned.",
        evicted: Counter = "Entities and pairs evicted, and relations refused, for lack of room.",
        service_operations: Gauge = "Operations of services whose usual behaviour is learned.",
        service_spans: Gauge = "Spans that await their callees.",
        service_pairs: Gauge = "Pairs of services whose connections are seen.",
        services_sampled_out: Counter =
            "Spans, log records and connections that services are not learned from, at high rates.",
        services_refused: Counter =
            "Spans, connections, names and operations of services left out for lack of room.",
        failures: Counter =
            "Failures of the assessor: a fact was lost, or a story has no root causes and no impact.",
    }
}

impl AssessorCounters {
    /// Publishes the counts of the assessor. The thread adds its own.
    fn publish(&self, counts: &AssessorCounts) {
        self.facts.set(counts.facts);
        self.stories_assessed.set(counts.stories);
        self.entities.set(counts.entities);
        self.relations.set(counts.relations);
        self.series.set(counts.series);
        self.pairs.set(counts.pairs);
        self.evicted.set(counts.evicted);
        self.service_operations.set(counts.operations);
        self.service_spans.set(counts.spans);
        self.service_pairs.set(counts.connection_pairs);
        self.services_refused.set(counts.services_refused);
        self.services_sampled_out.set(counts.services_sampled_out);
        self.failures.set(counts.failures);
    }
}

/// The assessor's counters and suggestions, for other threads.
#[derive(Default)]
pub struct AssessorStats {
    counters: AssessorCounters,
    suggestions: Mutex<Vec<LearnedPair>>,
    emitted: StoryCounts,
}

impl AssessorStats {
    /// Reads the counters, which are at most a second old.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<> {
        self.counters.readings()
    }

    /// Stories emitted: pattern, severity at first emission, number.
    #[must_use]
    pub fn stories_emitted(&self) -> Vec<(String, &'static str, u64)> {
        self.emitted.get()
    }

    /// Pairs worth a rule, at most a second old.
    #[must_use]
    pub fn suggestions(&self) -> Vec<LearnedPair> {
        self.suggestions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps bytes until the next run.
pub type Keep = Box<dyn FnMut(&[u8]) + Send>;

/// A state, over restarts.
pub struct Kept {
    /// As an earlier run kept it; `None` for none.
    pub restored: Option<Vec<u8>>,
    /// Keeps it.
    pub save: Keep,
}

/// Services, over restarts.
pub struct KeptServices {
    /// Their usual behaviour.
    pub usual: Kept,
    /// The disturbances that are open.
    pub disturbances: Kept,
}

/// The assessor's thread.
pub struct AssessorThread {
    assessor: Assessor,
    bounds: Bounds,
    memory: MemoryPressure,
    /// The level of memory that the assessor is bounded to.
    level: MemoryLevel,
    inputs: Vec<EvidenceReader>,
    bell: Arc<Bell>,
    output: (RecordWriter, Arc<Bell>),
    waiting: VecDeque<Story>,
    stats: Arc<AssessorStats>,
    kept: Option<KeptServices>,
    published_ns: u64,
    advanced_ns: u64,
    saved_ns: u64,
    /// The counts at the last update of the statistics.
    published: AssessorCounts,
}

impl AssessorThread {
    /// A thread with these bounds that reads from `inputs`. It ends when all their writers have
    /// closed and all messages are processed.
    #[must_use]
    pub fn new(
        bounds: Bounds,
        (cluster, sensitivity): (&str, f64),
        inputs: Vec<EvidenceReader>,
        bell: Arc<Bell>,
        output: (RecordWriter, Arc<Bell>),
    ) -> Self {
        Self {
            assessor: Assessor::new(bounds).with_cluster(cluster).streaming(sensitivity),
            bounds,
            memory: MemoryPressure::default(),
            level: MemoryLevel::NORMAL,
            inputs,
            bell,
            output,
            waiting: VecDeque::new(),
            stats: Arc::default(),
            kept: None,
            published_ns: 0,
            advanced_ns: 0,
            saved_ns: clock::wall_ns(),
            published: AssessorCounts::default(),
        }
    }

    /// Ranks by these weights, which may be replaced meanwhile.
    #[must_use]
    pub fn with_weights(mut self, weights: LiveWeights) -> Self {
        self.assessor = self.assessor.with_weights(weights);
        self
    }

    /// Lets the bounds follow this level of memory.
    #[must_use]
    pub fn with_memory(mut self, memory: MemoryPressure) -> Self {
        self.memory = memory;
        self
    }

    /// Publishes there which part of spans and log records services are learned from.
    #[must_use]
    pub fn with_sampling(mut self, sampling: &Arc<Sampling>) -> Self {
        self.assessor.set_sampling(sampling);
        self
    }

    /// Restores what services usually do, and keeps it.
    #[must_use]
    pub fn with_kept_services(mut self, kept: Option<KeptServices>) -> Self {
        self.kept = kept;
        self
    }

    fn restore_services(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let disturbances = kept.disturbances.restored.take();
        let Some(bytes) = kept.usual.restored.take() else { return };
        let assessor = &mut self.assessor;
        match guarded(|| assessor.restore_services(&bytes)) {
            Ok(Ok(operations)) => {
                tracing::info!(operations, "what services usually do is restored");
            }
            Ok(Err(cause)) => tracing::warn!(
                cause,
                "what services usually did before can't be restored; it is learned anew"
            ),
            Err(cause) => self.assessor.failures.add(None, cause),
        }
        let Some(bytes) = disturbances else { return };
        let assessor = &mut self.assessor;
        match guarded(|| assessor.restore_disturbances(&bytes)) {
            Ok(Ok(0)) => {}
            Ok(Ok(open)) => tracing::info!(open, "disturbances of services go on"),
            Ok(Err(cause)) => tracing::warn!(
                cause,
                "disturbances that were open can't be restored; their stories stay open"
            ),
            Err(cause) => self.assessor.failures.add(None, cause),
        }
    }

    /// Keeps open disturbances, before their stories leave: no story stays open after a kill.
    fn save_disturbances(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let (assessor, save) = (&self.assessor, &mut kept.disturbances.save);
        if let Err(cause) =
            guarded(|| assessor.save_disturbances().iter().for_each(|bytes| save(bytes)))
        {
            self.assessor.failures.add(None, cause);
        }
    }

    /// Keeps what services usually do: from time to time, or now.
    fn save_services(&mut self, now: bool) {
        let now_ns = clock::wall_ns();
        if !now && now_ns.saturating_sub(self.saved_ns) < SAVE_INTERVAL_NS {
            return;
        }
        self.saved_ns = now_ns;
        let Some(kept) = &mut self.kept else { return };
        let (assessor, save) = (&mut self.assessor, &mut kept.usual.save);
        if let Err(cause) =
            guarded(|| assessor.save_services().iter().for_each(|bytes| save(bytes)))
        {
            self.assessor.failures.add(None, cause);
        }
    }

    fn follow_memory(&mut self) {
        let level = self.memory.level();
        if level != self.level {
            self.level = level;
            self.assessor.limit(self.bounds, level);
        }
    }

    /// Its statistics.
    #[must_use]
    pub fn stats(&self) -> Arc<AssessorStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until the shards end.
    pub fn run(mut self) {
        attach(&self.bell);
        report_instead_of_printing();
        self.restore_services();
        loop {
            self.follow_memory();
            let taken = self.poll_inputs();
            self.advance();
            self.stats.counters.rounds.add(1);
            self.write_stories();
            self.publish(false);
            self.save_services(false);
            if taken > 0 {
                continue;
            }
            let finished = self.inputs.iter().all(EvidenceReader::is_finished);
            if finished && self.waiting.is_empty() {
                break;
            }
            if !self.waiting.is_empty() {
                std::thread::sleep(RETRY_INTERVAL);
                continue;
            }
            // A shard that closed before the bell had a thread to wake rang it in vain.
            wait_until(&self.bell, MAX_SLEEP, || {
                self.inputs.iter().all(EvidenceReader::is_finished)
                    || !self.inputs.iter().all(EvidenceReader::is_empty)
            });
        }
        self.publish(true);
        self.output.1.ring();
        self.save_services(true);
        self.save_disturbances();
    }

    /// Lets time pass for what services usually do.
    fn advance(&mut self) {
        let now_ns = clock::wall_ns();
        if now_ns.saturating_sub(self.advanced_ns) < ADVANCE_INTERVAL_NS {
            return;
        }
        self.advanced_ns = now_ns;
        match guarded(|| self.assessor.advance(now_ns)) {
            Ok(stories) if stories.is_empty() => {}
            Ok(stories) => {
                self.save_disturbances();
                self.waiting.extend(stories);
            }
            Err(cause) => self.assessor.failures.add(None, cause),
        }
    }

    /// Processes the messages of all inputs. Returns their number.
    fn poll_inputs(&mut self) -> usize {
        let mut taken = 0;
        for input in &mut self.inputs {
            let end = taken + RING_MESSAGES;
            // One guard for all: the fact on which the assessor panics is taken already, and lost.
            while let Err(cause) = guarded(|| {
                while taken < end && self.waiting.len() < MAX_WAITING_STORIES {
                    let Some(message) = input.take() else { break };
                    taken += 1;
                    self.waiting.extend(self.assessor.process(message));
                }
            }) {
                self.assessor.failures.add(None, cause);
            }
        }
        self.assessor.report_failures();
        taken
    }

    /// Writes completed stories to the ring to the bridge, as far as there is room.
    fn write_stories(&mut self) {
        if self.output.0.is_abandoned() {
            // The bridge had no room for them until its time to drain was over.
            self.stats.counters.stories_abandoned.add(self.waiting.len() as u64);
            self.waiting.clear();
            return;
        }
        let mut written = false;
        while let Some(story) = self.waiting.front_mut() {
            match write_story(&mut self.output.0, story) {
                Written::Whole => self.stats.emitted.add(story),
                Written::Full => break,
                Written::Oversize => self.stats.counters.stories_oversize.add(1),
            }
            self.waiting.pop_front();
            written = true;
        }
        if written {
            self.output.1.ring();
        }
    }

    fn publish(&mut self, now: bool) {
        let now_ns = clock::wall_ns();
        if !now && now_ns.saturating_sub(self.published_ns) < PUBLISH_INTERVAL_NS {
            return;
        }
        self.published_ns = now_ns;
        let counts = self.assessor.counts();
        if !now && counts == self.published {
            return;
        }
        self.published = counts;
        self.stats.counters.publish(&counts);
        let suggestions = self.assessor.suggestions();
        *self.stats.suggestions.lock().unwrap_or_else(PoisonError::into_inner) = suggestions;
    }
}
