//! Builds the threads of the correlator and the rings between them: the one wiring that the agent,
//! replay and tests share.
//!
//! ```text
//! collectors ──▶ shard 0 ──▶ shard 1 … ──▶ exits (bridge)
//!                   │            │
//!                   ├────────────┴───────▶ evidence messages ──▶ assessor ──▶ exits (stories)
//!                   └────────────────────▶ recorder
//! ```
//!
//! Each arrow is a ring for each pair of threads. Without an assessor thread the caller reads the
//! evidence messages; without a recorder relevant events aren't recorded.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::driver::correlator::Correlator;
use crate::evidence::{
    AssessorStats, AssessorThread, Bounds, EvidenceReader, EvidenceWriter, KeptServices,
    LiveWeights, evidence_ring,
};
use crate::matcher::lane_options::LaneOptions;
use crate::matcher::order::Order;
use crate::rules::LiveRules;
use crate::shard::shard::Shard;
use crate::shard::shard_output::ShardOutput;
use crate::shard::worker::{Connections, Worker};
use tapio_core::cpu::{Placement, ThreadLayout};
use tapio_core::event::Stage;
use tapio_core::memory::MemoryPressure;
use tapio_core::ring::{Bell, Ledger, MAX_FORWARDED_BLOCKS, RecordReader, RecordWriter, ring};
use tapio_core::shutdown::Shutdown;

/// A shard takes a record only while the largest record would find room in its output rings, wrap
/// included. In a ring of just that size it would wait for each record to be read before it takes
/// the next.
const MIN_RING_BLOCKS: usize = 4 * MAX_FORWARDED_BLOCKS;

/// Blocks of 64 bytes in a ring where the caller doesn't set them.
const DEFAULT_RING_BLOCKS: usize = 1 << 15;

/// The rings of one collector, one for each shard, with the shard's bell.
pub type CollectorRings = Vec<(RecordWriter, Arc<Bell>)>;

/// Starts the recorder's thread on the rings that it reads and their bell.
type StartRecorder = Box<dyn FnOnce(Vec<RecordReader>, Arc<Bell>) -> io::Result<JoinHandle<()>>>;

/// The plan of the correlator's threads and rings; [`Topology::start`] builds it.
///
/// Without further steps: no collectors, one shard for each of the rule set, no evidence, no
/// assessor thread, no recorder.
pub struct Topology {
    rules: Arc<LiveRules>,
    order: Order,
    options: LaneOptions,
    correlates: bool,
    evidence: Option<Bounds>,
    service_sensitivity: f64,
    weights: LiveWeights,
    kept_services: Option<KeptServices>,
    memory: MemoryPressure,
    ring_blocks: usize,
    collectors: usize,
    shards: Option<Vec<Shard>>,
    /// The blocks of its ring of stories.
    assessor_thread: Option<usize>,
    recorder: Option<StartRecorder>,
}

/// A started topology, and the ends of its rings that belong to the caller.
pub struct Started {
    /// The threads.
    pub correlator: Correlator,
    /// The rings that the collectors write.
    pub entrances: Vec<CollectorRings>,
    /// The rings that the bridge reads: one of events for each shard, then the assessor thread's
    /// ring of stories.
    pub exits: Vec<RecordReader>,
    /// The rings of evidence messages, where there is no assessor thread.
    pub messages: Vec<EvidenceReader>,
    /// The counters of the assessor thread; zeros where there is none.
    pub assessor: Arc<AssessorStats>,
}

impl Topology {
    /// Plans the shards of these rules, for events in this order.
    #[must_use]
    pub fn new(rules: Arc<LiveRules>, order: Order) -> Self {
        Self {
            rules,
            order,
            options: LaneOptions::default(),
            correlates: true,
            evidence: None,
            service_sensitivity: 1.0,
            weights: LiveWeights::default(),
            kept_services: None,
            memory: MemoryPressure::default(),
            ring_blocks: DEFAULT_RING_BLOCKS,
            collectors: 0,
            shards: None,
            assessor_thread: None,
            recorder: None,
        }
    }

    /// Sets the bounds of each lane.
    #[must_use]
    pub fn lane_options(mut self, options: LaneOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets whether events are correlated at all. If not, they pass unchanged.
    #[must_use]
    pub fn correlation(mut self, correlates: bool) -> Self {
        self.correlates = correlates;
        self
    }

    /// Lets the shards extract facts for the assessor, within these bounds.
    #[must_use]
    pub fn evidence(mut self, bounds: Bounds) -> Self {
        self.evidence = Some(bounds);
        self
    }

    /// Lets what services usually do survive a restart.
    #[must_use]
    pub fn kept_services(mut self, kept: KeptServices) -> Self {
        self.kept_services = Some(kept);
        self
    }

    /// Sets how strong a deviation of a service opens a story: an n-th of the usual; 0: none does.
    #[must_use]
    pub fn service_sensitivity(mut self, sensitivity: f64) -> Self {
        self.service_sensitivity = sensitivity;
        self
    }

    /// Sets the weights of the terms by which root causes are ranked.
    #[must_use]
    pub fn weights(mut self, weights: LiveWeights) -> Self {
        self.weights = weights;
        self
    }

    /// Sets the level of memory that the shards and the assessor follow.
    #[must_use]
    pub fn memory(mut self, memory: MemoryPressure) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the blocks of 64 bytes in each ring of records. Too small a number is raised.
    #[must_use]
    pub fn ring_blocks(mut self, blocks: usize) -> Self {
        self.ring_blocks = blocks;
        self
    }

    /// Sets the number of collectors: each has a ring to each shard.
    #[must_use]
    pub fn collectors(mut self, collectors: usize) -> Self {
        self.collectors = collectors;
        self
    }

    /// Runs the assessor on a thread of its own, with `story_ring_blocks` blocks in its ring
    /// of stories.
    #[must_use]
    pub fn assessor_thread(mut self, story_ring_blocks: usize) -> Self {
        self.assessor_thread = Some(story_ring_blocks);
        self
    }

    /// Passes relevant events to a recorder, which `start` starts on its rings and their bell.
    #[must_use]
    pub fn recorder(
        mut self,
        start: impl FnOnce(Vec<RecordReader>, Arc<Bell>) -> io::Result<JoinHandle<()>> + 'static,
    ) -> Self {
        self.recorder = Some(Box::new(start));
        self
    }

    /// Creates the shards now and restores them with `restore`. Set the lane options, correlation
    /// and evidence before.
    #[must_use]
    pub fn restored(mut self, restore: impl FnOnce(&mut [Shard])) -> Self {
        let mut shards = self.make_shards();
        restore(&mut shards);
        self.shards = Some(shards);
        self
    }

    fn make_shards(&self) -> Vec<Shard> {
        let rules = self.rules.current();
        let shard = |number| {
            let shard = Shard::new(Arc::clone(&rules), number, self.order, self.options)
                .with_correlation(self.correlates);
            match self.evidence {
                Some(bounds) => shard.with_evidence(bounds),
                None => shard,
            }
        };
        (0..rules.shards()).map(shard).collect()
    }

    /// Starts the threads. `exit_bell` is the bell of whoever reads [`Started::exits`] and
    /// [`Started::messages`]; shutdown has to be requested before the entrances are dropped.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(
        mut self,
        exit_bell: &Arc<Bell>,
        ledger: &mut Ledger,
        shutdown: &Shutdown,
        layout: &ThreadLayout,
    ) -> io::Result<Started> {
        let shards = self.shards.take().unwrap_or_else(|| self.make_shards());
        let message_bell = match self.assessor_thread {
            Some(_) => new_bell(),
            None => Arc::clone(exit_bell),
        };
        let recorder_bell = self.recorder.is_some().then(new_bell);
        let mut rings = Rings::new(self.ring_blocks, shards.len(), self.collectors);
        let mut correlator = Correlator {
            shards: Vec::new(),
            bells: rings.bells.clone(),
            assessor: None,
            recorder: None,
            stats: Vec::new(),
        };
        for (number, shard) in shards.into_iter().enumerate() {
            let connections = Connections {
                inputs: std::mem::take(&mut rings.inputs[number]),
                bell: Arc::clone(&rings.bells[number]),
                rules: Arc::clone(&self.rules),
                memory: self.memory.clone(),
                output: rings.output(number, exit_bell, &message_bell, recorder_bell.as_ref()),
                ledger: ledger.stage(Stage::Correlate),
                shutdown: shutdown.clone(),
            };
            let worker = Worker::new(number, shard, self.order, connections);
            correlator.stats.push(worker.stats());
            let name = format!("shard:{number}");
            let placement = layout.placement(&name);
            correlator.shards.push(spawn(name, placement, move || worker.run())?);
        }
        let Rings { entrances, mut exits, mut messages, recorded, .. } = rings;
        let mut assessor = Arc::default();
        if self.evidence.is_none() {
            self.rules.sampling().stop();
        }
        if let Some(blocks) = self.assessor_thread {
            let cluster = self.rules.current().cluster.clone();
            let (writer, stories) = ring(blocks);
            exits.push(stories);
            let output = (writer, Arc::clone(exit_bell));
            let inputs = std::mem::take(&mut messages);
            let thread = AssessorThread::new(
                self.bounds(),
                (&cluster, self.service_sensitivity),
                inputs,
                message_bell,
                output,
            )
            .with_memory(self.memory.clone())
            .with_weights(self.weights.clone())
            .with_sampling(self.rules.sampling())
            .with_kept_services(self.kept_services.take());
            assessor = thread.stats();
            let placement = layout.placement("assessor");
            correlator.assessor = Some(spawn("assessor".into(), placement, move || thread.run())?);
        }
        if let (Some(start), Some(bell)) = (self.recorder.take(), recorder_bell) {
            let thread = start(recorded, bell).map_err(|e| named("recorder", &e))?;
            correlator.recorder = Some(thread);
        }
        Ok(Started { correlator, entrances, exits, messages, assessor })
    }

    /// The bounds of the assessor thread.
    fn bounds(&self) -> Bounds {
        self.evidence.unwrap_or(Bounds::LIVE)
    }
}

fn new_bell() -> Arc<Bell> {
    Arc::new(Bell::new(Default::default()))
}

/// The rings of a topology before its threads have them.
struct Rings {
    blocks: usize,
    bells: Vec<Arc<Bell>>,
    /// Of each shard: the rings of the collectors, then of the lower shards.
    inputs: Vec<Vec<RecordReader>>,
    entrances: Vec<CollectorRings>,
    /// Of each shard: the rings to the higher shards.
    between: Vec<CollectorRings>,
    exits: Vec<RecordReader>,
    messages: Vec<EvidenceReader>,
    recorded: Vec<RecordReader>,
}

impl Rings {
    /// Makes the rings into the shards; [`Rings::output`] makes those out of them.
    fn new(blocks: usize, shards: usize, collectors: usize) -> Self {
        let blocks = blocks.max(MIN_RING_BLOCKS);
        let bells: Vec<Arc<Bell>> = (0..shards).map(|_| new_bell()).collect();
        let mut inputs: Vec<Vec<RecordReader>> = (0..shards).map(|_| Vec::new()).collect();
        let mut ring_to = |shard: usize| {
            let (writer, reader) = ring(blocks);
            inputs[shard].push(reader);
            (writer, Arc::clone(&bells[shard]))
        };
        // Collectors first: a shard's rings of lower shards are the last of its inputs.
        let entrances = (0..collectors).map(|_| (0..shards).map(&mut ring_to).collect()).collect();
        let between =
            (0..shards).map(|from| (from + 1..shards).map(&mut ring_to).collect()).collect();
        Self {
            blocks,
            bells,
            inputs,
            entrances,
            between,
            exits: Vec::new(),
            messages: Vec::new(),
            recorded: Vec::new(),
        }
    }

    /// Makes the output rings of a shard.
    fn output(
        &mut self,
        number: usize,
        exit_bell: &Arc<Bell>,
        message_bell: &Arc<Bell>,
        recorder_bell: Option<&Arc<Bell>>,
    ) -> ShardOutput {
        let (exit, reader) = ring(self.blocks);
        self.exits.push(reader);
        let (assessor, reader): (EvidenceWriter, EvidenceReader) = evidence_ring(message_bell);
        self.messages.push(reader);
        let recorder = recorder_bell.map(|bell| {
            let (writer, reader) = ring(self.blocks);
            self.recorded.push(reader);
            (writer, Arc::clone(bell))
        });
        ShardOutput {
            shards: std::mem::take(&mut self.between[number]),
            bridge: (exit, Arc::clone(exit_bell)),
            assessor,
            recorder,
        }
    }
}

/// Starts a thread on its CPUs.
fn spawn<T: Send + 'static>(
    name: String,
    placement: Placement,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let own = name.clone();
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        placement.begin(&own);
        run()
    });
    thread.map_err(|e| named(&name, &e))
}

/// The error with the thread's name.
fn named(thread: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("thread {thread}: {error}"))
}
