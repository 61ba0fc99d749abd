//! The shards as threads, with the rings that lead into them, between them and out of them.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::ThreadPlan;
use crate::evidence::{
    Assessor, AssessorStats, AssessorThread, Bounds, EvidenceReader, evidence_ring,
};
use crate::rules::LiveRules;
use crate::{LaneOptions, Order, Shard, ShardOutput, Wiring, Worker, WorkerStats};
use tapio_core::event::Stage;
use tapio_core::ring::{Bell, Ledger, MAX_FORWARDED_BLOCKS, RecordReader, RecordWriter, ring};
use tapio_core::shutdown::Shutdown;

/// How to build the correlator.
pub struct CorrelatorPlan {
    /// The rules; they also say how many shards there are.
    pub rules: Arc<LiveRules>,
    /// Arrival (live) or total (replay).
    pub order: Order,
    /// Bounds and modes of each shard.
    pub options: LaneOptions,
    /// Whether events are grouped at all.
    pub grouping: bool,
    /// How much is observed beside the stories' own events; `None`: nothing.
    pub evidence: Option<Bounds>,
    /// Blocks of 64 bytes in each ring.
    pub ring_blocks: usize,
    /// Whoever records what rules had a use for answers this bell.
    pub recorder: Option<Arc<Bell>>,
}

impl CorrelatorPlan {
    /// The shards, as they are before their first event.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let rules = self.rules.current();
        let shard = |number| {
            let shard = Shard::new(Arc::clone(&rules), number, self.options, self.grouping);
            match self.evidence {
                Some(bounds) => shard.observing(bounds),
                None => shard,
            }
        };
        (0..rules.shards()).map(shard).collect()
    }
}

/// A shard goes on only while the largest record would find room further down, wrap included. In a
/// ring of just that size it would wait for each record to be read before it takes the next.
const FEWEST_RING_BLOCKS: usize = 4 * MAX_FORWARDED_BLOCKS;

/// One collector's way in: a ring and a bell for each shard.
pub type Entrance = Vec<(RecordWriter, Arc<Bell>)>;

/// The running shards, and the assessor's desk where there is one.
pub struct Correlator {
    threads: Vec<JoinHandle<Shard>>,
    /// Each shard's counters.
    pub stats: Vec<Arc<WorkerStats>>,
    bells: Vec<Arc<Bell>>,
    desk: Option<JoinHandle<()>>,
    recorder: Option<JoinHandle<()>>,
}

/// What a correlator is joined to the rest by.
pub struct Started {
    /// The shards.
    pub correlator: Correlator,
    /// The ways in.
    pub entrances: Vec<Entrance>,
    /// The rings of events the bridge has to read.
    pub exits: Vec<RecordReader>,
    /// The rings of facts and stories the assessor has to read.
    pub notes: Vec<EvidenceReader>,
    /// The rings the recorder has to read, where there is one.
    pub recorded: Vec<RecordReader>,
}

impl Correlator {
    /// Starts the shards that were `made` by this plan. They ring `bridge_bell` for events and `assessor_bell` for notes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        plan: &CorrelatorPlan,
        made: Vec<Shard>,
        collectors: usize,
        [bridge_bell, assessor_bell]: [&Arc<Bell>; 2],
        ledger: &mut Ledger,
        shutdown: &Shutdown,
        threads: &mut ThreadPlan,
    ) -> std::io::Result<Started> {
        let shards = made.len();
        let ring_blocks = plan.ring_blocks.max(FEWEST_RING_BLOCKS);
        let bells: Vec<Arc<Bell>> =
            (0..shards).map(|_| Arc::new(Bell::new(Default::default()))).collect();
        let mut inputs: Vec<Vec<RecordReader>> = (0..shards).map(|_| Vec::new()).collect();
        let mut into = |shard: usize| {
            let (writer, reader) = ring(ring_blocks);
            inputs[shard].push(reader);
            (writer, Arc::clone(&bells[shard]))
        };
        let entrances: Vec<Entrance> =
            (0..collectors).map(|_| (0..shards).map(&mut into).collect()).collect();
        let onward: Vec<Entrance> =
            (0..shards).map(|from| (from + 1..shards).map(&mut into).collect()).collect();
        let mut correlator = Self {
            threads: Vec::new(),
            stats: Vec::new(),
            bells: bells.clone(),
            desk: None,
            recorder: None,
        };
        let (mut exits, mut note_readers, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
        let wired = made.into_iter().zip(inputs).zip(onward);
        for (number, ((shard, inputs), shards)) in wired.enumerate() {
            let (writer, reader) = ring(ring_blocks);
            exits.push(reader);
            let (assessor, note_reader) = evidence_ring(assessor_bell);
            note_readers.push(note_reader);
            let recorder = plan.recorder.as_ref().map(|bell| {
                let (writer, reader) = ring(ring_blocks);
                recorded.push(reader);
                (writer, Arc::clone(bell))
            });
            let bridge = (writer, Arc::clone(bridge_bell));
            let wiring = Wiring {
                inputs,
                bell: Arc::clone(&bells[number]),
                rules: Arc::clone(&plan.rules),
                output: ShardOutput { shards, bridge, assessor, recorder },
                ledger: ledger.stage(Stage::Correlate),
                shutdown: shutdown.clone(),
            };
            let worker = Worker::new(number, shard, plan.order, wiring);
            correlator.stats.push(worker.stats());
            let core = threads.next_core();
            let thread =
                std::thread::Builder::new().name(format!("shard:{number}")).spawn(move || {
                    if let Some(core) = core {
                        core_affinity::set_for_current(core);
                    }
                    worker.run()
                })?;
            correlator.threads.push(thread);
        }
        Ok(Started { correlator, entrances, exits, notes: note_readers, recorded })
    }

    /// Seats an assessor at the shards' notes, on a thread of its own. Returns the ring of stories
    /// the bridge has to read, and the assessor's counters.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn assess(
        &mut self,
        bounds: Bounds,
        notes: Vec<EvidenceReader>,
        [bridge_bell, bell]: [&Arc<Bell>; 2],
        ring_blocks: usize,
    ) -> std::io::Result<(RecordReader, Arc<AssessorStats>)> {
        let (writer, reader) = ring(ring_blocks);
        let output = (writer, Arc::clone(bridge_bell));
        let desk = AssessorThread::new(Assessor::new(bounds), notes, Arc::clone(bell), output);
        let stats = desk.stats();
        let thread = std::thread::Builder::new().name("assessor".into());
        self.desk = Some(thread.spawn(move || desk.run())?);
        Ok((reader, stats))
    }

    /// Takes charge of another thread that ends when the shards do.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn keep(&mut self, thread: std::io::Result<JoinHandle<()>>) -> std::io::Result<()> {
        self.recorder = Some(thread?);
        Ok(())
    }

    /// Waits for the shards and the assessor: the stop must be set and the collectors gone.
    pub fn join(self) -> Vec<Shard> {
        self.bells.iter().for_each(|bell| bell.ring());
        let shards = self.threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        if self.recorder.is_some_and(|recorder| recorder.join().is_err()) {
            tracing::error!("the recorder panicked; a restart cuts open stories");
        }
        if self.desk.is_some_and(|desk| desk.join().is_err()) {
            tracing::error!("the assessor panicked; the stories it held are lost");
        }
        shards
    }
}
