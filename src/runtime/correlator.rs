//! The shards as threads, with the rings that lead into them, between them and out of them.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::collector::ThreadPlan;
use crate::dataflow::rules::RuleSet;
use crate::dataflow::{LaneOptions, Order, Shard, ShardOutput, Wiring, Worker, WorkerStats};
use crate::event::Stage;
use crate::ring::{Bell, Ledger, MAX_FORWARDED_BLOCKS, RecordReader, RecordWriter, Stop, ring};

/// How to build the correlator.
pub struct CorrelatorPlan {
    /// The rules; they also say how many shards there are.
    pub rules: Arc<RuleSet>,
    /// Arrival (live) or total (replay).
    pub order: Order,
    /// Bounds and modes of each shard.
    pub options: LaneOptions,
    /// Whether events are grouped at all.
    pub grouping: bool,
    /// Blocks of 64 bytes in each ring.
    pub ring_blocks: usize,
}

/// A shard goes on only while the largest record would find room further down, wrap included. In a
/// ring of just that size it would wait for each record to be read before it takes the next.
const FEWEST_RING_BLOCKS: usize = 4 * MAX_FORWARDED_BLOCKS;

/// One collector's way in: a ring and a bell for each shard.
pub type Entrance = Vec<(RecordWriter, Arc<Bell>)>;

/// The running shards.
pub struct Correlator {
    threads: Vec<JoinHandle<Shard>>,
    /// Each shard's counters.
    pub stats: Vec<Arc<WorkerStats>>,
    bells: Vec<Arc<Bell>>,
}

impl Correlator {
    /// Starts the shards. Returns the correlator, an entrance for each collector, and the rings the
    /// bridge has to read.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        plan: &CorrelatorPlan,
        collectors: usize,
        bridge_bell: &Arc<Bell>,
        ledger: &mut Ledger,
        stop: &Stop,
        threads: &mut ThreadPlan,
    ) -> std::io::Result<(Self, Vec<Entrance>, Vec<RecordReader>)> {
        let shards = plan.rules.shards();
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
        let mut correlator = Self { threads: Vec::new(), stats: Vec::new(), bells: bells.clone() };
        let mut exits = Vec::new();
        for (number, (inputs, shards)) in inputs.into_iter().zip(onward).enumerate() {
            let (writer, reader) = ring(ring_blocks);
            exits.push(reader);
            let shard = Shard::new(Arc::clone(&plan.rules), number, plan.options, plan.grouping);
            let wiring = Wiring {
                inputs,
                bell: Arc::clone(&bells[number]),
                output: ShardOutput { shards, bridge: (writer, Arc::clone(bridge_bell)) },
                ledger: ledger.stage(Stage::Correlate),
                stop: stop.clone(),
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
        Ok((correlator, entrances, exits))
    }

    /// Waits for the shards: the stop must be set and the collectors gone.
    pub fn join(self) -> Vec<Shard> {
        self.bells.iter().for_each(|bell| bell.ring());
        self.threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    }
}
